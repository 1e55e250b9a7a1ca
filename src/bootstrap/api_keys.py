"""API keys for others than this checkout: ``python -m src.bootstrap.api_keys create|revoke NAME``.

A key belongs to a ZenML service account of its own, so that it can be taken back by itself.
"""

from __future__ import annotations

import argparse
import re
import sys

from src.bootstrap import BootstrapError
from src.bootstrap.zenml_server import SERVICE_ACCOUNT, Server
from src.errors import run_command
from src.settings import Settings, load_settings


def create(settings: Settings, name: str) -> str:
    """Make the service account ``name`` and return its key, which ZenML shows this once.

    Raises:
        BootstrapError: When the name won't do or is taken, or the server does not answer.
    """
    server = _signed_in(settings, name)
    if server.find("service_accounts", name):
        raise BootstrapError(f"{name} has a key already: make revoke NAME={name} ends it")
    body = {"name": name, "description": "make api-key", "active": True}
    account = server.call("POST", "service_accounts", json=body)
    key = server.call("POST", f"service_accounts/{account['id']}/api_keys", json={"name": name})
    made = key["body"]
    assert isinstance(made, dict)
    return str(made["key"])


def revoke(settings: Settings, name: str) -> None:
    """Delete the service account ``name``, and its keys with it.

    Where it has made runs, ZenML keeps the account; then it is switched off and its keys deleted.

    Raises:
        BootstrapError: When there is none, or the server does not answer.
    """
    server = _signed_in(settings, name)
    account = server.find("service_accounts", name)
    if account is None:
        raise BootstrapError(f"there is no service account {name}")
    path = f"service_accounts/{account['id']}"
    keys = server.call("GET", f"{path}/api_keys")["items"]
    assert isinstance(keys, list)
    for key in keys:
        server.call("DELETE", f"{path}/api_keys/{key['id']}")
    server.call("DELETE", path)


def _signed_in(settings: Settings, name: str) -> Server:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", name):
        raise BootstrapError(f"NAME={name}: letters, digits, '_', '.' and '-'")
    if name == SERVICE_ACCOUNT:
        raise BootstrapError(f"{name} is this checkout's own account: choose another NAME")
    server = Server(settings.zenml_url)
    if not server.sign_in(
        username=settings.zenml_admin_username, password=settings.zenml_admin_password
    ):
        raise BootstrapError("ZenML refuses ZENML_ADMIN_PASSWORD of .env: make stack")
    return server


def main() -> None:
    """Run the command line: the key goes to stdout alone, the rest to stderr."""
    parser = argparse.ArgumentParser(prog="python -m src.bootstrap.api_keys", description=__doc__)
    parser.add_argument("action", choices=("create", "revoke"))
    parser.add_argument("name", help="of the service account")
    given = parser.parse_args()
    settings = load_settings()
    if given.action == "create":
        key = create(settings, given.name)
        print(f"{given.name}: its key, shown only now; as ZENML_STORE_API_KEY:", file=sys.stderr)
        print(key)
    else:
        revoke(settings, given.name)
        print(f"{given.name}: revoked", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_command(main))
