"""Start a server in its container: ``server.py mlflow``, ``server.py zenml``; or, in ZenML's, the
CLI: ``server.py cli ARGUMENT…``.

The secrets come from a mounted file of ``KEY=value`` lines and reach the server through its
environment only: neither ``ps`` nor ``docker inspect`` shows them. Standard library only, but for
the server itself.
"""
# 0.0.0.0 is the container's own network, of which compose.yaml publishes BIND_ADDRESS only, and
# /tmp its own memory.
# ruff: noqa: S104, S108, S606

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import json
import logging
import os
import shutil
import sys
import threading
from pathlib import Path
from urllib.parse import quote

SECRETS = Path("/run/secrets")
LOG_CONFIG = Path("/tmp/logging.json")
AUTH_CONFIG = Path("/tmp/basic_auth.ini")
# On SQLite: the foreign keys of MLflow's tables share a name, which MySQL refuses.
AUTH_SETTINGS = """\
[mlflow]
default_permission = READ
database_uri = sqlite:////data/basic_auth.db
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def read_secrets(name: str) -> dict[str, str]:
    """Return the variables of a mounted secret."""
    lines = (SECRETS / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line)


def database_url(scheme: str, user: str, password: str, database: str) -> str:
    """Return a database's address in the MySQL container."""
    return f"{scheme}://{user}:{quote(password, safe='')}@mysql:3306/{database}"


def make_empty(folder: str) -> None:
    """Make the folder for temporary files, without what a killed server left there."""
    shutil.rmtree(folder, ignore_errors=True)
    Path(folder).mkdir(exist_ok=True)


class NoProbes(logging.Filter):
    """Keeps the healthcheck's requests out of the access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log the record."""
        return '"GET /health HTTP/1.0"' not in record.getMessage()


# --- MLflow ---------------------------------------------------------------------------------------


def start_mlflow() -> None:
    """Become MLflow's server. It asks for a sign-in unless only this machine can reach it."""
    secrets = read_secrets("mlflow.env")
    password = secrets.pop("DATABASE_PASSWORD")
    address = os.environ["BIND_ADDRESS"]
    os.environ.update(secrets)
    os.environ["MLFLOW_BACKEND_STORE_URI"] = database_url(
        "mysql+pymysql", "mlflow", password, "mlflow"
    )
    arguments = [
        *("mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--workers", "1"),
        *("--serve-artifacts", "--artifacts-destination", f"s3://{os.environ['MLFLOW_BUCKET']}"),
        *("--allowed-hosts", f"localhost:*,127.0.0.1:*,mlflow:*,{address}:*"),
        *("--uvicorn-opts", f"--log-config {LOG_CONFIG}"),
    ]
    if not ipaddress.ip_address(address).is_loopback:
        arguments += ["--app-name", "basic-auth"]
        AUTH_CONFIG.write_text(AUTH_SETTINGS, encoding="utf-8")
        os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(AUTH_CONFIG)
    _write_log_config()
    os.execvp(arguments[0], arguments)


def _write_log_config() -> None:
    """Write MLflow's own logging configuration with our filter added."""
    import yaml

    spec = importlib.util.find_spec("mlflow")
    assert spec is not None and spec.origin is not None
    own = Path(spec.origin).parent / "server" / "uvicorn_log_config.yaml"
    config = yaml.safe_load(own.read_text(encoding="utf-8"))
    config["filters"] = {"no_probes": {"()": "server.NoProbes"}}
    config["handlers"]["access"]["filters"] = ["no_probes"]
    LOG_CONFIG.write_text(json.dumps(config), encoding="utf-8")


# --- ZenML ----------------------------------------------------------------------------------------


def start_zenml() -> None:
    """Serve ZenML, and the object store under the address that clients registered."""
    secrets = read_secrets("zenml.env")
    password = secrets.pop("DATABASE_PASSWORD")
    os.environ.update(secrets)
    os.environ["ZENML_STORE_URL"] = database_url("mysql", "zenml", password, "zenml")
    logging.getLogger("uvicorn.access").addFilter(NoProbes())
    threading.Thread(target=_forward_forever, daemon=True).start()
    import uvicorn

    uvicorn.run(
        "zenml.zen_server.zen_server_api:app",
        host="0.0.0.0",
        port=int(os.environ["ZENML_PORT"]),
        server_header=False,
    )


def _forward_forever() -> None:
    """Forward ``localhost:<MINIO_PORT>`` to the object store; without it the container ends.

    Clients registered that address with ZenML; here it would lead nowhere, and the dashboard
    could show neither logs nor visualisations.
    """
    try:
        asyncio.run(_forward(int(os.environ["MINIO_PORT"]), "object-store", 9000))
    finally:
        os._exit(1)


async def _forward(port: int, host: str, target: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction until either end closes."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # a reset: the other direction ends too, once its writer is closed
    finally:
        writer.close()


def run_cli(arguments: list[str]) -> None:
    """Become ZenML's CLI as the administrator, over the server's API."""
    secrets = read_secrets("zenml.env")
    os.environ["ZENML_STORE_URL"] = f"http://localhost:{os.environ['ZENML_PORT']}"
    os.environ["ZENML_STORE_USERNAME"] = secrets["ZENML_DEFAULT_USER_NAME"]
    os.environ["ZENML_STORE_PASSWORD"] = secrets["ZENML_DEFAULT_USER_PASSWORD"]
    os.environ["ZENML_CONFIG_PATH"] = "/tmp/zenml-cli"
    os.execv("/opt/venv/bin/zenml", ["zenml", *arguments])


def main(role: str, *arguments: str) -> None:
    """Run the command line described above."""
    if role == "cli":
        run_cli(list(arguments))
    make_empty(os.environ["TMPDIR"])
    if role == "mlflow":
        start_mlflow()
    else:
        start_zenml()


if __name__ == "__main__":
    main(*sys.argv[1:])
