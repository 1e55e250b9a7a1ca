"""The administrator's password and the clients' service account, over ZenML's REST API."""

from __future__ import annotations

import requests

from src.bootstrap import BootstrapError, Outcome, report
from src.bootstrap.applied import Applied
from src.client import last_sign_in
from src.files import write_private
from src.settings import Settings

SERVICE_ACCOUNT = "zenml-cv-yolo"
API_KEY = "make-stack"
TIMEOUT = 30.0  # seconds for one answer


class Server:
    """A signed-in session with a ZenML server's REST API."""

    def __init__(self, url: str) -> None:
        """Prove that a server answers at ``url``.

        Raises:
            BootstrapError: When none does.
        """
        self.url = f"{url}/api/v1"
        self.http = requests.Session()
        self.http.trust_env = False  # no proxy and no .netrc between this machine and itself
        try:
            self.http.get(f"{self.url}/info", timeout=TIMEOUT).raise_for_status()
        except requests.RequestException as error:
            raise BootstrapError(f"ZenML does not answer at {url}: make up") from error

    def sign_in(self, **form: str) -> bool:
        """Sign in with ``username`` and ``password``, or with an API key; False when refused."""
        answer = self.http.post(f"{self.url}/login", data=form, timeout=TIMEOUT)
        if answer.status_code in (401, 403):
            return False
        answer.raise_for_status()
        self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return True

    def resume(self, token: str) -> bool:
        """Go on with an earlier sign-in's token; False when it is no longer taken."""
        self.http.headers["Authorization"] = f"Bearer {token}"
        answer = self.http.get(f"{self.url}/current-user", timeout=TIMEOUT)
        if answer.status_code in (401, 403):
            del self.http.headers["Authorization"]
            return False
        answer.raise_for_status()
        return True

    def call(self, method: str, path: str, **arguments: object) -> dict[str, object]:
        """Send a request and return the answer's JSON; raises ``requests.HTTPError``."""
        answer = self.http.request(
            method,
            f"{self.url}/{path}",
            timeout=TIMEOUT,
            **arguments,  # type: ignore[arg-type]
        )
        answer.raise_for_status()
        return {"value": answer.json()} if isinstance(answer.json(), str) else answer.json()

    def find(self, path: str, name: str, **query: str) -> dict[str, object] | None:
        """Return the object of that name, or None when the server says that there is none."""
        items = self.call("GET", path, params={"name": name} | query)["items"]
        assert isinstance(items, list)
        return items[0] if items else None


def converge(settings: Settings) -> Server:
    """Carry a changed administrator through; make sure that a valid API key is stored.

    Returns a session of that key.

    Raises:
        BootstrapError: When the server does not answer or knows neither the password of ``.env``
            nor the one applied last.
    """
    server = Server(settings.zenml_url)
    _ensure_administrator(server, settings)
    return _ensure_api_key(server, settings)


def signed_in(settings: Settings, *, anew: bool = False) -> Server | None:
    """Return a session of the stored API key; None where there is none, or it is refused.

    With the token that ZenML's client was last given for it, unless ``anew``: to sign in takes
    the server over half a second.
    """
    if not settings.api_key:
        return None
    server = Server(settings.zenml_url)
    token = None if anew else last_sign_in(settings).get("api_token")
    if token and server.resume(token["access_token"]):
        return server
    key = {"grant_type": "zenml-api-key", "password": settings.api_key}
    return server if server.sign_in(**key) else None


def knows_stack(settings: Settings) -> bool:
    """Tell whether the server takes the stored API key and holds our stack."""
    server = signed_in(settings)
    if server is None or not settings.stack_id:
        return False
    answer = server.http.get(f"{server.url}/stacks/{settings.stack_id}", timeout=TIMEOUT)
    if answer.status_code in (404, 422):  # 422: half an id
        return False
    answer.raise_for_status()
    return True


def _ensure_administrator(server: Server, settings: Settings) -> None:
    name, password = settings.zenml_admin_username, settings.zenml_admin_password
    applied = Applied(settings)
    outcome: Outcome = "unchanged"
    if not server.sign_in(username=name, password=password):
        old = applied.zenml
        if not server.sign_in(username=old.username, password=old.password):
            raise BootstrapError(
                f"ZenML knows {name} under another password than ZENML_ADMIN_PASSWORD: "
                "put the right one in .env, or start afresh with make clean"
            )
        user = server.call("GET", "current-user")
        server.call(
            "PUT",
            f"users/{user['id']}",
            json={"name": name, "password": password, "old_password": old.password},
        )
        if not server.sign_in(username=name, password=password):
            raise BootstrapError(f"ZenML took no new password for {name}: see make logs")
        outcome = "updated"
    if _decline_survey(server):
        outcome = "updated"
    report(f"ZenML administrator {name}", outcome)
    applied.remember()


def _decline_survey(server: Server) -> bool:
    """Answer no to the survey and newsletter that bar the dashboard until they are answered."""
    body = server.call("GET", "current-user")["body"]
    if not isinstance(body, dict) or body.get("email_opted_in") is not None:
        return False
    answer = {"email_opted_in": False, "user_metadata": {"finished_onboarding_survey": True}}
    server.call("PUT", "current-user", json=answer)
    return True


def _ensure_api_key(server: Server, settings: Settings) -> Server:
    account = server.find("service_accounts", SERVICE_ACCOUNT)
    if account is None:
        body = {"name": SERVICE_ACCOUNT, "description": "make stack's client", "active": True}
        account = server.call("POST", "service_accounts", json=body)
        report(f"ZenML service account {SERVICE_ACCOUNT}", "created")
    elif not _active(account):
        server.call("PUT", f"service_accounts/{account['id']}", json={"active": True})
        report(f"ZenML service account {SERVICE_ACCOUNT}", "updated")
    else:
        report(f"ZenML service account {SERVICE_ACCOUNT}", "unchanged")

    if client := signed_in(settings, anew=True):
        report("ZenML API key", "unchanged")
        return client
    keys = f"service_accounts/{account['id']}/api_keys"
    known = server.find(keys, API_KEY)
    if known is None:
        key = server.call("POST", keys, json={"name": API_KEY})
    else:  # its value is gone, and the server keeps only a hash
        server.call("PUT", f"{keys}/{known['id']}", json={"active": True})
        key = server.call("PUT", f"{keys}/{known['id']}/rotate", json={"retain_period_minutes": 0})
    body_ = key["body"]
    assert isinstance(body_, dict)
    write_private(settings.api_key_file, f"{body_['key']}\n")
    report("ZenML API key", "created" if known is None else "updated")
    if (client := signed_in(settings, anew=True)) is None:
        raise BootstrapError("ZenML refuses the API key that it has just given: see make logs")
    return client


def _active(account: dict[str, object]) -> bool:
    body = account["body"]
    return isinstance(body, dict) and bool(body.get("active"))
