"""What each service is, in one place: its names, settings, address, sign-in and health check.

Start, health, status, logs, credentials and the checks of ports derive from ``SERVICES``. How a
server is started is in ``launcher.py``; see docs/architecture.md for how to add one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from src.services.launcher import VOLUME
from src.settings import Settings

Backend = Literal["docker", "native"]
BACKENDS: tuple[Backend, ...] = ("docker", "native")


@dataclass(frozen=True)
class SignIn:
    """The settings that hold a service's user name and password, or, without a name, a token."""

    user: str
    password: str
    on_loopback: bool = True  # whether it is asked for where only this machine can reach it


@dataclass(frozen=True)
class Check:
    """A request that only a healthy service answers, through to its database."""

    path: str
    method: str = "GET"
    json: Mapping[str, object] | None = None
    # How the sign-in is sent along. A server proves that it is this checkout's by a header of its
    # answers; a store, by taking the root user's signature, which no other does.
    sign_in: Literal["basic", "signature"] | None = None
    alive: str = "/health"  # asked every few seconds of a run: costs the server nothing
    # 401 is an answer too where a changed password is yet to be carried through by `make stack`.
    answers: tuple[int, ...] = (200,)


@dataclass(frozen=True)
class Service:
    """One service; settings are named as in ``.env.example``."""

    name: str  # of its program, container and log
    label: str  # what people are shown
    port: str = ""  # the setting of its port on this machine; blank: it has none
    settings: tuple[str, ...] = ()  # what its launcher is given
    check: Check | None = None
    sign_in: SignIn | None = None
    needs: tuple[str, ...] = ()  # services that must be healthy first
    backends: tuple[Backend, ...] = BACKENDS
    files: tuple[str, ...] = ()  # natively, in its folder: without them it has lost its data
    image: str = ""  # Docker: the setting of an image that starts by itself, without our launcher
    address: str = ""  # in place of one made of `port`
    more_ports: Mapping[Backend, tuple[str, ...]] = field(default_factory=dict)
    page: Mapping[Backend, str] = field(default_factory=dict)  # in a browser; {PORT_SETTING} holds
    starts: bool = True  # by `make up`; else only when asked for
    code: tuple[str, ...] = ()  # of this checkout, beside the launcher's: what it runs

    def url(self, settings: Settings) -> str:
        """Return the address that clients use, for people where it is not reachable."""
        return self.address or f"http://{settings.host}:{getattr(settings, self.port.lower())}"

    def ports(self, backend: Backend) -> tuple[str, ...]:
        """Return the settings of all ports that it takes on this machine."""
        if backend not in self.backends:
            return ()
        return (*filter(None, [self.port]), *self.more_ports.get(backend, ()))


CHAMPION = ("detector.py", "model.py", "page.html", "server.py")

