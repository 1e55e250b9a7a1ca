"""What is particular to the Docker backend: containers, their hardening, and their recovery."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.e2e.conftest import COMPOSE, Checkout
from tests.e2e.servers import MLflow, ZenML

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.environ.get("TEST_MODE") != "docker", reason="make test-docker"),
]

SERVICES = {"mysql", "object-store", "mlflow", "zenml"}
GIGABYTE = 1e9


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def containers(checkout: Checkout) -> dict[str, dict[str, Any]]:
    """What `docker inspect` says of each of this checkout's services."""
    project = f"label=com.docker.compose.project={checkout.settings['COMPOSE_PROJECT_NAME']}"
    ids = docker("ps", "--all", "--quiet", "--filter", project).split()
    found = json.loads(docker("inspect", *ids)) if ids else []
    return {c["Config"]["Labels"]["com.docker.compose.service"]: c for c in found}


def test_four_hardened_containers_on_loopback(checkout: Checkout) -> None:
    checkout.make("up")
    found = containers(checkout)
    assert found.keys() == SERVICES
    for name, container in found.items():
        host = container["HostConfig"]
        assert container["Config"]["User"].split(":")[0] not in ("", "0", "root"), name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["Memory"] > 0, name
        assert host["RestartPolicy"]["Name"] == "unless-stopped", name
        assert host["LogConfig"]["Config"]["max-size"], name
        for bindings in host["PortBindings"].values():
            assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}, name


def test_no_secret_shows(checkout: Checkout) -> None:
    secrets = {v for k, v in checkout.settings.items() if k.endswith(("_PASSWORD", "_SECRET_KEY"))}
    shown = json.dumps(containers(checkout)) + docker("ps", "--no-trunc")
    for service in SERVICES:
        shown += docker("logs", containers(checkout)[service]["Id"])
    assert not [secret for secret in secrets if secret in shown]


def test_a_second_up_changes_no_container(checkout: Checkout) -> None:
    before = {name: (c["Id"], c["State"]["StartedAt"]) for name, c in containers(checkout).items()}
    started = time.monotonic()
    checkout.make("up")
    assert time.monotonic() - started < 5
    after = {name: (c["Id"], c["State"]["StartedAt"]) for name, c in containers(checkout).items()}
    assert before == after


@pytest.mark.skipif(os.geteuid() != 0, reason="ending a container's process takes root")
@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_killed_service_is_healthy_again_by_itself(checkout: Checkout, service: str) -> None:
    killed = containers(checkout)[service]["State"]
    os.kill(killed["Pid"], signal.SIGKILL)
    started = time.monotonic()
    while True:
        state = containers(checkout)[service]["State"]
        if state["Pid"] not in (0, killed["Pid"]) and state["Health"]["Status"] == "healthy":
            break
        assert time.monotonic() - started < 30, "15 s are promised on an idle machine"
        time.sleep(0.2)


def test_the_cli_in_the_container_talks_to_its_server(checkout: Checkout) -> None:
    checkout.make("stack")
    listed = checkout.run(*COMPOSE, "exec", "-T", "zenml", "zenml", "stack", "list")
    assert "mlflow_stack" in listed


def test_idle_memory_and_image_sizes(checkout: Checkout) -> None:
    used = 0.0
    for container in containers(checkout).values():
        text = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", container["Id"])
        number = text.split("/")[0].strip()
        used += float(number.removesuffix("MiB").removesuffix("GiB")) * (
            1.024 if "GiB" in number else 0.001048576
        )
    assert used < 1.2
    sizes = [
        json.loads(docker("image", "inspect", containers(checkout)[name]["Image"]))[0]["Size"]
        for name in ("mlflow", "zenml")
    ]
    assert sum(sizes) < 1.8 * GIGABYTE


def test_switching_backends_loses_neither_data(checkout: Checkout) -> None:
    names = [account["name"] for account in ZenML(checkout).get("service_accounts")["items"]]
    refused = checkout.make("up", "MODE=native", expect=2)
    assert "make down first" in refused
    checkout.make("down")
    checkout.make("up", "MODE=native")
    assert ZenML(checkout).get("service_accounts")["total"] == 0
    checkout.make("down", "MODE=native")
    checkout.make("up")
    assert [a["name"] for a in ZenML(checkout).get("service_accounts")["items"]] == names


