"""What DATASET may name: found, told apart when it changes, downloaded without showing a key."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from src.datasets.importing import source
from src.datasets.importing.account import ImportFault
from src.download import DownloadError
from tests.unit.importing import cases


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(source, "DOWNLOADS", tmp_path / "downloads")
    found = tmp_path / "my set"
    found.mkdir()
    assert cases.make(found, cases.ultralytics, [])
    return found


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path, folder: Path) -> Iterator[str]:
    """Return the address of the set's archive on a real server, without a suffix to tell it."""
    shutil.make_archive(str(tmp_path / "served" / "ds"), "zip", folder)
    (tmp_path / "served" / "ds.zip").rename(tmp_path / "served" / "ds")
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/ds?key=secret"
    server.shutdown()
    server.server_close()


def test_a_folder_a_file_in_it_and_a_file_address(folder: Path) -> None:
    assert source.find(str(folder)).path == folder
    named = source.find(str(folder / "data.yaml"))
    assert (named.path, named.chosen) == (folder, "data.yaml")
    assert source.find(folder.as_uri()).path == folder


def test_annotations_beside_images_mean_the_folder_of_both(folder: Path) -> None:
    (folder / "annotations").mkdir()
    file = folder / "annotations" / "all.json"
    file.write_text("{}")
    named = source.find(str(file))
    assert (named.path, named.chosen) == (folder, "annotations/all.json")


@pytest.mark.parametrize(
    ("dataset", "said"),
    [("/no/such/place", "no such file or folder"), ("ftp://x.org/a.zip", "give http://")],
)
def test_what_can_not_be_a_data_set_is_refused(dataset: str, said: str) -> None:
    with pytest.raises(ImportFault, match=said):
        source.find(dataset)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(ImportFault, match="neither a folder, an archive"):
        source.find(str(tmp_path / "notes.docx"))


def test_a_change_is_told_and_litter_is_none(folder: Path) -> None:
    found = source.find(str(folder))
    before = found.stamp()
    (folder / ".DS_Store").write_bytes(b"x")
    assert found.stamp() == before
    (folder / "labels/train/im00.txt").write_text("")
    assert found.stamp() != before


def test_an_archive_is_downloaded_unpacked_and_not_kept(tmp_path: Path, address: str) -> None:
    found = source.find(address)
    with found.opened(tmp_path) as (unpacked, ours):
        assert ours
        assert (unpacked / "data.yaml").is_file()
    assert not unpacked.exists()
    assert not list((tmp_path / "downloads").glob("*ds"))


def test_a_key_in_an_address_is_not_shown(tmp_path: Path, address: str) -> None:
    found = source.find(address.replace("/ds?", "/none?"))
    with pytest.raises(DownloadError) as caught, found.opened(tmp_path):
        pass
    assert "secret" not in str(caught.value)
    assert "/none" in str(caught.value)


def test_an_s3_address_is_signed_and_not_shown(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    found = source.find("s3://bucket/a/set.zip")
    assert found.given == "s3://bucket/a/set.zip"
    assert "Signature=" in found.url
    with pytest.raises(DownloadError) as caught, found.opened(tmp_path):
        pass
    assert "Signature" not in str(caught.value)