SERVICES = (
    Service(
        name="mysql",
        label="MySQL",
        backends=("docker",),
        image="MYSQL_IMAGE",
        address="mysql:3306 (in its network only)",
    ),
    Service(
        name="object-store",
        label="Object store",
        port="MINIO_PORT",
        more_ports={"docker": ("MINIO_CONSOLE_PORT",)},
        settings=("BIND_ADDRESS", "MINIO_PORT", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
        files=("meta.db", VOLUME),
        image="MINIO_IMAGE",
        check=Check("/", sign_in="signature", alive="/minio/health/live"),
        sign_in=SignIn("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
        page={
            "docker": "http://{HOST}:{MINIO_CONSOLE_PORT}",
            "native": "http://{HOST}:{MINIO_PORT}/minio/",
        },
    ),
    Service(
        name="mlflow",
        label="MLflow",
        port="MLFLOW_PORT",
        settings=(
            "CHECKOUT",
            "BIND_ADDRESS",
            "HOST_NAMES",
            "MLFLOW_PORT",
            "MINIO_PORT",
            "MLFLOW_BUCKET",
            "MLFLOW_S3_ACCESS_KEY",
            "MLFLOW_S3_SECRET_KEY",
            "MLFLOW_SERVER_SECRET_KEY",
            "MLFLOW_ADMIN_USERNAME",
            "MLFLOW_ADMIN_PASSWORD",
            "MYSQL_MLFLOW_PASSWORD",
        ),
        files=("mlflow.db",),
        needs=("mysql", "object-store"),
        check=Check(
            "/api/2.0/mlflow/experiments/search",
            "POST",
            json={"max_results": 1},
            sign_in="basic",
            answers=(200, 401),
        ),
        sign_in=SignIn("MLFLOW_ADMIN_USERNAME", "MLFLOW_ADMIN_PASSWORD", on_loopback=False),
        # Without the parameter it opens on its GenAI side: see src/mlflow_pages.py.
        page=dict.fromkeys(
            BACKENDS, "http://{HOST}:{MLFLOW_PORT}/#/experiments?workflowType=machine_learning"
        ),
    ),
    Service(
        name="zenml",
        label="ZenML",
        port="ZENML_PORT",
        settings=(
            "CHECKOUT",
            "BIND_ADDRESS",
            "HOST_NAMES",
            "ZENML_PORT",
            "MINIO_PORT",
            "ZENML_ADMIN_USERNAME",
            "ZENML_ADMIN_PASSWORD",
            "ZENML_JWT_SECRET_KEY",
            "ZENML_ENCRYPTION_KEY",
            "MYSQL_ZENML_PASSWORD",
        ),
        files=("zenml.db",),
        needs=("mysql", "object-store"),
        check=Check("/api/v1/info"),
        sign_in=SignIn("ZENML_ADMIN_USERNAME", "ZENML_ADMIN_PASSWORD"),
    ),
    Service(
        name="detector",
        label="Detector",
        port="SERVE_PORT",
        settings=(
            "CHECKOUT",
            "BIND_ADDRESS",
            "SERVE_PORT",
            "SERVE_MODEL",
            "SERVE_API_KEY",
            "MLFLOW_PORT",
            "MLFLOW_ADMIN_USERNAME",
            "MLFLOW_ADMIN_PASSWORD",
        ),
        needs=("mlflow",),
        check=Check("/ping"),
        sign_in=SignIn("", "SERVE_API_KEY", on_loopback=False),
        starts=False,
        code=tuple(f"src/champion/{name}" for name in CHAMPION),
    ),
)


def of(backend: Backend) -> list[Service]:
    """Return a backend's services, each after those that it needs."""
    return [service for service in SERVICES if backend in service.backends]


def shell_lines(settings: Settings) -> Iterator[str]:
    """Yield the table as ``NAME=value`` lines; ``scripts/lib/services.sh`` says what each holds."""

    def listed(name: str, values: list[str]) -> str:
        return f"{name}={' '.join(dict.fromkeys(values))}"

    for backend in BACKENDS:
        here = of(backend)
        launched = [s for s in here if backend == "native" or not s.image]
        yield listed(f"SERVICES_{backend}", [s.name for s in here])
        yield listed(f"STARTED_{backend}", [s.name for s in here if s.starts])
        yield listed(f"OPTIONAL_{backend}", [s.name for s in here if not s.starts])
        yield listed(f"LAUNCHED_{backend}", [s.name for s in launched])
        yield listed(f"PORTS_{backend}", [p for s in here if s.starts for p in s.ports(backend)])
        yield listed(f"IMAGES_{backend}", [s.image for s in here if s.image])
        yield listed(f"SHOWN_{backend}", [s.name for s in reversed(here) if s.port and s.starts])
    values = {name.upper(): value for name, value in settings.model_dump().items()}
    for service in SERVICES:
        name = service.name.replace("-", "_")
        yield f"LABEL_{name}={service.label}"
        yield f"URL_{name}={service.url(settings)}"
        yield listed(f"SETTINGS_{name}", list(service.settings))
        yield listed(f"CODE_{name}", list(service.code))
        for backend, page in service.page.items():
            yield f"PAGE_{backend}_{name}={page.format_map(values | {'HOST': settings.host})}"
        asked = service.sign_in
        if asked and (asked.on_loopback or not settings.loopback):
            yield f"SIGN_IN_{name}={asked.user or '-'} {asked.password}"
