"""The server itself, over real sockets, with MLflow's real registry behind it."""

import base64
import io
import json
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from PIL import Image

from src.champion import model, server
from src.champion.server import Champion, Config, Limits, Metrics, Protocol, make_app
from tests.unit import tiny_model

NAME = "person-detector"
LIMITS = Limits(
    upload=200_000, held=1_000_000, pixels=1_000_000, pictures=4, waiting=2, connections=30,
    silence=0.5, receiving=1.5, header=0.5,
)  # fmt: skip


def picture(width: int = 128, height: int = 64, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(file, form)
    return file.getvalue()


def register(tmp_path: Path, name: str, score: float = 0.9) -> ModelVersion:
    """Register a tiny model and make it champion; its files lie in ``tmp_path / name``."""
    client = MlflowClient()
    folder = tmp_path / name
    tiny_model.write(folder / "artifacts", score)
    (folder / "MLmodel").write_text("flavors: {}\n")
    if not client.search_registered_models(f"name = '{NAME}'"):
        client.create_registered_model(NAME)
    tags = {model.FILES_TAG: json.dumps(model.hashes_of(folder))}
    version = client.create_model_version(NAME, folder.as_uri(), tags=tags)
    client.set_registered_model_alias(NAME, "champion", version.version)
    return version


class Running:
    """A server on a port of its own."""

    def __init__(
        self, cache: Path, token: str = "", limits: Limits = LIMITS, name: str = NAME
    ) -> None:
        self.metrics = Metrics()
        config = Config("127.0.0.1", 0, name, cache, token, interval=0.05, limits=limits)
        self.champion = Champion(config, self.metrics)
        self.champion.start()
        app = make_app(config, self.champion, self.metrics)
        protocol = type("Quick", (Protocol,), {"header": limits.header})
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                port=0,
                http=protocol,
                ws="none",
                lifespan="off",
                log_level="critical",
                limit_concurrency=limits.connections,
                proxy_headers=False,
            )
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        until(lambda: self._server.started)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self.champion.stop()
        self._server.should_exit = True
        self._thread.join(10)

    def post(self, data: bytes, query: str = "", **more: Any) -> requests.Response:
        url = f"http://localhost:{self.port}/predict{query}"
        return requests.post(url, files={"picture": data}, timeout=10, **more)

    def invoke(self, body: object) -> requests.Response:
        url = f"http://localhost:{self.port}/invocations"
        return requests.post(url, json=body, timeout=10)

    def get(self, path: str, **more: Any) -> requests.Response:
        return requests.get(f"http://localhost:{self.port}{path}", timeout=10, **more)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"detector_{name}", labels)


