"""``make data``: nothing by halves, nothing twice, and nobody's own changes lost. DVC is real."""

import errno
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from src.datasets import DatasetError, manifest, sets, synthetic, versioning
from src.datasets import __main__ as module
from src.datasets.__main__ import Origin, build
from src.datasets.sets import DataSet
from src.errors import run_command
from src.inputs import Inputs, Kind
from src.settings import Settings

MakeSettings = Callable[..., Settings]
Photos = Callable[..., Settings]


def draw(folder: Path, colour: int) -> None:
    """Write a picture with a box for each split; a colour for each source."""
    for number, split in enumerate(("train", "val", "test")):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        picture = Image.new("RGB", (16, 16), (colour, number, 0))
        picture.save(folder / "images" / split / "a.png")
        (folder / "labels" / split / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")


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


class Versions(versioning.Versions):
    """DVC itself, with a count of what was added and pushed."""

    added: list[str]
    pushed: list[str]
    looked: list[bool]  # whether at the remote, too

    def add(self) -> str:
        self.added.append(super().add())
        return self.added[-1]

    def push(self) -> None:
        super().push()
        self.pushed.append(self.added[-1])

    def state(self, *, remote: bool = True) -> versioning.State:
        self.looked.append(remote)
        return super().state(remote=remote)


@pytest.fixture(scope="session")
def dvc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with DVC's own files in it, to be copied."""
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("dvc")
    Repo.init(str(root), no_scm=True)
    config = "[core]\n    remote = store\n    analytics = false\n    no_scm = true\n"
    (root / ".dvc" / "config").write_text(f"{config}['remote \"store\"']\n    url = ../../store\n")
    return root / ".dvc"


@pytest.fixture
def data(tmp_path: Path, dvc: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the data set's folder in a checkout of the test's own."""
    root = tmp_path / "checkout"
    shutil.copytree(dvc, root / ".dvc")
    shutil.copy(Path(__file__).parents[2] / ".dvcignore", root)
    use(root, "tiny_person", monkeypatch)
    monkeypatch.setattr(module, "build_coco128", build_from)
    monkeypatch.setattr(synthetic, "draw_synthetic", lambda f, seed: draw(f, seed))
    monkeypatch.setattr(module, "configure_remote", lambda _: None)
    monkeypatch.setattr(module, "use_stack", lambda _: None)
    (root / "data").mkdir()
    return root / "data" / "tiny_person"


def use(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the modules work on a data set of the checkout ``root``, as after their import."""
    state = root / ".stack"
    chosen = DataSet(name)
    monkeypatch.setenv("NAME", name)
    for owner in (sets, versioning, module):
        monkeypatch.setattr(owner, "ROOT", root)
    monkeypatch.setattr(sets, "RECORD", state / "datasets.json")
    for owner in (versioning, module):
        monkeypatch.setattr(owner, "SET", chosen)
        monkeypatch.setattr(owner, "FOLDER", chosen.folder)
        monkeypatch.setattr(owner, "POINTER", chosen.pointer)
    monkeypatch.setattr(manifest, "FOLDER", chosen.folder)
    monkeypatch.setattr(module, "REPLACED", state / "replaced")
    monkeypatch.setattr(module, "PAGES", root / "reports" / "data")
    return chosen.folder


@pytest.fixture(autouse=True)
def versions(data: Path, monkeypatch: pytest.MonkeyPatch) -> type[Versions]:
    monkeypatch.setattr(Versions, "added", [], raising=False)
    monkeypatch.setattr(Versions, "pushed", [], raising=False)
    monkeypatch.setattr(Versions, "looked", [], raising=False)
    monkeypatch.setattr(module, "Versions", Versions)
    monkeypatch.setattr(manifest, "settle", settled)
    return Versions


def settled(settings: Settings, built: Kind | None) -> Inputs:
    kind: Kind = "synthetic" if settings.dataset == "synthetic" else "coco128"
    if built == "imported":
        kind = "imported"
    return Inputs(
        settled_for=(settings.dataset, settings.weights, settings.coco128_url),
        dataset=kind,
        weights="scratch",
        weights_sha256="scratch",
        notices=[],
    )


def ensure(settings: Settings, *, force: bool = False) -> None:
    module.ensure(module.find_origin(settings, force=force), force=force)


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
    build(Origin(photos(), kind, kind))
    assert manifest.read(data).kind == kind
    assert list(data.parent.iterdir()) == [data]


@pytest.mark.parametrize(("archive", "reason"), [("broken", "truncated"), ("faulty", "unreadable")])
def test_a_build_that_fails_changes_nothing(
    data: Path, photos: Photos, archive: str, reason: str
) -> None:
    build(Origin(photos(), "coco128", "auto"))
    before = contents(data.parent)
    with pytest.raises(DatasetError, match=reason):
        build(Origin(photos(archive), "coco128", "auto"))
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
        build(Origin(own, "coco128", "auto"))
    monkeypatch.setattr(module, "photos", lambda _: downloaded)
    with pytest.raises(DatasetError):
        build(Origin(make_settings(), "coco128", "auto"))
    assert (tmp_path / "broken.zip").exists()
    assert not downloaded.exists()


def test_what_an_interrupted_build_has_left_is_removed(data: Path, photos: Photos) -> None:
    (data.parent / ".tiny_person.abc" / "tiny_person").mkdir(parents=True)
    build(Origin(photos(), "coco128", "auto"))
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
    photos: Photos, versions: type[Versions], capsys: pytest.CaptureFixture[str]
) -> None:
    ensure(photos())
    assert len(versions.added) == len(versions.pushed) == 1
    capsys.readouterr()
    versions.looked.clear()
    ensure(photos())
    assert len(versions.added) == len(versions.pushed) == 1
    assert versions.looked == [True]  # once: seconds for a large set
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert all("unchanged" in line for line in said)
    assert said[2].startswith("page of ")


def test_unused_versions_are_counted_and_go_without_a_word(
    data: Path, photos: Photos, versions: type[Versions], caplog: pytest.LogCaptureFixture
) -> None:
    ensure(photos())
    (data / "labels/train/a.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    ensure(photos())
    caplog.set_level("INFO")
    unused = versions().unused()
    assert unused > 0
    versions().remove_unused()
    assert versions().unused() == 0
    assert caplog.messages == []


def test_a_push_that_failed_is_made_up_for(
    data: Path, photos: Photos, versions: type[Versions]
) -> None:
    ensure(photos())
    shutil.rmtree(data.parents[2] / "store")
    versions.pushed.clear()
    ensure(photos())
    assert versions.pushed == versions.added


def test_ones_own_changes_become_a_version(
    data: Path, photos: Photos, versions: type[Versions]
) -> None:
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
    data: Path, photos: Photos, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure(photos())
    monkeypatch.setenv("DATASET", "synthetic")
    ensure(make_settings())
    assert manifest.read(data).kind == "synthetic"
    monkeypatch.delenv("DATASET")
    ensure(make_settings())
    assert manifest.read(data).kind == "synthetic", "the last DATASET holds"


@pytest.mark.parametrize("versioned", [False, True])
def test_another_data_set_replaces_ones_own_changes_only_by_force(
    data: Path,
    photos: Photos,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    versioned: bool,
) -> None:
    ensure(photos())
    mine = data / "images" / "train" / "mine.png"
    Image.new("RGB", (20, 20), "blue").save(mine)
    if versioned:
        ensure(photos())
    monkeypatch.setenv("DATASET", "synthetic")
    with pytest.raises(DatasetError, match="FORCE=1"):
        ensure(make_settings())
    assert mine.exists()
    ensure(make_settings(), force=True)
    assert not mine.exists()
    # What was replaced stays in DVC, and the way back that was named works.
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "to go back: cp " in x]
    source, target = line.partition("to go back: cp ")[2].partition(" && ")[0].split()
    root = data.parents[1]
    shutil.copy(root / source, root / target)
    monkeypatch.delenv("DATASET")
    ensure(make_settings())
    assert mine.exists()


def committed(data: Path) -> str:
    return data.with_suffix(".dvc").read_text()


def test_a_pointer_that_git_brings_is_followed(
    data: Path, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    ensure(photos())
    first = committed(data)
    mine = data / "images" / "train" / "mine.png"
    Image.new("RGB", (20, 20), "blue").save(mine)
    ensure(photos())
    second = committed(data)
    for pointer, there in ((first, False), (second, True), (first, False)):
        data.with_suffix(".dvc").write_text(pointer)
        ensure(photos())
        assert mine.exists() == there
        assert committed(data) == pointer
    assert "switched to the version" in capsys.readouterr().out


def test_a_new_pointer_does_not_cost_ones_edits(data: Path, photos: Photos) -> None:
    ensure(photos())
    first = committed(data)
    Image.new("RGB", (20, 20), "blue").save(data / "images" / "train" / "mine.png")
    ensure(photos())
    edited = data / "images" / "train" / "edited.png"
    Image.new("RGB", (20, 20), "green").save(edited)
    data.with_suffix(".dvc").write_text(first)
    with pytest.raises(DatasetError, match="changes of yours"):
        ensure(photos())
    assert edited.exists()
    assert committed(data) == first


def test_a_pointer_whose_content_nobody_holds_is_refused(
    data: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure(photos())
    Image.new("RGB", (20, 20), "blue").save(data / "images" / "train" / "mine.png")
    ensure(photos())
    pointer = committed(data)
    for gone in (data, data.parents[1] / ".dvc" / "cache", data.parents[2] / "store"):
        shutil.rmtree(gone)
    (data.parents[1] / ".stack" / "datasets.json").unlink()
    with pytest.raises(DatasetError, match=pointer.split("md5: ")[1].split()[0]):
        ensure(photos())
    assert committed(data) == pointer
    assert not data.exists()
    ensure(photos(), force=True)
    assert committed(data) != pointer


def test_a_pointer_of_what_is_built_alike_needs_no_store(data: Path, photos: Photos) -> None:
    ensure(photos())
    pointer = committed(data)
    for gone in (data, data.parents[1] / ".dvc" / "cache", data.parents[2] / "store"):
        shutil.rmtree(gone)
    ensure(photos())
    assert committed(data) == pointer


HOLD = """
import sys
from dvc.repo import Repo
with Repo(sys.argv[1]).lock:
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_dvcs_lock_is_waited_for(data: Path, photos: Photos) -> None:
    command = [sys.executable, "-c", HOLD, str(data.parents[1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin and holder.stdout
        assert holder.stdout.readline() == b"held\n"
        # DVC itself gives up after 3 s.
        release = threading.Timer(5, holder.stdin.close)
        release.start()
        ensure(photos())
    assert data.with_suffix(".dvc").is_file()


def test_litter_is_no_change(data: Path, photos: Photos, versions: type[Versions]) -> None:
    shutil.copy(Path(__file__).parents[2] / "data" / ".dvcignore", data.parent)
    ensure(photos())
    for name in (".DS_Store", "Thumbs.db", "._a.png", "desktop.ini", "a.npy"):
        (data / "images" / "train" / name).write_bytes(b"litter")
    for name in ("train.cache", "classes.txt"):
        (data / "labels" / name).write_bytes(b"litter")
    ensure(photos())
    assert len(versions.added) == 1


def test_files_without_a_manifest_are_ones_own(data: Path, photos: Photos) -> None:
    ensure(photos())
    (data / "manifest.json").unlink()
    layout = (data / "data.yaml").read_text()
    (data / "data.yaml").write_text(layout.replace("person", "cat"))
    ensure(photos())
    assert manifest.built() == "imported"
    assert manifest.class_names(data) == ["cat"]
    assert manifest.read(data).provenance == "your own files"
    ensure(photos(), force=True)
    assert manifest.read(data).provenance == "COCO128 photos"


# --- sets that were imported --------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Return somebody's folder of a data set."""
    from tests.unit.importing import cases

    folder = tmp_path / "my cats"
    folder.mkdir()
    assert cases.make(folder, cases.roboflow, [])
    return folder


@pytest.fixture
def own(
    data: Path, mine: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Run make data with DATASET and NAME; return the data set's folder."""

    def run(*, force: bool = False, name: str = "my_cats", dataset: Path | None = mine) -> Path:
        monkeypatch.setenv("DATASET", str(dataset)) if dataset else monkeypatch.delenv(
            "DATASET", raising=False
        )
        folder = use(data.parents[1], name, monkeypatch)
        sets.require(may_import=True)
        ensure(make_settings(), force=force)
        return folder

    return run


def test_a_set_is_imported_and_found_again_by_its_name(
    own: Callable[..., Path], versions: type[Versions], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = own()
    assert manifest.class_names(folder) == ["cat", "dog", "traffic light"]
    assert sets.read_record().in_use == "my_cats"
    said = capsys.readouterr().out
    assert "data/my_cats: 14 images" in said
    own()
    own(dataset=None)
    assert len(versions.added) == len(versions.pushed) == 1
    page = folder.parents[1] / "reports" / "data" / f"my_cats-{versions.added[0][:8]}.html"
    assert "traffic light" in page.read_text()


def test_sets_live_side_by_side(
    own: Callable[..., Path], mine: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch,
    data: Path, versions: type[Versions],
) -> None:  # fmt: skip
    own()
    monkeypatch.delenv("DATASET")
    use(data.parents[1], "tiny_person", monkeypatch)
    sets.require()
    ensure(photos())
    own(dataset=None)
    assert len(versions.added) == 2
    assert {file.stem for file in data.parent.glob("*.dvc")} == {"my_cats", "tiny_person"}


def test_a_source_that_changed_makes_a_new_version(
    own: Callable[..., Path], mine: Path, versions: type[Versions]
) -> None:
    own()
    next(mine.rglob("*.jpg")).unlink()
    folder = own()
    assert len(list((folder / "images").rglob("*.jpg"))) == 13
    assert len(versions.added) == 2


@pytest.mark.parametrize("versioned", [False, True])
def test_edits_are_not_built_over(
    own: Callable[..., Path], mine: Path, versions: type[Versions], versioned: bool
) -> None:
    folder = own()
    label = next((folder / "labels" / "train").glob("*.txt"))
    label.write_text("0 0.5 0.5 0.3 0.3\n")
    if versioned:
        own()
    next(mine.rglob("*.jpg")).unlink()
    with pytest.raises(DatasetError, match="changes of yours"):
        own()
    assert label.read_text() == "0 0.5 0.5 0.3 0.3\n"
    own(force=True)
    assert not label.is_file() or label.read_text() != "0 0.5 0.5 0.3 0.3\n"


def test_a_source_that_is_gone_leaves_what_was_made_of_it(
    own: Callable[..., Path], mine: Path, versions: type[Versions]
) -> None:
    own()
    shutil.rmtree(mine)
    own(dataset=None)
    assert len(versions.added) == 1


def test_an_import_that_fails_changes_nothing(
    own: Callable[..., Path], mine: Path, data: Path
) -> None:
    own()
    before = contents(data.parent)
    (mine / "data.yaml").write_text("names: [")
    with pytest.raises(DatasetError, match=r"data\.yaml line 1"):
        own()
    assert contents(data.parent) == before


@pytest.mark.parametrize("at", ["noted", "between", "placed", "added"])
def test_an_interrupted_build_is_not_taken_for_edits(
    own: Callable[..., Path], versions: type[Versions], monkeypatch: pytest.MonkeyPatch, mine: Path,
    at: str,
) -> None:  # fmt: skip
    own()
    next(mine.rglob("*.jpg")).unlink()
    interrupted(at, own, monkeypatch)
    assert len(list((own() / "images").rglob("*.jpg"))) == 13
    assert len(versions.added) == 2
    known = sets.read_record().sets["my_cats"]
    assert known.built == known.seen == versions.added[-1]
    assert known.fresh == known.fresh_stamp == ""
    assert not list((mine.parent / "checkout" / "data").glob(".my_cats.*"))
    own()
    assert len(versions.added) == 2
    next(mine.rglob("*.jpg")).unlink()
    own()  # not refused: nothing was edited


@pytest.mark.parametrize("at", ["noted", "between", "placed", "added"])
def test_nor_is_an_interrupted_build_of_the_labs_set(
    photos: Photos, versions: type[Versions], monkeypatch: pytest.MonkeyPatch, data: Path, at: str
) -> None:
    ensure(photos())
    before = manifest.read(data)
    interrupted(at, lambda: ensure(photos("better")), monkeypatch)
    ensure(photos("better"))
    assert manifest.read(data) != before
    known = sets.read_record().sets["tiny_person"]
    assert known.built == known.seen == versions.added[-1]
    ensure(photos())  # not refused: nothing was edited
    assert manifest.read(data) == before


def test_an_interrupted_first_build_is_known(
    photos: Photos, versions: type[Versions], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted("added", lambda: ensure(photos()), monkeypatch)
    ensure(photos())
    known = sets.read_record().sets["tiny_person"]
    assert known.built == known.seen == versions.added[-1]


def interrupted(at: str, make: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it end where a kill could end it; nothing is tidied up after it."""
    rename, remember = Path.rename, sets.remember
    moved: list[Path] = []

    def renaming(path: Path, target: Path) -> Path:
        done = rename(path, target)
        moved.append(done)
        if at == ("between" if done.name == "replaced" else "placed"):
            raise KeyboardInterrupt
        return done

    def noting(name: str, **known: str) -> None:
        remember(name, **known)
        if at == "noted" and known.get("fresh"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module.shutil, "rmtree", lambda *_, **__: None)
        patch.setattr(Path, "rename", renaming)
        patch.setattr(sets, "remember", noting)
        if at == "added":
            patch.setattr(Versions, "add", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        make()


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


def test_what_a_killed_dvc_has_left_in_its_cache_goes(
    photos: Photos, versions: type[Versions], data: Path
) -> None:
    ensure(photos())
    cache = data.parents[1] / ".dvc" / "cache" / "files" / "md5" / "8a"
    cache.mkdir(exist_ok=True)
    for name in (".TtH3TiMMcvOtZfQH_jriMg.tmp", "2929cc04aa.dir.yagmAn92NG_vomTq7IS--A.tmp"):
        (cache / name).touch()
    ensure(photos())
    assert not list(cache.glob("*.tmp"))
