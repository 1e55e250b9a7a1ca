"""Start a server, under supervisor and in its container alike. Standard library only, but for the
server itself.

Usage: ``python -m src.services.launcher SERVICE`` becomes that server;
``… check SERVICE`` exits 0 when it answers: a container's healthcheck;
``… cli ARGUMENT…`` runs ZenML's CLI as the administrator, in its container;
``… gc ARGUMENT…`` runs ``mlflow gc`` beside MLflow's server, on its database.

A server gets the settings that ``table.py`` lists for it from its environment or, secrets above
all, from the file that SERVICE_SETTINGS names: neither ``ps`` nor ``docker inspect`` shows them.
Where it runs is told by SERVICE_DATA (its folder), and in containers by SERVICE_HOST (the address
to listen on), DATABASE_HOST (MySQL's; without it, SQLite in its folder) and STORE_HOST.
"""
# ruff: noqa: S606

from __future__ import annotations

import ipaddress
import os
import sys
import time
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Given = Mapping[str, str]
CHECK_TIMEOUT = 3.0  # seconds
PROOF = "X-Checkout"  # the header by which a server says whose it is
VOLUME = "data/store/juicefs_uuid"  # in the native store's folder: its data are there
MARK = "ZENML_CV_YOLO_CHECKOUT"  # in the environment of every process that supervisor starts


@dataclass(frozen=True)
class Start:
    """What to run, and what it finds in its environment beside the inherited."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    def become(self) -> None:
        """Replace this process."""
        os.environ.update(self.environment)
        os.execvp(self.command[0], self.command)


# --- Where things are, decided once ---------------------------------------------------------------


def read_settings(environment: Mapping[str, str]) -> Given:
    """Return what this server was given; the environment wins over the file."""
    file = environment.get("SERVICE_SETTINGS")
    lines = Path(file).read_text(encoding="utf-8").splitlines() if file else []
    return ChainMap(dict(environment), dict(line.split("=", 1) for line in lines if line))


def host(given: Given) -> str:
    """Return the address to listen on."""
    return given.get("SERVICE_HOST", given["BIND_ADDRESS"])


def loopback(given: Given) -> bool:
    """Tell whether only this machine can reach the server."""
    return ipaddress.ip_address(given["BIND_ADDRESS"]).is_loopback


def own_host(given: Given) -> str:
    """Return the host name by which clients on this machine reach the servers."""
    return "localhost" if given["BIND_ADDRESS"] == "127.0.0.1" else given["BIND_ADDRESS"]


def names(given: Given) -> list[str]:
    """Return the other names, with a port or without, under which browsers may come."""
    return [name for name in given["HOST_NAMES"].split("/") if name]


def hosts(given: Given, port: str) -> list[str]:
    """Return the Host headers of requests that are meant for the server at ``port``.

    The port is left open where a tunnel may have changed it, and nobody can claim the name.
    """
    own = [f"{given['BIND_ADDRESS']}:{port}"]
    for name in names(given):
        own += [name] if ":" in name else [name, f"{name}:{port}"]
    return ["localhost:*", "127.0.0.1:*", *own]


def origins(given: Given, port: str) -> list[str]:
    """Return the origins of the server's own page: others may read and change nothing."""
    own = [f"http://{host}" for host in hosts(given, port) if "*" not in host]
    return own + [f"https://{name}" for name in names(given)]


def proof(given: Given) -> tuple[str, str]:
    """Return the header by which a server's answers say whose it is."""
    return (PROOF, given["CHECKOUT"])


def package(name: str) -> Path:
    """Return an installed package's folder, without importing it."""
    import importlib.util

    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def store_url(given: Given) -> str:
    """Return the object store's address as this server reaches it."""
    if "STORE_HOST" in given:
        return f"http://{given['STORE_HOST']}"
    return f"http://{own_host(given)}:{given['MINIO_PORT']}"


def mlflow_url(given: Given) -> str:
    """Return MLflow's address as this server reaches it."""
    if "MLFLOW_HOST" in given:
        return f"http://{given['MLFLOW_HOST']}"
    return f"http://{own_host(given)}:{given['MLFLOW_PORT']}"


