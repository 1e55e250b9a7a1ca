"""The table of services, and what else speaks of them."""

from collections.abc import Callable

import yaml

from src.services.launcher import PROBES, SERVERS
from src.services.table import SERVICES, of, shell_lines
from src.settings import EXAMPLE_FILE, ROOT, Settings, read_env_file

COMPOSE = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text())["services"]


def told(settings: Settings) -> dict[str, str]:
    return dict(line.split("=", 1) for line in shell_lines(settings))


def test_every_setting_that_the_table_names_exists() -> None:
    known = read_env_file(EXAMPLE_FILE)
    for service in SERVICES:
        named = [*service.settings, *service.ports("docker"), *service.ports("native")]
        named.remove("CHECKOUT") if "CHECKOUT" in named else None  # no setting: of the path
        named += [service.image] if service.image else []
        named += [service.sign_in.user, service.sign_in.password] if service.sign_in else []
        assert set(filter(None, named)) <= known.keys(), service.name


def test_a_service_comes_after_those_that_it_needs() -> None:
    names = [service.name for service in SERVICES]
    for service in SERVICES:
        for needed in service.needs:
            assert names.index(needed) < names.index(service.name)


def test_compose_has_the_same_services_with_the_same_needs() -> None:
    here = {service.name: service for service in of("docker")}
    assert COMPOSE.keys() == here.keys()
    for name, service in here.items():
        assert set(COMPOSE[name].get("depends_on", {})) == set(service.needs), name
        published = {entry["published"].strip("${:?}") for entry in COMPOSE[name].get("ports", [])}
        assert published == set(service.ports("docker")), name
        assert ("build" in COMPOSE[name]) == (not service.image), name
        assert ("profiles" in COMPOSE[name]) == (not service.starts), name


def test_every_service_without_an_image_has_a_launcher_and_a_healthcheck() -> None:
    for service in of("native"):
        assert service.name in SERVERS
    assert {service.name for service in of("docker") if not service.image} == PROBES.keys()


def test_the_shell_is_told_where_each_service_is(
    make_settings: Callable[..., Settings], settings: Settings
) -> None:
    here = told(settings)
    assert here["URL_zenml"] == "http://localhost:8080"
    assert here["SERVICES_native"].startswith("object-store mlflow zenml")
    assert here["SERVICES_docker"].startswith("mysql object-store mlflow zenml")
    assert here["SHOWN_docker"].endswith("zenml mlflow object-store")
    assert here["PORTS_native"].startswith("MINIO_PORT MLFLOW_PORT ZENML_PORT")
    assert here["PORTS_docker"].startswith("MINIO_PORT MINIO_CONSOLE_PORT MLFLOW_PORT")
    assert here["PAGE_docker_object_store"] == "http://localhost:9001"
    wide = told(make_settings(bind_address="192.168.1.20"))
    assert wide["URL_mlflow"] == "http://192.168.1.20:5000"


def test_a_sign_in_is_told_where_it_is_asked_for(
    make_settings: Callable[..., Settings], settings: Settings
) -> None:
    assert "SIGN_IN_mlflow" not in told(settings)
    wide = told(make_settings(bind_address="192.168.1.20"))
    assert wide["SIGN_IN_mlflow"] == "MLFLOW_ADMIN_USERNAME MLFLOW_ADMIN_PASSWORD"


def test_no_secret_is_among_what_the_table_tells_the_shell(settings: Settings) -> None:
    text = "\n".join(shell_lines(settings))
    assert settings.minio_root_password not in text
    assert settings.zenml_admin_password not in text


def test_no_proxy_stands_between_the_containers() -> None:
    """Compose gives every container the proxies of Docker's own configuration."""
    for service in SERVICES:
        if service.name in COMPOSE and not service.image:
            environment = COMPOSE[service.name]["environment"]
            assert environment["NO_PROXY"] == environment["no_proxy"] == "*", service.name
