"""How the servers are started, natively and in containers, by one piece of code."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from src.services import launcher
from src.services.launcher import SERVERS, Start
from src.services.table import SERVICES
from src.settings import ROOT, Settings

CONTAINER = {
    "SERVICE_HOST": "0.0.0.0",
    "SERVICE_DATA": "/data",
    "DATABASE_HOST": "mysql:3306",
    "STORE_HOST": "object-store:9000",
}
LAUNCHED = [service for service in SERVICES if service.name in SERVERS]

Launch = Callable[..., Start]


@pytest.fixture
def launch(
    make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Launch:
    """Return what starts a server: by name, from exactly the settings that the table lists."""
    monkeypatch.setattr(launcher, "_make_volume", lambda *_: None)

    def launch(name: str, *, place: dict[str, str] | None = None, **changes: object) -> Start:
        changes = {"host_names": ""} | changes
        (service,) = [service for service in SERVICES if service.name == name]
        settings = make_settings(**changes)
        given = {setting: str(getattr(settings, setting.lower())) for setting in service.settings}
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        given |= {"SERVICE_DATA": str(folder)} if place is None else place
        return SERVERS[name](given)

    return launch


@pytest.mark.parametrize("service", LAUNCHED, ids=lambda service: service.name)
def test_the_table_lists_all_that_a_server_is_started_with(service: object, launch: Launch) -> None:
    assert launch(service.name).command  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [service.name for service in LAUNCHED])
def test_no_secret_stands_in_a_command_line(
    name: str, launch: Launch, valid: dict[str, str]
) -> None:
    secrets = [value for key, value in valid.items() if key.endswith(("_PASSWORD", "_KEY"))]
    line = " ".join(launch(name, bind_address="192.168.1.20").command)
    assert not [secret for secret in secrets if len(secret) > 20 and secret in line]


def test_the_servers_listen_on_the_settings_address_and_ports(launch: Launch) -> None:
    zenml = launch("zenml", bind_address="192.168.1.20", zenml_port=8181)
    assert zenml.command[1:] == ["192.168.1.20", "8181"]
    mlflow = " ".join(launch("mlflow", bind_address="192.168.1.20", mlflow_port=5001).command)
    assert "--host 192.168.1.20 --port 5001" in mlflow
    store = launch("object-store", bind_address="192.168.1.20")
    assert store.command[-1] == "192.168.1.20:9000"


def test_mlflow_asks_for_a_sign_in_only_where_others_can_reach_it(
    launch: Launch, tmp_path: Path
) -> None:
    alone = launch("mlflow")
    assert "basic-auth" not in alone.command
    assert "MLFLOW_AUTH_ADMIN_PASSWORD" not in alone.environment
    shared = launch("mlflow", bind_address="192.168.1.20")
    assert shared.command[-2:] == ["--app-name", "basic-auth"]
    config = Path(shared.environment["MLFLOW_AUTH_CONFIG_PATH"])
    assert f"sqlite:///{tmp_path / 'mlflow'}/basic_auth.db" in config.read_text()


def test_natively_the_databases_are_files_and_the_store_is_where_clients_find_it(
    launch: Launch, tmp_path: Path
) -> None:
    mlflow = launch("mlflow").environment
    assert mlflow["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path / 'mlflow'}/mlflow.db"
    assert mlflow["MLFLOW_S3_ENDPOINT_URL"] == "http://localhost:9000"
    wide = launch("mlflow", bind_address="192.168.1.20").environment
    assert wide["MLFLOW_S3_ENDPOINT_URL"] == "http://192.168.1.20:9000"
    zenml = launch("zenml").environment
    assert zenml["ZENML_STORE_URL"] == f"sqlite:///{tmp_path / 'zenml'}/zenml.db"
    assert zenml["ZENML_CONFIG_PATH"] == str(tmp_path / "zenml")


def test_in_containers_they_are_mysql_and_the_store_beside(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_write_log_config", lambda file: None)
    place = CONTAINER | {"ZENML_CONFIG_PATH": "/tmp/zenml"}
    mlflow = launch("mlflow", place=place, mysql_mlflow_password="pass:word@1")
    address = "mysql+pymysql://mlflow:pass%3Aword%401@mysql:3306/mlflow"
    assert mlflow.environment["MLFLOW_BACKEND_STORE_URI"] == address
    assert mlflow.environment["MLFLOW_S3_ENDPOINT_URL"] == "http://object-store:9000"
    assert "0.0.0.0" in mlflow.command
    zenml = launch("zenml", place=place)
    assert zenml.environment["ZENML_STORE_URL"].startswith("mysql://zenml:")
    assert zenml.environment["ZENML_CONFIG_PATH"] == "/tmp/zenml"


def test_the_environment_wins_over_the_file_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "zenml.env"
    file.write_text("ZENML_PORT=1\nZENML_ADMIN_PASSWORD=a=b\n")
    given = launcher.read_settings({"SERVICE_SETTINGS": str(file), "ZENML_PORT": "2"})
    assert given["ZENML_PORT"] == "2"
    assert given["ZENML_ADMIN_PASSWORD"] == "a=b"


def test_a_volume_that_was_not_finished_is_made_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def make(command: list[str], **_: object) -> None:
        asked.append(command)
        assert not (tmp_path / "new.db").exists()
        assert not (tmp_path / "data").exists()
        (tmp_path / launcher.VOLUME).parent.mkdir(parents=True)
        (tmp_path / launcher.VOLUME).touch()
        with closing(sqlite3.connect(tmp_path / "new.db")) as index, index:
            index.execute("CREATE TABLE jfs_setting (name TEXT)")
            if len(asked) > 1:
                index.execute("INSERT INTO jfs_setting VALUES ('format')")
        if len(asked) == 1:
            raise subprocess.CalledProcessError(-9, "juicefs")

    monkeypatch.setattr(subprocess, "run", make)
    with pytest.raises(subprocess.CalledProcessError):
        launcher._make_volume("juicefs", tmp_path, {})
    assert not (tmp_path / "meta.db").exists()
    for _ in range(2):
        launcher._make_volume("juicefs", tmp_path, {})
    assert (tmp_path / "meta.db").exists()
    assert len(asked) == 2


def option(start: Start, name: str) -> list[str]:
    return start.command[start.command.index(name) + 1].split(",")


@pytest.mark.parametrize(
    ("names", "hosts", "origins"),
    [
        ("", [], []),
        (
            "mlops.lab/stack.lab:8443",
            ["mlops.lab", "mlops.lab:5000", "stack.lab:8443"],
            [
                "http://mlops.lab",
                "http://mlops.lab:5000",
                "http://stack.lab:8443",
                "https://mlops.lab",
                "https://stack.lab:8443",
            ],
        ),
    ],
)
def test_mlflow_answers_under_its_own_names_and_to_its_own_page(
    launch: Launch, names: str, hosts: list[str], origins: list[str]
) -> None:
    start = launch("mlflow", bind_address="192.168.1.20", host_names=names)
    local = ["localhost:*", "127.0.0.1:*"]
    assert option(start, "--allowed-hosts") == [*local, "192.168.1.20:5000", *hosts]
    assert option(start, "--cors-allowed-origins") == ["http://192.168.1.20:5000", *origins]


def test_no_page_but_its_own_may_use_zenmls_session(launch: Launch) -> None:
    environment = launch("zenml", bind_address="192.168.1.20", host_names="mlops.lab").environment
    assert environment["ZENML_SERVER_CORS_ALLOW_ORIGINS"].split(",") == [
        "http://192.168.1.20:8080",
        "http://mlops.lab",
        "http://mlops.lab:8080",
        "https://mlops.lab",
    ]


def test_an_index_that_an_older_version_left_unfinished_is_made_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "block").write_text("somebody's")
    with closing(sqlite3.connect(tmp_path / "meta.db")) as index, index:
        index.execute("CREATE TABLE jfs_setting (name TEXT)")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: (tmp_path / "new.db").touch())
    launcher._make_volume("juicefs", tmp_path, {})
    assert (tmp_path / "meta.db").exists()
    (kept,) = tmp_path.glob("data.without-index-*/block")
    assert kept.read_text() == "somebody's"


def test_an_index_whose_data_were_deleted_is_kept_and_another_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(index: Path) -> None:
        with closing(sqlite3.connect(index)) as opened, opened:
            opened.execute("CREATE TABLE jfs_setting (name TEXT)")
            opened.execute("INSERT INTO jfs_setting VALUES ('format')")
        (tmp_path / launcher.VOLUME).parent.mkdir(parents=True)
        (tmp_path / launcher.VOLUME).write_text("its name")

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: finish(tmp_path / "new.db"))
    launcher._make_volume("juicefs", tmp_path, {})
    first = (tmp_path / "meta.db").read_bytes()
    launcher._make_volume("juicefs", tmp_path, {})
    assert not list(tmp_path.glob("index-without-data-*"))
    shutil.rmtree(tmp_path / "data")
    launcher._make_volume("juicefs", tmp_path, {})
    (kept,) = tmp_path.glob("index-without-data-*.db")
    assert kept.read_bytes() == first
    assert (tmp_path / launcher.VOLUME).exists()
    assert (tmp_path / "meta.db").exists()


SUPERVISOR = """
import subprocess, sys

port = sys.argv[1]
listens = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1])))"
listens += "; print(flush=True); time.sleep(60)"
forks = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', *sys.argv[1:]])"
first = subprocess.Popen([sys.executable, "-c", forks, listens, port], stdout=subprocess.PIPE)
first.stdout.readline()  # its child listens
first.wait()
again = "import sys; from src.services.launcher import end_earlier as end; "
again += "end({'BIND_ADDRESS': '127.0.0.1', 'MLFLOW_PORT': sys.argv[1]}, 'mlflow')"
subprocess.run([sys.executable, "-c", again, port], check=True)
print("supervisor lives")
"""


def test_the_child_of_a_killed_server_gives_its_port_to_the_next(tmp_path: Path) -> None:
    """As MLflow's, which goes on answering when its parent was killed."""
    shutil.copytree(ROOT / "src", tmp_path / "src")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISOR, str(port)], cwd=tmp_path, capture_output=True,
        text=True, check=True, timeout=60, env=os.environ | {launcher.MARK: str(tmp_path)},
    )  # fmt: skip
    assert done.stdout == "supervisor lives\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
