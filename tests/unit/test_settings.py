"""The settings: which source wins, and that every fault is named without its secret."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src import settings as module
from src.settings import (
    BY_SUFFIX,
    EXAMPLE_FILE,
    Settings,
    SettingsError,
    load_settings,
    read_env_file,
)

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path, valid: dict[str, str]) -> Load:
    """Return a loader: ``.env`` holds valid settings with some changed (None: left out)."""

    def load(*lines: str, environ: dict[str, str] | None = None, **changes: str | None) -> Settings:
        values = {key: value for key, value in (valid | changes).items() if value is not None}
        env_file = tmp_path / ".env"
        text = "\n".join([f"{key}={value}" for key, value in values.items()] + list(lines))
        env_file.write_text(text + "\n")
        return load_settings(environ or {}, env_file)

    return load


def faults(
    load: Load, *lines: str, environ: dict[str, str] | None = None, **changes: str | None
) -> list[str]:
    """Return the lines of the error that loading ends with."""
    with pytest.raises(SettingsError) as caught:
        load(*lines, environ=environ, **changes)
    return str(caught.value).splitlines()


def test_the_example_has_the_known_settings_and_others_told_by_their_names() -> None:
    names = [key.lower() for key in read_env_file(EXAMPLE_FILE)]
    assert [name for name in names if name in Settings.model_fields] == list(Settings.model_fields)
    others = [name.upper() for name in names if name not in Settings.model_fields]
    untold = [name for name in others if not name.endswith(tuple(filter(None, BY_SUFFIX)))]
    assert not untold, f"{untold}: give each a field in Settings"


def test_a_setting_that_no_code_names_is_checked_by_the_end_of_its_name(
    tmp_path: Path, valid: dict[str, str]
) -> None:
    example, env = tmp_path / ".env.example", tmp_path / ".env"
    example.write_text(EXAMPLE_FILE.read_text() + "SPARE_PORT=8090\nSPARE_PASSWORD=\n")

    def load(port: str, password: str) -> Settings:
        values = valid | {"SPARE_PORT": port, "SPARE_PASSWORD": password}
        env.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
        return load_settings({}, env, example)

    assert load("8091", "a-password").spare_port == 8091  # type: ignore[attr-defined]
    with pytest.raises(SettingsError) as caught:
        load("http", "short")
    assert {line.split(":")[0] for line in str(caught.value).splitlines()} == {
        "SPARE_PORT",
        "SPARE_PASSWORD",
    }
    with pytest.raises(SettingsError, match="SPARE_PASSWORD is not set: run `make setup`"):
        load("8091", "")
    with pytest.raises(SettingsError, match="the ports must differ"):
        load("5000", "a-password")


def test_the_example_holds_no_secret() -> None:
    values = read_env_file(EXAMPLE_FILE)
    secrets = [k for k in values if k.endswith(("_PASSWORD", "_SECRET_KEY", "_ENCRYPTION_KEY"))]
    assert secrets
    assert not any(values[key] for key in secrets)


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(load: Load) -> None:
    assert load(ZENML_PORT=None).zenml_port == 8080
    assert load(ZENML_PORT="8081").zenml_port == 8081
    assert load(ZENML_PORT="8081", environ={"ZENML_PORT": "8082"}).zenml_port == 8082


def test_a_blank_value_counts_as_not_set(load: Load) -> None:
    assert load(ZENML_PORT="").zenml_port == 8080
    assert load(ZENML_PORT="8081", environ={"ZENML_PORT": ""}).zenml_port == 8081


def test_without_a_file_the_message_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="make setup"):
        load_settings({}, tmp_path / ".env")


def test_every_missing_wrong_and_unknown_setting_is_named_at_once(load: Load) -> None:
    found = faults(
        load,
        ZENML_PORT="http",
        MODE="podman",
        MINIO_ROOT_PASSWORD=None,
        DVC_S3_ACCESS_KEY="ab",
        COCO128_URL="ftp://example.org/coco128.zip",
        MLFLOW_PROT="5001",
    )
    named = {line.split()[0].rstrip(":") for line in found}
    expected = {"ZENML_PORT", "MODE", "MINIO_ROOT_PASSWORD", "DVC_S3_ACCESS_KEY", "COCO128_URL"}
    assert named == expected | {".env"}
    assert len(found) == 6


def test_faulty_lines_and_faulty_values_are_named_at_once(load: Load) -> None:
    found = "\n".join(faults(load, "WEIGHTS=my weights.pt", ZENML_PORT="http", WEIGHTS=None))
    assert "WEIGHTS" in found
    assert "ZENML_PORT" in found


def test_clashes_and_faulty_values_are_named_at_once(load: Load) -> None:
    found = "\n".join(faults(load, MODE="podman", DVC_BUCKET="mlflow-artifacts"))
    assert "MODE" in found
    assert "the buckets must differ" in found


@pytest.mark.parametrize(
    ("line", "suggestion"),
    [("MLFLOW_PROT=1", "did you mean MLFLOW_PORT?"), ("QUITE_ELSE=1", "remove the line")],
)
def test_an_unknown_setting_comes_with_a_suggestion(load: Load, line: str, suggestion: str) -> None:
    (fault,) = faults(load, line)
    assert line.split("=")[0] in fault
    assert suggestion in fault


def test_the_environment_may_hold_what_is_no_setting(load: Load) -> None:
    assert load(environ={"MLFLOW_PROT": "1", "PATH": "/bin"}).mlflow_port == 5000


@pytest.mark.parametrize(
    "line",
    [
        'WEIGHTS="yolo.pt"',
        "WEIGHTS='yolo.pt'",
        "WEIGHTS=my weights.pt",
        "WEIGHTS = yolo.pt",
        "WEIGHTS=yolo.pt # mine",
        "export WEIGHTS=yolo.pt",
        "WEIGHTS=$HOME/yolo.pt",
        "WEIGHTS",
    ],
)
def test_a_line_that_the_shell_would_read_otherwise_is_refused(
    load: Load, valid: dict[str, str], line: str
) -> None:
    (fault,) = faults(load, "", line, WEIGHTS=None)
    number = len(valid) + 1
    assert f".env line {number} " in fault
    assert "WEIGHTS" in fault
    assert "KEY=value" in fault


def test_a_setting_that_stands_there_twice_is_refused(load: Load, valid: dict[str, str]) -> None:
    (fault,) = faults(load, "ZENML_PORT=8081")
    assert f"line {len(valid) + 1}: ZENML_PORT is set twice" in fault


@pytest.mark.parametrize(
    "line",
    [
        'MINIO_ROOT_PASSWORD="hunter2 "',
        "MINIO_ROOT_PASSWORD=hunter2!",
        "MINIO_ROOT_PASSWORD=hunter2",  # too short
        "MINIO_ROOT_PASSWORD: hunter2",
        "MINIO_ROOT_PASSWORD hunter2",
    ],
)
def test_a_faulty_secret_is_named_but_not_shown(load: Load, line: str) -> None:
    found = "\n".join(faults(load, line, MINIO_ROOT_PASSWORD=None))
    assert "MINIO_ROOT_PASSWORD" in found
    assert "hunter2" not in found


def test_a_faulty_secret_of_the_environment_is_named_but_not_shown(load: Load) -> None:
    (fault,) = faults(load, environ={"ZENML_ADMIN_PASSWORD": "hunter 2 and more"})
    assert fault.startswith("ZENML_ADMIN_PASSWORD")
    assert "hunter" not in fault


def test_a_fault_of_the_environment_says_so_with_its_remedy(load: Load) -> None:
    """Kubernetes gives containers an MLFLOW_PORT, and MODE is a word of many."""
    environ = {"MODE": "production", "MLFLOW_PORT": "tcp://10.0.0.1:5000"}
    found = faults(load, environ=environ)
    assert len(found) == 2
    for name in environ:
        (fault,) = [line for line in found if line.startswith(f"{name} from the environment: ")]
        assert fault.endswith(f": unset {name}, or give it another value")
    assert load(environ={}).mode == "auto"  # what the remedy leads to


def test_a_clash_says_which_value_is_the_environment_s(load: Load) -> None:
    (fault,) = faults(load, environ={"MLFLOW_PORT": "8080"})
    assert "MLFLOW_PORT=8080 from the environment" in fault
    assert "ZENML_PORT=8080," in fault


def test_only_one_loopback_address_is_localhost(load: Load) -> None:
    assert load(BIND_ADDRESS="127.0.0.2").store_url == "http://127.0.0.2:9000"
    assert load(BIND_ADDRESS="127.0.0.2").loopback


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "localhost", "stack.example.org"])
def test_only_an_address_that_clients_can_connect_to_is_taken(load: Load, address: str) -> None:
    (fault,) = faults(load, BIND_ADDRESS=address)
    assert fault.startswith("BIND_ADDRESS")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"MLFLOW_PORT": "8080"}, "ports"),
        ({"MINIO_CONSOLE_PORT": "9000"}, "ports"),
        ({"DVC_BUCKET": "zenml-artifacts"}, "buckets"),
        ({"DVC_S3_ACCESS_KEY": "zenml"}, "users"),
        ({"MINIO_ROOT_USER": "mlflow"}, "users"),
    ],
)
def test_ports_buckets_and_users_must_differ(
    load: Load, changes: dict[str, Any], what: str
) -> None:
    (fault,) = faults(load, **changes)
    assert f"{what} must differ" in fault
    for key, value in changes.items():
        assert f"{key}={value}" in fault


def test_every_clash_is_named_at_once(load: Load) -> None:
    found = "\n".join(faults(load, MLFLOW_PORT="8080", DVC_BUCKET="zenml-artifacts"))
    assert "ports must differ" in found
    assert "buckets must differ" in found


def test_clients_use_localhost_while_the_address_is_loopback(load: Load) -> None:
    local, wide = load(), load(BIND_ADDRESS="192.168.1.20", MLFLOW_PORT="5001")
    assert (local.zenml_url, local.store_url) == ("http://localhost:8080", "http://localhost:9000")
    assert wide.mlflow_url == "http://192.168.1.20:5001"


def test_an_ipv6_address_is_refused_or_gives_valid_addresses(load: Load) -> None:
    try:
        loaded = load(BIND_ADDRESS="fd00::20")
    except SettingsError:
        return
    assert loaded.zenml_url == "http://[fd00::20]:8080"


def test_the_backend_is_the_one_that_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    monkeypatch.setattr(module, "STATE", tmp_path)
    assert load().backend_state == tmp_path / "native"
    (tmp_path / "backend").write_text("docker\n")
    assert load().backend_state == tmp_path / "docker"
    (tmp_path / "backend").write_bytes(b"\x01\xff")
    assert load().backend_state == tmp_path / "native"
    (tmp_path / "native").mkdir()
    assert (load().api_key, load().stack_id) == ("", "")
    load().api_key_file.write_text("ZENKEY_1\n")
    load().stack_id_file.write_bytes(b"\x01\xff")
    assert (load().api_key, load().stack_id) == ("ZENKEY_1", "")
