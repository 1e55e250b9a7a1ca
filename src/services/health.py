"""Whether the services answer, each with a request that goes through to its database.

A server's own ``/health`` may say OK without its database; a search in MLflow and a sign-in at
ZenML can't. ``python -m src.services.health`` exits 0 when all are healthy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import requests

from src.settings import Settings, load_settings

TIMEOUT = 5.0  # seconds for one answer


def check_object_store(settings: Settings) -> str | None:
    """Return None when the store says it is ready, else what is wrong."""
    with _session() as http:
        answer = http.get(f"{settings.store_url}/minio/health/ready", timeout=TIMEOUT)
    return None if answer.status_code == 200 else f"HTTP {answer.status_code}"


def check_mlflow(settings: Settings) -> str | None:
    """Return None when MLflow lists its experiments, else what is wrong."""
    with _session() as http:
        answer = http.post(
            f"{settings.mlflow_url}/api/2.0/mlflow/experiments/search",
            json={"max_results": 1},
            auth=(settings.mlflow_admin_username, settings.mlflow_admin_password),
            timeout=TIMEOUT,
        )
    # 401 is an answer too: a changed password is carried through by `make stack`.
    return None if answer.status_code in (200, 401) else f"HTTP {answer.status_code}"


def check_zenml(settings: Settings) -> str | None:
    """Return None when ZenML's sign-in looked in its database, else what is wrong."""
    with _session() as http:
        answer = http.post(
            f"{settings.zenml_url}/api/v1/login",
            data={
                "username": settings.zenml_admin_username,
                "password": settings.zenml_admin_password,
            },
            timeout=TIMEOUT,
        )
    return None if answer.status_code in (200, 401) else f"HTTP {answer.status_code}"


CHECKS: dict[str, Callable[[Settings], str | None]] = {
    "object-store": check_object_store,
    "mlflow": check_mlflow,
    "zenml": check_zenml,
}


def check_all(settings: Settings) -> dict[str, str | None]:
    """Return for each service None when it is healthy, else what is wrong."""

    def guarded(check: Callable[[Settings], str | None]) -> str | None:
        try:
            return check(settings)
        except requests.ConnectionError:
            return "no connection"
        except requests.RequestException as error:
            return type(error).__name__

    with ThreadPoolExecutor(len(CHECKS)) as pool:
        return dict(zip(CHECKS, pool.map(guarded, CHECKS.values()), strict=True))


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no proxy and no .netrc between this machine and itself
    return session


def main(arguments: list[str]) -> int:
    """Print ``service<TAB>healthy`` or what is wrong, unless ``--quiet``."""
    results = check_all(load_settings())
    if "--quiet" not in arguments:
        for service, fault in results.items():
            print(f"{service}\t{fault or 'healthy'}")
    return 0 if not any(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