def test_clean_leaves_nothing_of_the_project_and_all_else(checkout: Checkout) -> None:
    project = f"label=com.docker.compose.project={checkout.settings['COMPOSE_PROJECT_NAME']}"
    every, built = ("images", "--quiet", "--no-trunc"), "label=com.docker.compose.project"
    # Of what projects build, another test may just be deleting its own.
    others = set(docker(*every).split()) - set(docker(*every, "--filter", built).split())
    own = {containers(checkout)[name]["Image"] for name in ("mlflow", "zenml")}
    checkout.make("clean", "FORCE=1")
    assert containers(checkout) == {}
    assert docker("volume", "ls", "--quiet", "--filter", project) == ""
    assert docker("network", "ls", "--quiet", "--filter", project) == ""
    left = set(docker(*every).split())
    assert left.isdisjoint(own)
    assert others
    assert others <= left


OLDER = """
import os, sys
from pathlib import Path
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base
from sqlalchemy import create_engine, inspect, text
from src.services import launcher

given = launcher.read_settings(os.environ)
address = launcher.database_url(given, "mlflow", "mysql+pymysql", Path())
engine = create_engine(address)
with engine.begin() as connection:
    connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
    for table in inspect(connection).get_table_names():
        connection.execute(text(f"DROP TABLE `{table}`"))
    connection.execute(text("SET FOREIGN_KEY_CHECKS = 1"))
Base.metadata.create_all(engine)
config = _get_alembic_config(address.replace("%", "%%"))
with engine.begin() as connection:
    config.attributes["connection"] = connection
    command.upgrade(config, sys.argv[1])
with engine.begin() as connection:
    connection.execute(text(
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) "
        "VALUES (7, 'of an older release', 'mlflow-artifacts:/7', 'active')"
    ))
    if sys.argv[2:]:
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{sys.argv[2]}'"))
"""


def made_by_another(checkout: Checkout, *arguments: str) -> None:
    """Have MLflow's tables in MySQL be those of another release, and its containers stopped."""
    checkout.run(*COMPOSE, "exec", "-T", "mlflow", "python", "-c", OLDER, *arguments)
    checkout.run(*COMPOSE, "stop")
    (checkout.root / ".stack/docker/applied/versions").write_text("mlflow==2.9.2\n")


@pytest.mark.faults
@pytest.mark.parametrize(
    ("release", "revision"),
    [("2.9.2", "acf3f17fdcc7"), ("2.22.0", "0584bdc529eb"), ("3.5.0", "bf29a5ff90ea")],
)
def test_tables_of_an_older_mlflow_in_mysql_are_migrated(
    checkout: Checkout, release: str, revision: str
) -> None:
    checkout.make("up")
    made_by_another(checkout, revision)
    assert "copying the databases" in checkout.make("up")
    assert f"MLflow: bringing its database from {revision} to" in checkout.make(
        "logs", "SERVICE=mlflow"
    )
    assert "of an older release" in MLflow(checkout).runs()
    assert checkout.make("status").count(" healthy ") == 3


@pytest.mark.faults
def test_tables_of_a_newer_mlflow_in_mysql_are_refused_and_put_back(checkout: Checkout) -> None:
    made_by_another(checkout, "bf29a5ff90ea", "ffffffffffff")
    said = checkout.make("up", expect=2)
    assert "was made by a newer MLflow (ffffffffffff)" in said
    assert "putting the databases back as they were before the upgrade" in said
    assert not (checkout.root / ".stack/docker/migrating").exists()
    checkout.run(*COMPOSE, "up", "--detach", "--wait", "mysql")
    asked = "SELECT version_num FROM mlflow.alembic_version"
    client = "MYSQL_PWD=$(cat /run/secrets/mysql-root-password) mysql -u root"
    kept = checkout.run(*COMPOSE, "exec", "-T", "mysql", "sh", "-c", f"{client} -e '{asked}'")
    assert "ffffffffffff" in kept