def database_url(given: Given, name: str, mysql: str, folder: Path) -> str:
    """Return a database's address: in MySQL, with the scheme ``mysql``, or SQLite's in a folder."""
    if "DATABASE_HOST" not in given:
        return f"sqlite:///{folder}/{name}.db"
    from urllib.parse import quote

    password = quote(given[f"MYSQL_{name.upper()}_PASSWORD"], safe="")
    return f"{mysql}://{name}:{password}@{given['DATABASE_HOST']}/{name}"


def migrate(given: Given, service: str) -> str | None:
    """Bring a server's database to its schema; return why that can't be done.

    In MySQL ZenML does it by itself, and JuiceFS its index.
    """
    if service == "detector":
        return None
    from src.services import migration

    folder = Path(given["SERVICE_DATA"])
    try:
        if service == "mlflow":
            versions = package("mlflow") / "store" / "db_migrations" / "versions"
            if "DATABASE_HOST" in given:
                address = database_url(given, "mlflow", "mysql+pymysql", folder)
                migration.migrate_mysql(address, versions)
            else:
                migration.ensure_current(folder / "mlflow.db", "MLflow", versions, migration.MLFLOW)
        elif service == "zenml" and "DATABASE_HOST" not in given:
            versions = package("zenml") / "zen_stores" / "migrations" / "versions"
            os.environ["ZENML_CONFIG_PATH"] = str(folder.absolute())
            migration.ensure_current(folder / "zenml.db", "ZenML", versions, migration.ZENML)
        elif service == "object-store" and (folder / "meta.db").exists():
            migration.require_sound(folder / "meta.db")
    except migration.MigrationError as error:
        return str(error)
    return None


# --- The object store (native) --------------------------------------------------------------------


def object_store(given: Given) -> Start:
    """Return JuiceFS's gateway, after making its volume the first time."""
    folder = Path(given["SERVICE_DATA"])
    juicefs = str(Path(sys.executable).with_name("juicefs"))
    environment = {
        "HOME": str(folder.absolute()),
        "GOGC": "50",
        "MINIO_ROOT_USER": given["MINIO_ROOT_USER"],
        "MINIO_ROOT_PASSWORD": given["MINIO_ROOT_PASSWORD"],
    }
    _make_volume(juicefs, folder, environment)
    command = [
        *(juicefs, "--no-agent", "gateway", "--multi-buckets", "--keep-etag", "--object-tag"),
        *("--object-meta", "--no-usage-report", "--no-banner", "--no-color"),
        *("--log", str(folder / "gateway.log"), "--cache-dir", str(folder / "cache")),
        *("--cache-size", "0", "--buffer-size", "64", "--metrics", "127.0.0.1:0"),
        *("--backup-meta", "0", f"sqlite3://{folder}/meta.db"),
        f"{host(given)}:{given['MINIO_PORT']}",
    ]
    return Start(command, environment)