def until(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def running(registry: MlflowClient, tmp_path: Path) -> Iterator[Running]:
    register(tmp_path, "one")
    held = Running(tmp_path / "cache")
    yield held
    held.stop()


def encoded(*pictures: bytes) -> list[list[str]]:
    return [[base64.b64encode(data).decode()] for data in pictures]


def split(*pictures: bytes, **params: object) -> dict[str, object]:
    table = {"dataframe_split": {"columns": ["image"], "data": encoded(*pictures)}}
    return table | ({"params": params} if params else {})


def test_a_picture_is_answered_with_boxes_and_the_version(running: Running) -> None:
    reply = running.post(picture())
    assert reply.status_code == 200
    assert reply.headers["X-Model-Version"] == "1"
    answer = reply.json()
    assert answer["model"] == {"name": NAME, "version": "1"}
    assert (answer["width"], answer["height"]) == (128, 64)
    (found,) = answer["detections"]
    assert found == {"class": "person", "confidence": 0.9, "box_xyxy": [44.0, 2.0, 84.0, 62.0]}
    assert running.post(picture(), "?conf=0.95").json()["detections"] == []


def test_mlflows_own_route_answers_for_many_pictures(running: Running) -> None:
    reply = running.invoke(split(picture(), picture(64, 64), conf=0.5))
    assert reply.status_code == 200
    assert reply.headers["X-Model-Version"] == "1"
    first, second = reply.json()["predictions"]
    assert first["classes"] == second["classes"] == ["person"]
    assert first["boxes"] == [[44.0, 2.0, 84.0, 62.0]]
    rows = {"dataframe_records": [{"image": encoded(picture())[0][0]}]}
    assert running.invoke(rows).json()["predictions"] == [first]
    assert running.get("/version").status_code == 200
    assert running.get("/ping").status_code == 200


def test_another_champion_takes_over_and_back(running: Running, tmp_path: Path) -> None:
    register(tmp_path, "two", score=0.6)
    until(lambda: running.post(picture()).headers["X-Model-Version"] == "2")
    assert running.post(picture()).json()["detections"][0]["confidence"] == 0.6
    MlflowClient().set_registered_model_alias(NAME, "champion", "1")
    until(lambda: running.post(picture()).headers["X-Model-Version"] == "1")
    assert running.metric("swaps_total") == 2


def test_answers_name_the_version_that_made_them_while_it_changes(
    running: Running, tmp_path: Path
) -> None:
    register(tmp_path, "two", score=0.6)
    client, ended = MlflowClient(), threading.Event()

    def in_use() -> str:
        assert running.champion.current is not None
        return str(running.champion.current.version.version)

    def swap() -> None:
        for turn in range(10):
            wanted = str(2 - turn % 2)
            client.set_registered_model_alias(NAME, "champion", wanted)
            until(lambda wanted=wanted: in_use() == wanted)
        ended.set()

    def ask(number: int) -> set[tuple[str, float]]:
        seen = set()
        while not ended.is_set():
            reply = running.post(picture())
            reply.raise_for_status()
            version = reply.headers["X-Model-Version"]
            assert reply.json()["model"]["version"] == version
            seen.add((version, reply.json()["detections"][0]["confidence"]))
        return seen

    with ThreadPoolExecutor(3) as pool:
        swapping = pool.submit(swap)
        answers = set().union(*pool.map(ask, range(2)))
        swapping.result()
    assert answers == {("1", 0.9), ("2", 0.6)}


CRLF = b"\r\n"
BOMB = picture(2000, 2000)
BAD_UPLOADS: dict[str, tuple[bytes, int]] = {
    "no picture": (b"hello", 415),
    "empty": (b"", 415),
    "an address": (b"http://169.254.169.254/latest", 415),
    "a path": (b"/etc/passwd", 415),
    "a pickle": (b"\x80\x04\x95", 415),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
    "gif": (picture(form="GIF"), 415),
    "truncated png": (picture(300, 300)[:-30], 400),
    "truncated jpeg": (picture(300, 300, "JPEG")[:400], 400),
    "too many pixels": (BOMB, 413),
    "too many bytes": (bytes(300_000), 413),
}


@pytest.mark.parametrize("name", BAD_UPLOADS)
def test_a_bad_upload_is_one_clear_answer(name: str, running: Running) -> None:
    data, status = BAD_UPLOADS[name]
    reply = running.post(data)
    assert reply.status_code == status
    assert list(reply.json()) == ["error"]
    assert "Traceback" not in reply.text
    assert running.post(picture()).status_code == 200


BAD_INVOCATIONS: dict[str, tuple[object, int]] = {
    "not a table": (["x"], 400),
    "nothing": ({}, 400),
    "another form": ({"inputs": {"image": encoded(picture())[0]}}, 400),
    "another column": ({"dataframe_split": {"columns": ["path"], "data": [["/etc/passwd"]]}}, 400),
    "no base64": ({"dataframe_records": [{"image": "secret-payload!"}]}, 400),
    "a number": ({"dataframe_records": [{"image": 5}]}, 400),
    "no pictures": ({"dataframe_records": []}, 413),
    "too many pictures": (split(*[picture()] * 5), 413),
    "too many pixels in all": (split(*[picture(600, 600)] * 3), 413),
    "a path as picture": (split(b"/etc/passwd"), 415),
    "a truncated picture": (split(picture(300, 300)[:-30]), 400),
    "conf": (split(picture(), conf=2), 400),
    "conf as text": (split(picture(), conf="high"), 400),
    "max_det": (split(picture(), max_det=0), 400),
    "an unknown parameter": (split(picture(), device="cuda"), 400),
    "params as list": ({**split(picture()), "params": [1]}, 400),
}


@pytest.mark.parametrize("name", BAD_INVOCATIONS)
def test_a_bad_invocation_is_refused_before_mlflow_sees_it(
    name: str, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, status = BAD_INVOCATIONS[name]
    monkeypatch.setattr(server.Scored, "predict", None)  # whoever comes so far fails
    reply = running.invoke(body)
    assert reply.status_code == status
    assert list(reply.json()) == ["error"]
    assert "secret-payload" not in reply.text


def raw(running: Running, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send pieces with pauses between; return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", running.port), 10) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                if select.select([connection], [], [], pause)[0]:
                    break
            answer = b""
            while block := connection.recv(65536):
                answer += block
        except OSError:
            return b"closed"
        return answer


def head(path: bytes, length: int | bytes, kind: bytes = b"application/json") -> bytes:
    size = length if isinstance(length, bytes) else str(length).encode()
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: localhost", b"Connection: close"]
    lines += [b"Content-Type: " + kind, b"Content-Length: " + size, b"", b""]
    return CRLF.join(lines)


def test_who_sends_too_much_hears_the_answer(running: Running) -> None:
    for _ in range(5):
        assert running.post(bytes(700_000)).status_code == 413


def test_a_length_too_large_is_refused_before_the_body_comes(running: Running) -> None:
    assert b" 413 " in raw(running, head(b"/invocations", 10**9)).split(CRLF)[0]


def test_a_body_without_a_length_is_counted_while_it_comes(running: Running) -> None:
    lines = [b"POST /invocations HTTP/1.1", b"Host: localhost", b"Transfer-Encoding: chunked"]
    lines += [b"Content-Type: application/json", b"Connection: close", b"", b""]
    piece = b"10000" + CRLF + bytes(65536) + CRLF
    assert b" 413 " in raw(running, CRLF.join(lines), *[piece] * 4).split(CRLF)[0]


def test_slow_clients_are_sent_away_and_hold_up_nobody(running: Running) -> None:
    assert b" 408 " in raw(running, head(b"/invocations", 1000)).split(CRLF)[0]
    drip = raw(running, head(b"/invocations", 1000), *[b"x"] * 6, pause=0.3)
    assert b" 408 " in drip.split(CRLF)[0]
    assert raw(running) in (b"", b"closed")
    lines = [b"GET / HTTP/1.1" + CRLF, *[b"X-A: b" + CRLF] * 4]
    assert raw(running, *lines, pause=0.3) in (b"", b"closed")
    slow = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(20)]
    for connection in slow:
        connection.sendall(head(b"/invocations", 1000))
    assert running.post(picture()).status_code == 200
    for connection in slow:
        connection.close()


def test_too_many_at_once_are_told_so(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    detect = server._detect

    def slow(*arguments: Any) -> Any:
        release.wait(10)
        return detect(*arguments)

    monkeypatch.setattr(server, "_detect", slow)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(running.post, picture()) for _ in range(8)]
        until(lambda: sum(reply.done() for reply in asked) == 6)
        release.set()
        statuses = sorted(reply.result().status_code for reply in asked)
    assert statuses == [200] * 2 + [429] * 6
    refused = next(r.result() for r in asked if r.result().status_code == 429)
    assert refused.headers["Retry-After"] == "1"
    assert running.post(picture()).status_code == 200


def test_what_is_held_at_once_is_bounded(running: Running) -> None:
    parts = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(8)]
    for connection in parts:
        connection.sendall(head(b"/invocations", 190_000) + bytes(180_000))
    answers = [connection.recv(100).split(CRLF)[0] for connection in parts]
    assert any(b" 429 " in answer for answer in answers)
    assert all(b" 429 " in answer or b" 408 " in answer for answer in answers)
    for connection in parts:
        connection.close()
    assert running.post(picture()).status_code == 200


def test_another_form_type_or_path_is_refused(running: Running) -> None:
    url = f"http://localhost:{running.port}"
    assert requests.post(f"{url}/predict", data=b"x", timeout=5).status_code == 415
    assert requests.post(f"{url}/predict", files={"photo": b"x"}, timeout=5).status_code == 400
    plain = {"picture": (None, b"x")}
    assert requests.post(f"{url}/predict", files=plain, timeout=5).status_code == 400
    broken = {"Content-Type": "multipart/form-data; boundary=a"}
    assert requests.post(f"{url}/predict", data=b"x", headers=broken, timeout=5).status_code == 400
    csv = {"Content-Type": "text/csv"}
    assert requests.post(f"{url}/invocations", data=b"x", headers=csv, timeout=5).status_code == 415
    assert running.get("/predict").status_code == 405
    for path in ("/docs", "/redoc", "/../etc/passwd", "/nothing"):
        assert running.get(path).status_code == 404
    assert running.post(picture(), "?conf=nan").status_code == 400
    assert running.post(picture(), "?max_det=many").status_code == 400


def test_a_page_of_another_site_gets_nothing(running: Running) -> None:
    reply = running.get("/", headers={"Host": "rebound.example"})
    assert reply.status_code == 403
    assert "Access-Control-Allow-Origin" not in running.get("/").headers


def test_a_token_is_asked_for_where_there_is_one(registry: MlflowClient, tmp_path: Path) -> None:
    register(tmp_path, "one")
    running = Running(tmp_path / "cache", token="s3cret")
    try:
        assert running.post(picture()).status_code == 401
        assert running.get("/metrics").status_code == 401
        assert running.post(picture(), headers={"Authorization": "Bearer no"}).status_code == 401
        assert running.post(picture(), headers={"Authorization": "Bearer s3cret"}).ok
        assert running.get("/", headers={"Host": "detector.lan"}).ok
        assert running.get("/ping").ok
    finally:
        running.stop()


def test_without_a_champion_it_says_so_and_takes_the_first(
    registry: MlflowClient, tmp_path: Path
) -> None:
    running = Running(tmp_path / "cache")
    try:
        assert running.get("/ping").status_code == 503
        assert "champion" in running.post(picture()).json()["error"]
        register(tmp_path, "one")
        until(lambda: running.get("/ping").status_code == 200)
        assert running.post(picture()).ok
    finally:
        running.stop()


@pytest.mark.parametrize("file", ["best.pt", "model.onnx", "labels.json", "MLmodel", "more.py"])
def test_a_version_with_a_replaced_file_is_not_taken(
    file: str, running: Running, tmp_path: Path
) -> None:
    assert running.post(picture()).ok
    client = MlflowClient()
    version = register(tmp_path, "two", score=0.6)
    until(lambda: running.post(picture()).headers["X-Model-Version"] == "2")
    client.set_registered_model_alias(NAME, "champion", "1")
    until(lambda: running.post(picture()).headers["X-Model-Version"] == "1")
    (held,) = (tmp_path / "cache").glob("*-2")
    where = Path(file) if file == "MLmodel" else Path("artifacts") / file
    for folder in (held, tmp_path / "two"):
        (folder / where).write_bytes(b"other")
    client.set_registered_model_alias(NAME, "champion", version.version)
    until(lambda: running.metric("model_behind") == 1)
    assert running.post(picture()).headers["X-Model-Version"] == "1"


def test_it_goes_on_while_mlflow_is_down_and_starts_with_the_last_good(
    running: Running,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = tmp_path / "mlflow.db"
    from mlflow.exceptions import MlflowException

    caplog.set_level(logging.INFO)

    def down(*_: object) -> None:
        raise MlflowException("API request failed: connection refused")

    assert database.is_file()
    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", down)
    until(lambda: running.metric("registry_up") == 0)
    assert running.post(picture()).headers["X-Model-Version"] == "1"
    again = Running(tmp_path / "cache")
    try:
        assert again.post(picture()).headers["X-Model-Version"] == "1"
        assert again.metric("registry_up") == 0
    finally:
        again.stop()
    other = Running(tmp_path / "cache", name="cat-detector")
    try:
        assert other.post(picture()).status_code == 503  # not by another set's model
    finally:
        other.stop()
    monkeypatch.undo()
    until(lambda: caplog.messages[-1] == f"{NAME} version 1 is in use")  # the log's last word
    assert running.metric("registry_up") == 1


def test_a_version_of_an_earlier_release_is_named_with_the_remedy(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    client = MlflowClient()
    old = client.create_model_version(NAME, "file:///nowhere", run_id=None)
    client.set_registered_model_alias(NAME, "champion", old.version)
    until(lambda: running.metric("model_behind") == 1)
    assert "earlier release" in caplog.text
    assert running.post(picture()).headers["X-Model-Version"] == "1"


def test_the_page_needs_nothing_from_elsewhere(running: Running) -> None:
    reply = running.get("/")
    assert reply.headers["Content-Security-Policy"].startswith(
        "default-src 'none'; script-src 'sha"
    )
    assert "http" not in reply.text.replace("https://", "http")
