"""``make data``: nothing by halves, nothing twice, and nobody's own changes lost."""

import errno
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from src.datasets import DatasetError, manifest, synthetic
from src.datasets import __main__ as module
from src.datasets.__main__ import build, ensure
from src.datasets.versioning import State
from src.errors import run_command
from src.inputs import Inputs, Kind
from src.settings import Settings

MakeSettings = Callable[..., Settings]
Photos = Callable[..., Settings]


def draw(folder: Path, colour: int) -> None:
    """Write one picture for each split; a colour for each source."""
    for number, split in enumerate(("train", "val", "test")):
        (folder / "images" / split).mkdir(parents=True)
        picture = Image.new("RGB", (8, 8), (colour, number, 0))
        picture.save(folder / "images" / split / "a.png")


def build_from(folder: Path, archive: Path) -> None:
    """Stand in for ``build_coco128``."""
    content = archive.read_bytes()
    draw(folder, zlib.crc32(content) % 256)
    if content == b"faulty":
        (folder / "images" / "val" / "b.png").write_bytes(b"no image")
    if content == b"broken":
        raise DatasetError("the archive is truncated")
    if content == b"large":
        raise OSError(errno.ENOSPC, "No space left on device")


class Versions:
    """Stands in for DVC: remembers what was added and pushed."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.added: list[str] = []
        self.pushed: list[str] = []

    def state(self) -> State:
        md5 = self.added[-1] if self.added else None
        present = self.data.is_dir()
        changed = present and self._hash() != md5
        return State(md5, present, changed, pushed=md5 is not None and md5 in self.pushed)

    def add(self) -> str:
        self.added.append(self._hash())
        return self.added[-1]

    def push(self) -> None:
        self.pushed.append(self.added[-1])

    def fetch(self) -> bool:
        return False

    def _hash(self) -> str:
        files = sorted(file for file in self.data.rglob("*") if file.is_file())
        return str([zlib.crc32(file.read_bytes()) for file in files])


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the data set's folder in a checkout of the test's own."""
    folder = tmp_path / "data" / "tiny_person"
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "FOLDER", folder)
    monkeypatch.setattr(module, "build_coco128", build_from)
    monkeypatch.setattr(synthetic, "draw_synthetic", lambda f, seed: draw(f, seed))
    monkeypatch.setattr(module, "configure_remote", lambda _: None)
    monkeypatch.setattr(module, "use_stack", lambda _: None)
    return folder


@pytest.fixture(autouse=True)
def versions(data: Path, monkeypatch: pytest.MonkeyPatch) -> Versions:
    versions = Versions(data)
    monkeypatch.setattr(module, "Versions", lambda: versions)
    monkeypatch.setattr(module, "settle", settled)
    return versions


def settled(settings: Settings, built: Kind | None) -> Inputs:
    kind: Kind = "synthetic" if settings.dataset == "synthetic" else "coco128"
    return Inputs(
        settled_for=(settings.dataset, settings.weights, settings.coco128_url),
        dataset=kind,
        weights="scratch",
        weights_sha256="scratch",
        notices=[],
    )


@pytest.fixture
def photos(tmp_path: Path, make_settings: MakeSettings) -> Photos:
    """Return settings whose photos come from an archive of that content."""

    def settings(content: str = "good") -> Settings:
        archive = tmp_path / f"{content}.zip"
        archive.write_text(content)
        return make_settings(coco128_url=archive.as_uri())

    return settings


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", ["coco128", "synthetic"])
def test_a_data_set_is_built_whole(data: Path, photos: Photos, kind: Kind) -> None:
    build(kind, photos())
    assert manifest.read(data).kind == kind
    assert list(data.parent.iterdir()) == [data]


@pytest.mark.parametrize(("archive", "reason"), [("broken", "truncated"), ("faulty", "unreadable")])
def test_a_build_that_fails_changes_nothing(
    data: Path, photos: Photos, archive: str, reason: str
) -> None:
    build("coco128", photos())
    before = contents(data.parent)
    with pytest.raises(DatasetError, match=reason):
        build("coco128", photos(archive))
    assert contents(data.parent) == before