def _make_volume(juicefs: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Make the volume under another name first: one that was not finished never starts.

    An index whose data are gone, and data whose index is, are kept aside: neither serves alone.
    """
    import shutil
    import sqlite3
    import subprocess
    from contextlib import closing

    if _formatted(folder / "meta.db"):
        if (folder / VOLUME).exists():
            return
        (folder / "meta.db").rename(folder / f"index-without-data-{time.time_ns()}.db")
    for leftover in [*folder.glob("new.db*"), *folder.glob("meta.db*")]:
        leftover.unlink()
    # What an unfinished volume holds is its name alone.
    if any(file.name != "juicefs_uuid" for file in (folder / "data").rglob("*") if file.is_file()):
        (folder / "data").rename(folder / f"data.without-index-{time.time_ns()}")
    shutil.rmtree(folder / "data", ignore_errors=True)
    subprocess.run(
        [
            *(juicefs, "--no-agent", "format", "--storage", "file"),
            *("--bucket", f"{folder.absolute()}/data/"),
            *("--trash-days", "0", "--no-color", f"sqlite3://{folder}/new.db", "store"),
        ],
        env=os.environ | environment,
        check=True,
    )
    with closing(sqlite3.connect(folder / "new.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # juicefs leaves all in the log
    (folder / "new.db").rename(folder / "meta.db")


def _formatted(index: Path) -> bool:
    """Tell whether a volume's index is finished: its format is what juicefs writes last."""
    import sqlite3
    from contextlib import closing

    if not index.exists():
        return False
    with closing(sqlite3.connect(index)) as database:
        try:
            found = database.execute("SELECT 1 FROM jfs_setting WHERE name = 'format'").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return False
    return found is not None


# --- MLflow ---------------------------------------------------------------------------------------

# On SQLite: the foreign keys of MLflow's tables share a name, which MySQL refuses.
AUTH_SETTINGS = """\
[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/basic_auth.db
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def mlflow(given: Given) -> Start:
    """Return MLflow's server. It asks for a sign-in unless only this machine can reach it."""
    folder = Path(given["SERVICE_DATA"])
    port = given["MLFLOW_PORT"]
    beside = ["mlflow:*"] if "STORE_HOST" in given else []  # from containers of one's own
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
        *("--host", host(given), "--port", port),
        *("--allowed-hosts", ",".join(hosts(given, port) + beside)),
        *("--cors-allowed-origins", ",".join(origins(given, port))),
        *("--serve-artifacts", "--artifacts-destination", f"s3://{given['MLFLOW_BUCKET']}"),
        "--uvicorn-opts",
        f"--log-config {folder}/logging.json --header {':'.join(proof(given))}",
    ]
    environment = {
        "MLFLOW_BACKEND_STORE_URI": database_url(given, "mlflow", "mysql+pymysql", folder),
        "MLFLOW_S3_ENDPOINT_URL": store_url(given),
        "AWS_ACCESS_KEY_ID": given["MLFLOW_S3_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": given["MLFLOW_S3_SECRET_KEY"],
        # Its job workers would take 1.4 GB.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # No experiment names its own place for artifacts: at file:/… this server would write there.
        "MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH": "0",
    }
    if not loopback(given):
        command += ["--app-name", "basic-auth"]
        config = folder / "basic_auth.ini"
        config.write_text(AUTH_SETTINGS.format(folder=folder), encoding="utf-8")
        environment |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(config),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": given["MLFLOW_SERVER_SECRET_KEY"],
            "MLFLOW_AUTH_ADMIN_USERNAME": given["MLFLOW_ADMIN_USERNAME"],
            "MLFLOW_AUTH_ADMIN_PASSWORD": given["MLFLOW_ADMIN_PASSWORD"],
        }
    _write_log_config(folder / "logging.json")
    return Start(command, environment)


def _write_log_config(file: Path) -> None:
    """Write MLflow's own logging configuration with our filter added."""
    import json

    import yaml

    own = package("mlflow") / "server" / "uvicorn_log_config.yaml"
    config = yaml.safe_load(own.read_text(encoding="utf-8"))
    config["filters"] = {"no_probes": {"()": "src.services.launcher.NoProbes"}}
    config["handlers"]["access"]["filters"] = ["no_probes"]
    file.write_text(json.dumps(config), encoding="utf-8")


class NoProbes:
    """A ``logging`` filter that keeps the healthcheck's requests out of the access log."""

    def filter(self, record: object) -> bool:
        """Return whether to log the record."""
        return '"GET /health HTTP/1.0"' not in record.getMessage()  # type: ignore[attr-defined]


# --- ZenML ----------------------------------------------------------------------------------------

# ZenML's page asks three other hosts for pictures and news; this policy forbids it. ZenML 0.98
# strips quotes off both ends of a directive's sources: hence the two spaces, and blob: at the end.
PAGE_POLICY = "; ".join(
    f"{directive}  {sources} blob:"
    for directive, sources in {
        "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data:",
        **dict.fromkeys(
            ("default-src", "connect-src", "font-src", "frame-src", "base-uri", "form-action"),
            "'self'",
        ),
    }.items()
)


