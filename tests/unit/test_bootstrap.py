"""make stack where nothing has changed."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from src.bootstrap import __main__ as module
from src.bootstrap import zenml_server
from src.files import write_private
from src.settings import Settings


@pytest.mark.parametrize("trust", ["--trust-fingerprint", None])
def test_what_a_killed_one_has_left_goes_though_nothing_is_to_be_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trust: str | None
) -> None:
    """By the record of what was done last, or, killed before it was written, by a look."""
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    (tmp_path / dead.stdout.strip()).mkdir()
    monkeypatch.setattr(module, "TEMPORARY", tmp_path)
    monkeypatch.setattr(module, "load_settings", lambda: settings)
    monkeypatch.setattr(module, "_is_known", lambda _: True)
    if trust:
        monkeypatch.setattr(module, "converge", lambda _: pytest.fail("nothing has changed"))
    else:
        monkeypatch.setattr(type(settings), "backend_state", tmp_path.with_name("state"))
        for server in ("object_store", "mlflow_server", "zenml_server"):
            monkeypatch.setattr(getattr(module, server), "converge", lambda _: None)
        monkeypatch.setattr(module, "hold", lambda *_: nullcontext())
        monkeypatch.setattr(module.zenml_state, "is_right", lambda *_: True)
    monkeypatch.setattr("sys.argv", ["bootstrap", *([trust] if trust else [])])
    assert module.main() == 0
    assert list(tmp_path.iterdir()) == []


class ZenML(BaseHTTPRequestHandler):
    """The addresses of ZenML's server that a sign-in needs, and what it answers there."""

    taken = ""  # the token that it takes
    asked: list[str]

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == f"Bearer {self.taken}"
        self._answer(200 if known or self.path == "/api/v1/info" else 401, {"name": "default"})

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"]))
        known = form == b"grant_type=zenml-api-key&password=ZENKEY_1"
        self._answer(200 if known else 401, {"access_token": self.taken})

    def _answer(self, status: int, body: dict[str, str]) -> None:
        self.asked.append(f"{self.command} {self.path.removeprefix('/api/v1/')} {status}")
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def zenml(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[type[ZenML]]:
    monkeypatch.setattr(type(settings), "backend_state", tmp_path)
    own = type("Own", (ZenML,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), own) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(type(settings), "zenml_url", url)
        yield own
        server.shutdown()


@pytest.mark.parametrize(
    ("taken", "key", "anew", "asked"),
    [
        ("kept", "ZENKEY_1", False, ["GET current-user 200"]),
        ("kept", "ZENKEY_1", True, ["POST login 200"]),
        ("another", "ZENKEY_1", False, ["GET current-user 401", "POST login 200"]),
        ("kept", "ZENKEY_2", False, ["POST login 401"]),
        ("another", "ZENKEY_2", True, ["POST login 401"]),
    ],
    ids=["kept", "anew", "a server's new secret", "another key than the token's", "a wrong key"],
)
def test_the_last_sign_in_s_token_does_while_the_server_takes_it(
    settings: Settings, zenml: type[ZenML], taken: str, key: str, anew: bool, asked: list[str]
) -> None:
    zenml.taken = taken
    write_private(settings.api_key_file, f"{key}\n")
    entry = {"api_key": "ZENKEY_1", "api_token": {"access_token": "kept"}}
    kept = settings.backend_state / "zenml-client" / "credentials.yaml"
    write_private(kept, json.dumps({settings.zenml_url: entry}))
    server = zenml_server.signed_in(settings, anew=anew)
    assert zenml.asked == ["GET info 200", *asked]
    assert (server is None) == (key == "ZENKEY_2")
    if server:
        assert server.http.headers["Authorization"] == f"Bearer {taken}"
