"""A command whose server is away: it says so, waits, goes on, gives up."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests

from src import machine
from src.services import outage
from src.services.launcher import PROOF
from src.settings import Settings

Ports = dict[str, int]


def free_port() -> int:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        return int(server.server_port)


@contextmanager
def answering(port: int, checkout: str) -> Iterator[None]:
    """A server on a port that proves to be of a checkout."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header(PROOF, checkout)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield
        server.shutdown()


@pytest.fixture
def settings(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings of a stack whose store and ZenML answer; its MLflow is the tests' to start."""
    monkeypatch.setattr(outage, "POLL", 0.05)
    monkeypatch.setattr(outage, "RETRY", 0.02)
    ports = {f"{name}_port": free_port() for name in ("zenml", "mlflow", "minio")}
    settings = make_settings(**ports)
    with (
        answering(settings.zenml_port, settings.checkout),
        answering(settings.minio_port, "a store has no such header"),
    ):
        yield settings


def said(capsys: pytest.CaptureFixture[str], text: str) -> list[str]:
    """Wait until a text was said; return all lines so far."""
    lines: list[str] = []
    deadline = time.monotonic() + 10
    while not any(text in line for line in lines):
        assert time.monotonic() < deadline, lines
        lines += capsys.readouterr().err.splitlines()
        time.sleep(0.01)
    return lines


def test_an_outage_is_one_line_with_its_remedy_and_its_end_another(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with outage.patience(settings):
        lines = said(capsys, "waiting for MLflow: make up brings it back")
        assert "gives up after 10 minutes" in lines[0]
        time.sleep(0.3)
        with answering(settings.mlflow_port, settings.checkout):
            lines += said(capsys, "MLflow answers again")
    assert len(lines) == 2


def test_a_server_of_another_checkout_is_no_answer(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(settings.mlflow_port, "another"), outage.patience(settings):
        said(capsys, "waiting for MLflow")


def test_nothing_is_said_while_all_answer(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(settings.mlflow_port, settings.checkout), outage.patience(settings):
        time.sleep(0.5)
    assert capsys.readouterr().err == ""


def test_it_gives_up(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(outage, "LIMIT", 0.3)
    monkeypatch.setattr(outage.os, "_exit", ended.append)
    with outage.patience(settings):
        said(capsys, "did not answer for")
    assert set(ended) == {1}


def test_a_full_disk_is_waited_for_like_a_server(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk: list[str | None] = ["the disk of .stack is full (0 MB are free)"]
    monkeypatch.setattr(machine, "full_disk", lambda: disk[0])
    with answering(settings.mlflow_port, settings.checkout), outage.patience(settings):
        lines = said(capsys, "is full")
        assert lines[0].startswith(f"{disk[0]}: make room, and this goes on by itself")
        disk[0] = None
        lines += said(capsys, "there is room again: going on")
    assert len(lines) == 2


def test_it_gives_up_on_a_full_disk(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(machine, "full_disk", lambda: "full")
    monkeypatch.setattr(outage, "LIMIT", 0.3)
    monkeypatch.setattr(outage.os, "_exit", ended.append)
    with answering(settings.mlflow_port, settings.checkout), outage.patience(settings):
        assert "make room" in said(capsys, "the disk was full for")[-1]
    assert set(ended) == {1}


def test_a_refused_connection_waits_for_the_server(settings: Settings) -> None:
    outage.be_patient(settings.model_copy(update={"mlflow_port": 1}))
    outage.be_patient(settings)  # the same process, for other servers
    url = f"http://localhost:{settings.mlflow_port}/health"
    got: list[int] = []
    asking = threading.Thread(target=lambda: got.append(requests.get(url, timeout=5).status_code))
    asking.start()
    asking.join(0.5)
    assert got == []
    with answering(settings.mlflow_port, settings.checkout):
        asking.join(10)
    assert got == [200]


def test_other_servers_are_refused_at_once(settings: Settings) -> None:
    outage.be_patient(settings)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://localhost:{free_port()}/", timeout=5)
