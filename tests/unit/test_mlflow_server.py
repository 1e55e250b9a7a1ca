"""MLflow's administrator under a new name, made in three calls, each of which may be the last."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import requests

from src import settings as settings_module
from src.bootstrap import mlflow_server
from src.bootstrap.applied import Applied, SignIn
from src.settings import Settings


class Killed(BaseException):
    """In place of the process's end."""


class Users:
    """MLflow's users, as its API was seen to treat them."""

    def __init__(self, first: SignIn) -> None:
        self.held = {first.username: (first.password, True)}
        self.left = 1000  # changes until the process is killed

    def call(
        self, _: Settings, who: SignIn, method: str, path: str, body: Mapping[str, object]
    ) -> requests.Response:
        answer = requests.Response()
        password, is_admin = self.held.get(who.username, ("", False))
        answer.status_code = 200 if password == who.password else 401
        if path.startswith("users/") and answer.ok:
            assert is_admin, f"{who.username} may not {path}"
            if self.left == 0:
                raise Killed
            self.left -= 1
            name = str(body["username"])
            if path == "users/create":
                assert name not in self.held, "RESOURCE_ALREADY_EXISTS"
                self.held[name] = (str(body["password"]), False)
            elif path == "users/update-admin":
                self.held[name] = (self.held[name][0], bool(body["is_admin"]))
            elif path == "users/update-password":
                self.held[name] = (str(body["password"]), is_admin)
            elif path == "users/delete":
                del self.held[name]
        return answer


@pytest.mark.parametrize("changes", range(4))
@pytest.mark.parametrize("name", ["boss", "admin"])
def test_a_new_administrator_is_whole_and_alone(
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    changes: int,
    name: str,
) -> None:
    monkeypatch.setattr(settings_module, "STATE", tmp_path)
    address = {"bind_address": "192.168.1.20"}
    before = make_settings(**address)
    Applied(before).remember()
    users = Users(Applied(before).mlflow)
    monkeypatch.setattr(mlflow_server, "_call", users.call)
    new = {"mlflow_admin_username": name, "mlflow_admin_password": "another-password"}
    settings = make_settings(**address, **new)
    users.left = changes
    try:
        mlflow_server.converge(settings)
    except Killed:
        users.left = 1000
        mlflow_server.converge(settings)
    assert users.held == {name: ("another-password", True)}
    mlflow_server.converge(settings)
    assert Applied(settings).mlflow == SignIn(name, "another-password")
