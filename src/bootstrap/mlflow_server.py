"""MLflow's administrator, where MLflow asks for a sign-in (``BIND_ADDRESS`` is not loopback)."""

from __future__ import annotations

from collections.abc import Mapping

import requests

from src.bootstrap import BootstrapError, report
from src.bootstrap.applied import Applied, SignIn
from src.settings import Settings

TIMEOUT = 30.0  # seconds for one answer


def converge(settings: Settings) -> None:
    """Carry a changed administrator through; nothing to do where no sign-in is asked for.

    Raises:
        BootstrapError: When the server does not answer or knows neither the password of ``.env``
            nor the one applied last.
    """
    if settings.loopback:
        return
    now = SignIn(settings.mlflow_admin_username, settings.mlflow_admin_password)
    applied = Applied(settings)
    renamed = now.username != applied.mlflow.username
    if _signs_in(settings, now) and not (renamed and _signs_in(settings, applied.mlflow)):
        report(f"MLflow administrator {now.username}", "unchanged")
    elif _signs_in(settings, applied.mlflow):
        _change(settings, applied.mlflow, now)
        report(f"MLflow administrator {now.username}", "updated")
    else:
        raise BootstrapError(
            f"MLflow knows {now.username} under another password than MLFLOW_ADMIN_PASSWORD: "
            "put the right one in .env, or start afresh with make clean"
        )
    applied.remember("MLFLOW")


def _change(settings: Settings, old: SignIn, new: SignIn) -> None:
    if new.username == old.username:
        body = {
            "username": new.username,
            "password": new.password,
            "current_password": old.password,
        }
        _call(settings, old, "PATCH", "users/update-password", body)
        return
    if not _signs_in(settings, new):  # else it was made by a run that was killed here
        body = {"username": new.username, "password": new.password}
        _call(settings, old, "POST", "users/create", body)
    admin = {"username": new.username, "is_admin": True}
    _call(settings, old, "PATCH", "users/update-admin", admin)
    _call(settings, new, "DELETE", "users/delete", {"username": old.username})


def _call(
    settings: Settings, who: SignIn, method: str, path: str, body: Mapping[str, object]
) -> requests.Response:
    session = requests.Session()
    session.trust_env = False  # no proxy and no .netrc between this machine and itself
    try:
        answer = session.request(
            method,
            f"{settings.mlflow_url}/api/2.0/mlflow/{path}",
            json=body,
            auth=(who.username, who.password),
            timeout=TIMEOUT,
        )
    except requests.RequestException as error:
        raise BootstrapError(f"MLflow does not answer at {settings.mlflow_url}: make up") from error
    if answer.status_code != 401:
        answer.raise_for_status()
    return answer


def _signs_in(settings: Settings, who: SignIn) -> bool:
    answer = _call(settings, who, "POST", "experiments/search", {"max_results": 1})
    return answer.status_code == 200
