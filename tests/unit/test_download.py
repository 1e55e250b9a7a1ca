"""Downloads from a server of the test's own: whole, resumed, begun again, and never by halves."""

import errno
import hashlib
import shutil
import socket
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from src import download, inputs
from src.download import CHUNK, PINNED, DownloadError, fetch
from src.settings import EXAMPLE_FILE, read_env_file

CONTENT = bytes(range(256)) * 1024
ARRIVED = 2 * CHUNK  # bytes of CONTENT before the connection breaks
ETAG = '"first"'


class Server(ThreadingHTTPServer):
    """Serves ``content``; tests change how."""

    daemon_threads = True
    content = CONTENT
    etag: str | None = ETAG
    takes_ranges = True
    stops_after: int | None = None  # bytes of an answer, of which more are announced
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[str | None, int]] = []  # Range header and status of each

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked, version = self.headers["Range"], self.headers["If-Range"]
        content, status = self.server.content, self.server.status
        if asked and self.server.takes_ranges and version in (None, self.server.etag):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            content, status = content[start:], 206 if start < len(content) else 416
        self.server.answers.append((asked, status))
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()
        self.wfile.write(content[: self.server.stops_after])

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "file.zip"


def interrupt(server: Server, target: Path) -> None:
    """Leave what a download leaves whose connection broke."""
    server.stops_after = ARRIVED
    with pytest.raises(DownloadError):
        fetch(server.url, target)
    server.stops_after = None


def test_a_file_arrives_whole_and_alone(server: Server, target: Path) -> None:
    assert fetch(server.url, target) == target
    assert target.read_bytes() == CONTENT
    assert set(target.parent.iterdir()) == {target, target.with_name(f"{target.name}.sha256")}


def test_a_file_that_is_there_is_not_fetched_again(server: Server, target: Path) -> None:
    fetch(server.url, target)
    fetch(server.url, target)
    assert server.answers == [(None, 200)]


def test_a_truncated_answer_leaves_nothing_under_the_final_name(
    server: Server, target: Path
) -> None:
    server.stops_after = 1000
    with pytest.raises(DownloadError, match=server.url):
        fetch(server.url, target)
    assert not target.exists()


def test_an_interrupted_download_goes_on_where_it_stopped(server: Server, target: Path) -> None:
    interrupt(server, target)
    fetch(server.url, target)
    assert server.answers == [(None, 200), (f"bytes={ARRIVED}-", 206)]
    assert target.read_bytes() == CONTENT
    assert set(target.parent.iterdir()) == {target, target.with_name(f"{target.name}.sha256")}


def test_a_server_without_ranges_begins_anew(server: Server, target: Path) -> None:
    server.takes_ranges = False
    interrupt(server, target)
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_begins_anew(server: Server, target: Path) -> None:
    interrupt(server, target)
    server.content, server.etag = CONTENT[::-1], '"second"'
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT[::-1]


def test_a_part_of_unknown_version_is_not_trusted(server: Server, target: Path) -> None:
    server.etag = None
    interrupt(server, target)
    fetch(server.url, target)
    assert server.answers == [(None, 200), (None, 200)]
    assert target.read_bytes() == CONTENT


def test_a_part_longer_than_the_file_begins_anew(server: Server, target: Path) -> None:
    interrupt(server, target)
    target.with_name("file.zip.part").write_bytes(CONTENT + b"surplus")
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT


def test_an_answer_other_than_the_file_is_an_error(server: Server, target: Path) -> None:
    server.status = 404
    with pytest.raises(DownloadError, match="404"):
        fetch(server.url, target)
    assert list(target.parent.iterdir()) == []


def test_an_address_that_nobody_answers_is_an_error(target: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file.zip"
        with pytest.raises(DownloadError, match=f"^{url}: no connection$"):
            fetch(url, target)


def test_a_local_file_is_used_where_it_is(target: Path, tmp_path: Path) -> None:
    local = tmp_path / "my file.zip"
    local.write_bytes(CONTENT)
    assert fetch(local.as_uri(), target) == local  # as_uri writes the space as %20
    assert not target.parent.exists()


def test_a_local_file_that_is_missing_is_an_error(target: Path, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="no such file"):
        fetch((tmp_path / "missing.zip").as_uri(), target)


def test_too_little_room_is_said_before_anything_is_written(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free=len(CONTENT) - 1))
    with pytest.raises(DownloadError, match="free"):
        fetch(server.url, target)
    assert not target.exists()


def test_a_disk_that_fills_up_meanwhile_is_one_clear_error(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Callable[..., Any] = Path.open

    def full(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if self.suffix == ".part":
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return opened(self, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DownloadError, match="No space left on device"):
        fetch(server.url, target)
    assert not target.exists()


def test_the_addresses_that_the_project_names_are_pinned() -> None:
    assert inputs.PRETRAINED_URL in PINNED
    assert read_env_file(EXAMPLE_FILE)["COCO128_URL"] in PINNED


@pytest.mark.parametrize("published", [True, False])
def test_what_is_pinned_is_taken_and_nothing_else(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: bool
) -> None:
    digest = hashlib.sha256(CONTENT if published else b"other").hexdigest()
    monkeypatch.setitem(download.PINNED, server.url, digest)
    if published:
        assert fetch(server.url, tmp_path / "file").read_bytes() == CONTENT
        return
    with pytest.raises(DownloadError, match="not the published file"):
        fetch(server.url, tmp_path / "file")
    assert not list(tmp_path.glob("file*"))


def test_another_file_behind_an_address_is_said(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "file"
    for content, said in ((CONTENT, False), (CONTENT, False), (b"other", True), (b"other", True)):
        server.content = content
        target.unlink(missing_ok=True)
        assert fetch(server.url, target).read_bytes() == content
        assert ("has changed: SHA-256" in capsys.readouterr().err) == said
