"""Whether the services answer, each with a request that goes through to its database.

A server's own ``/health`` may say OK without its database; a search in MLflow and a sign-in at
ZenML can't. ``python -m src.services.health [SERVICE…]`` exits 0 when all are healthy, by default
those that ``make up`` starts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import requests

from src.errors import run_command
from src.services.table import SERVICES, Service
from src.settings import Settings, load_settings

TIMEOUT = 5.0  # seconds for one answer


def check(service: Service, settings: Settings) -> str | None:
    """Return None when a service answers its health check, else what is wrong."""
    asked = service.check
    assert asked is not None
    user, password = "", ""
    if service.sign_in and asked.sign_in:
        user = getattr(settings, service.sign_in.user.lower())
        password = getattr(settings, service.sign_in.password.lower())
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy and no .netrc between this machine and itself
            answer = session.request(
                asked.method,
                service.url(settings) + asked.path,
                json=asked.json,
                data={"username": user, "password": password} if asked.sign_in == "form" else None,
                auth=(user, password) if asked.sign_in == "basic" else None,
                timeout=TIMEOUT,
            )
    except requests.ConnectionError:
        return "no connection"
    except requests.RequestException as error:
        return type(error).__name__
    return None if answer.status_code in asked.answers else f"HTTP {answer.status_code}"


def check_all(settings: Settings, names: Sequence[str] = ()) -> dict[str, str | None]:
    """Return for each service None when it is healthy, else what is wrong."""
    chosen = [s for s in SERVICES if s.check and (s.name in names if names else s.starts)]
    with ThreadPoolExecutor(len(chosen)) as pool:
        faults = pool.map(lambda service: check(service, settings), chosen)
        return dict(zip([service.name for service in chosen], faults, strict=True))


def main(arguments: list[str]) -> int:
    """Print ``service<TAB>healthy`` or what is wrong, unless ``--quiet``."""
    results = check_all(load_settings(), [word for word in arguments if word != "--quiet"])
    if "--quiet" not in arguments:
        for service, fault in results.items():
            print(f"{service}\t{fault or 'healthy'}")
    return 0 if not any(results.values()) else 1


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv[1:])))