def test_a_broken_archive_is_fetched_anew_unless_it_is_ones_own(
    tmp_path: Path,
    photos: Photos,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = photos("broken")
    downloaded = tmp_path / "downloaded.zip"
    downloaded.write_text("broken")
    with pytest.raises(DatasetError):
        build("coco128", own)
    monkeypatch.setattr(module, "photos", lambda _: downloaded)
    with pytest.raises(DatasetError):
        build("coco128", make_settings())
    assert (tmp_path / "broken.zip").exists()
    assert not downloaded.exists()


def test_what_an_interrupted_build_has_left_is_removed(data: Path, photos: Photos) -> None:
    (data.parent / ".tiny_person.abc" / "tiny_person").mkdir(parents=True)
    build("coco128", photos())
    assert list(data.parent.iterdir()) == [data]


def test_a_full_disk_is_one_clear_error(
    data: Path,
    photos: Photos,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "load_settings", lambda: photos("large"))
    monkeypatch.setattr("sys.argv", ["datasets"])
    assert run_command(module.main) == 1
    assert "the disk is full" in capsys.readouterr().err
    assert list(data.parent.iterdir()) == []


def test_the_second_run_changes_nothing(
    photos: Photos, versions: Versions, capsys: pytest.CaptureFixture[str]
) -> None:
    ensure(photos())
    assert len(versions.added) == len(versions.pushed) == 1
    capsys.readouterr()
    ensure(photos())
    assert len(versions.added) == len(versions.pushed) == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert all("unchanged" in line for line in said)


def test_a_push_that_failed_is_made_up_for(photos: Photos, versions: Versions) -> None:
    ensure(photos())
    versions.pushed.clear()
    ensure(photos())
    assert versions.pushed == versions.added


def test_ones_own_changes_become_a_version(data: Path, photos: Photos, versions: Versions) -> None:
    ensure(photos())
    (data / "images" / "train" / "mine.png").write_bytes(
        (data / "images" / "train" / "a.png").read_bytes()
    )
    ensure(photos())
    assert (data / "images" / "train" / "mine.png").exists()
    assert len(versions.added) == len(versions.pushed) == 2


def test_ones_own_changes_are_not_versioned_while_they_are_faulty(
    data: Path, photos: Photos, versions: Versions
) -> None:
    ensure(photos())
    (data / "images" / "train" / "mine.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"mine\.png"):
        ensure(photos())
    assert len(versions.added) == 1


def test_another_data_set_replaces_an_unchanged_one(
    data: Path, photos: Photos, make_settings: MakeSettings
) -> None:
    ensure(photos())
    ensure(make_settings(dataset="synthetic"))
    assert manifest.read(data).kind == "synthetic"


def test_another_data_set_replaces_ones_own_changes_only_by_force(
    data: Path, photos: Photos, make_settings: MakeSettings
) -> None:
    ensure(photos())
    mine = data / "images" / "train" / "mine.png"
    mine.write_bytes((data / "images" / "train" / "a.png").read_bytes())
    with pytest.raises(DatasetError, match="FORCE=1"):
        ensure(make_settings(dataset="synthetic"))
    assert mine.exists()
    ensure(make_settings(dataset="synthetic"), force=True)
    assert not mine.exists()


def test_photos_of_another_archive_replace_the_old_ones(data: Path, photos: Photos) -> None:
    ensure(photos())
    before = manifest.read(data)
    ensure(photos("better"))
    assert manifest.read(data) != before


def test_photos_that_are_built_already_need_no_archive(
    photos: Photos, tmp_path: Path, versions: Versions
) -> None:
    settings = photos()
    ensure(settings)
    (tmp_path / "good.zip").unlink()
    ensure(settings)
    assert len(versions.added) == 1