def zenml(given: Given) -> Start:
    """Return ZenML's server, to be run by ``_serve_zenml`` in this process."""
    folder = Path(given["SERVICE_DATA"]).absolute()
    return Start(
        ["zenml.zen_server.zen_server_api:app", host(given), given["ZENML_PORT"]],
        {
            "ZENML_STORE_URL": database_url(given, "zenml", "mysql", folder),
            "ZENML_CONFIG_PATH": given.get("ZENML_CONFIG_PATH", str(folder)),
            # Else `zenml init`, here or in a folder above, has the next start refuse every sign-in.
            "ZENML_REPOSITORY_PATH": str(folder),
            "ZENML_SERVER_DEPLOYMENT_TYPE": "other",
            "ZENML_SERVER_AUTO_ACTIVATE": "true",
            # Else every origin may, and the page of another port of this host shares the cookie.
            "ZENML_SERVER_CORS_ALLOW_ORIGINS": ",".join(origins(given, given["ZENML_PORT"])),
            "ZENML_SERVER_SECURE_HEADERS_CSP": PAGE_POLICY,
            "ZENML_DEFAULT_USER_NAME": given["ZENML_ADMIN_USERNAME"],
            "ZENML_DEFAULT_USER_PASSWORD": given["ZENML_ADMIN_PASSWORD"],
            "ZENML_SERVER_JWT_SECRET_KEY": given["ZENML_JWT_SECRET_KEY"],
            "ZENML_SECRETS_STORE_ENCRYPTION_KEY": given["ZENML_ENCRYPTION_KEY"],
        },
    )


def _serve_zenml(given: Given) -> None:
    """Serve ZenML and, in a container, the store under the address that clients registered."""
    import logging
    import threading

    start = zenml(given)
    os.environ.update(start.environment)
    logging.getLogger("uvicorn.access").addFilter(NoProbes())
    if "STORE_HOST" in given:
        threading.Thread(target=_forward_forever, args=(given,), daemon=True).start()
    import uvicorn

    app, address, port = start.command
    uvicorn.run(app, host=address, port=int(port), server_header=False, headers=[proof(given)])


