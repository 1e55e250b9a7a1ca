"""Whether the services answer, asked of a server of the test's own."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from src import machine
from src.errors import UserError
from src.services import health
from src.services.health import check_all
from src.services.table import SERVICES
from src.settings import Settings

STORE, MLFLOW, ZENML = "/", "/api/2.0/mlflow/experiments/search", "/api/v1/info"


class Handler(BaseHTTPRequestHandler):
    answers: dict[str, int]
    checkout: str
    root: str
    skewed = False

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        signed = f"Credential={self.root}/" in self.headers.get("Authorization", "")
        refused = self.path == STORE and not signed
        self.send_response(403 if refused else self.answers.get(self.path, 404))
        self.send_header("X-Checkout", self.checkout)
        self.end_headers()
        if self.path == STORE and self.skewed:
            self.wfile.write(b"<Error><Code>RequestTimeTooSkewed</Code></Error>")

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def answers() -> dict[str, int]:
    """Return the status of each address; tests change it."""
    return {STORE: 200, MLFLOW: 200, ZENML: 200}


@pytest.fixture
def stack(
    answers: dict[str, int],
    make_settings: Callable[..., Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Settings]:
    """Serve all three services on one port and return settings for them."""
    monkeypatch.setattr("src.settings.STATE", tmp_path)
    for service in SERVICES:
        for name in service.files:
            file = tmp_path / "native" / service.name / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("held open")
    own = make_settings()
    told = {"answers": answers, "checkout": own.checkout, "root": own.minio_root_user}
    handler = type("Answers", (Handler,), told)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        port = dict.fromkeys(("zenml_port", "mlflow_port", "minio_port"), server.server_port)
        yield make_settings().model_copy(update=port)
        server.shutdown()


def test_services_that_answer_are_healthy(stack: Settings) -> None:
    assert check_all(stack) == {"object-store": None, "mlflow": None, "zenml": None}


@pytest.mark.parametrize(
    ("path", "service"), [(STORE, "object-store"), (MLFLOW, "mlflow"), (ZENML, "zenml")]
)
def test_a_service_with_a_fault_is_named(
    stack: Settings, answers: dict[str, int], path: str, service: str
) -> None:
    answers[path] = 500
    assert {name for name, fault in check_all(stack).items() if fault == "HTTP 500"} == {service}


@pytest.mark.parametrize("kind", ["deleted", "begun anew by SQLite"])
@pytest.mark.parametrize(
    ("file", "service"),
    [("zenml/zenml.db", "zenml"), ("object-store/data/store/juicefs_uuid", "object-store")],
)
def test_a_server_whose_files_were_deleted_is_not_healthy(
    stack: Settings, tmp_path: Path, file: str, service: str, kind: str
) -> None:
    (tmp_path / "native" / file).unlink()
    if kind != "deleted":
        (tmp_path / "native" / file).touch()
    assert {name for name, fault in check_all(stack).items() if fault} == {service}
    with pytest.raises(UserError, match=rf"{service} \(its files were deleted\): make up"):
        health.require(stack)
    (tmp_path / "backend").write_text("docker")
    assert not any(check_all(Settings.model_validate(stack.model_dump())).values())


def test_a_refused_password_is_an_answer(stack: Settings, answers: dict[str, int]) -> None:
    answers[MLFLOW] = 401
    assert not any(check_all(stack).values())


def test_services_that_do_not_run_are_said_to(
    stack: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    down = stack.model_copy(update={"mlflow_port": 1})  # nobody listens there
    monkeypatch.setattr(health, "load_settings", lambda: down)
    assert health.main([]) == 1
    assert "mlflow\tno connection\n" in capsys.readouterr().out
    assert health.main(["--quiet"]) == 1
    assert capsys.readouterr().out == ""


def test_services_that_start_are_waited_for(
    stack: Settings, answers: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers[ZENML] = 500
    looks = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            answers[ZENML] = 200

    monkeypatch.setattr(health.time, "sleep", look)
    assert health.wait(stack, ["zenml"], 60) == {"zenml": None}
    assert len(looks) == 3
    answers[ZENML] = 500
    assert health.wait(stack, ["zenml"], 0) == {"zenml": "HTTP 500"}
    assert len(looks) == 3


def test_no_proxy_is_asked(stack: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert not any(check_all(stack).values())


def test_another_checkouts_servers_are_told_apart(
    stack: Settings, answers: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "checkout", "another")
    answers[STORE] = 403
    assert set(check_all(stack).values()) == {"not this checkout's"}


def test_a_clock_that_is_wrong_is_named(
    stack: Settings, answers: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "skewed", True)
    with pytest.raises(UserError, match=r"object-store: its clock says .*: set the clocks alike"):
        health.require(stack)


def test_a_full_disk_is_no_time_to_begin(stack: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    health.require(stack)
    monkeypatch.setattr(machine, "full_disk", lambda: "the disk of .stack is full")
    with pytest.raises(UserError, match="is full: make room, then the same command again"):
        health.require(stack)


def test_the_stores_signature_is_botocores(settings: Settings) -> None:
    request = requests.Request("GET", "http://localhost:9000/").prepare()
    ours = health.Signature("minio-root", "a secret")(request)
    theirs = AWSRequest("GET", "http://localhost:9000/")
    theirs.context["timestamp"] = ours.headers["x-amz-date"]
    signer = S3SigV4Auth(Credentials("minio-root", "a secret"), "s3", "us-east-1")
    theirs.headers["X-Amz-Date"] = ours.headers["x-amz-date"]
    theirs.headers["X-Amz-Content-SHA256"] = health.EMPTY
    text = signer.string_to_sign(theirs, signer.canonical_request(theirs))
    assert signer.signature(text, theirs) in ours.headers["Authorization"]