def _forward_forever(given: Given) -> None:
    """Forward the loopback's MINIO_PORT to the object store; without it the container ends.

    Clients registered that address with ZenML; here it would lead nowhere, and the dashboard
    could show neither logs nor visualisations.
    """
    import asyncio

    name, _, port = given["STORE_HOST"].partition(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy one direction until either end closes."""
        try:
            while block := await reader.read(65536):
                writer.write(block)
                await writer.drain()
        except OSError:
            pass  # a reset: the other direction ends too, once its writer is closed
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(name, int(port))
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async def forward() -> None:
        here = given["BIND_ADDRESS"] if loopback(given) else "127.0.0.1"
        server = await asyncio.start_server(serve, here, int(given["MINIO_PORT"]))
        await server.serve_forever()

    try:
        asyncio.run(forward())
    finally:
        os._exit(1)


def zenml_cli(given: Given, arguments: list[str]) -> Start:
    """Return ZenML's CLI as the administrator, over the server's API."""
    return Start(
        [str(Path(sys.executable).with_name("zenml")), *arguments],
        {
            "ZENML_STORE_URL": f"http://localhost:{given['ZENML_PORT']}",
            "ZENML_STORE_USERNAME": given["ZENML_ADMIN_USERNAME"],
            "ZENML_STORE_PASSWORD": given["ZENML_ADMIN_PASSWORD"],
            "ZENML_CONFIG_PATH": "/tmp/zenml-cli",  # noqa: S108 - the container's own memory
        },
    )


def mlflow_gc(given: Given, arguments: list[str]) -> None:
    """Run ``mlflow gc`` in this process: a database's password may stand in its arguments."""
    start = mlflow(given)
    address = "127.0.0.1" if "SERVICE_HOST" in given or loopback(given) else given["BIND_ADDRESS"]
    os.environ.update(start.environment)
    os.environ |= {
        "MLFLOW_TRACKING_URI": f"http://{address}:{given['MLFLOW_PORT']}",
        "MLFLOW_TRACKING_USERNAME": given["MLFLOW_ADMIN_USERNAME"],
        "MLFLOW_TRACKING_PASSWORD": given["MLFLOW_ADMIN_PASSWORD"],
    }
    from mlflow.cli import cli

    database = start.environment["MLFLOW_BACKEND_STORE_URI"]
    cli.main(["gc", "--backend-store-uri", database, *arguments], prog_name="mlflow")


# --- The champion behind HTTP ---------------------------------------------------------------------


def detector(given: Given) -> Start:
    """Return the champion's server. It asks for a token unless only this machine reaches it."""
    environment = {
        "MLFLOW_TRACKING_URI": mlflow_url(given),
        # Else MLflow sends it to the object store, under a name that may not resolve here.
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # A look at the alias ends before the next is due, whatever MLflow does.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
        "NO_PROXY": "*",
        "SERVE_CHECKOUT": given["CHECKOUT"],
        "SERVE_HOST": host(given),
        "SERVE_PORT": given["SERVE_PORT"],
        "SERVE_MODEL": given["SERVE_MODEL"],
        "SERVE_CACHE": str(Path(given["SERVICE_DATA"]) / "models"),
        "SERVE_TOKEN": "",
    }
    if not loopback(given):
        environment |= {
            "MLFLOW_TRACKING_USERNAME": given["MLFLOW_ADMIN_USERNAME"],
            "MLFLOW_TRACKING_PASSWORD": given["MLFLOW_ADMIN_PASSWORD"],
            "SERVE_TOKEN": given["SERVE_API_KEY"],
        }
    return Start([sys.executable, "-m", "src.champion.server"], environment)


# --- Running --------------------------------------------------------------------------------------

SERVERS: dict[str, Callable[[Given], Start]] = {
    "object-store": object_store,
    "mlflow": mlflow,
    "zenml": zenml,
    "detector": detector,
}
# A container's healthcheck: what to GET, from which port, and others that must be open.
PROBES = {
    "mlflow": ("/health", "MLFLOW_PORT"),
    "zenml": ("/health", "ZENML_PORT", "MINIO_PORT"),
    "detector": ("/ping", "SERVE_PORT"),
}


def check(given: Given, service: str) -> int:
    """Return 0 when a server answers in its container; cheap, since it runs every few seconds."""
    import socket

    path, *settings = PROBES[service]
    first, *others = (int(given[setting]) for setting in settings)
    with socket.create_connection(("127.0.0.1", first), CHECK_TIMEOUT) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = connection.recv(64)
    for other in others:
        socket.create_connection(("127.0.0.1", other), CHECK_TIMEOUT).close()
    return int(answer.split(b" ")[1:2] != [b"200"])


def end_earlier(given: Given, service: str) -> None:
    """End what a killed server left: MLflow's child keeps its port, and answers in its place."""
    import socket
    import subprocess

    _, setting, *_ = PROBES.get(service, ("", "MINIO_PORT"))
    try:
        socket.create_connection((host(given), int(given[setting])), CHECK_TIMEOUT).close()
    except OSError:
        return
    supervisor = str(os.getppid())
    subprocess.run([sys.executable, "-m", "src.services.processes", "end", supervisor], check=True)


def _empty(folder: str) -> None:
    """Make the folder for temporary files, without what a killed server left there."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    Path(folder).mkdir(exist_ok=True)


def main(what: str, *arguments: str) -> int:
    """Run the command line described above."""
    given = read_settings(os.environ)
    if what == "check":
        return check(given, *arguments)
    if what == "cli":
        zenml_cli(given, list(arguments)).become()
    if what == "gc":
        mlflow_gc(given, list(arguments))
    if "SERVICE_HOST" in given:
        _empty(os.environ["TMPDIR"])
    elif MARK in os.environ:
        end_earlier(given, what)
    if fault := migrate(given, what):
        print(f"error: {fault}", file=sys.stderr)
        return 1
    if what == "zenml":
        _serve_zenml(given)
    else:
        SERVERS[what](given).become()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
