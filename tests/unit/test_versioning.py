"""DVC's remote and pointer: keys kept out of git, and a damaged pointer named."""

import configparser
from collections.abc import Callable
from pathlib import Path

import pytest

from src.datasets import DatasetError, versioning
from src.datasets.versioning import configure_remote, pointer_md5
from src.settings import Settings

POINTER = "outs:\n- md5: 0123abcd.dir\n  size: 1\n  path: tiny_person\n"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(versioning, "ROOT", tmp_path)
    monkeypatch.setattr(versioning, "STATE", tmp_path / ".stack")
    monkeypatch.setattr(versioning, "POINTER", tmp_path / "tiny_person.dvc")
    monkeypatch.setattr(versioning, "FOLDER", tmp_path / "tiny_person")
    monkeypatch.setattr(versioning, "LOCAL_CONFIG", tmp_path / ".dvc" / "config.local")
    return tmp_path


def test_the_remote_is_the_dvc_users_bucket(settings: Settings, root: Path) -> None:
    configure_remote(settings)
    config = configparser.ConfigParser(interpolation=None)
    config.read(versioning.LOCAL_CONFIG)
    assert dict(config["'remote \"minio\"'"]) == {
        "url": "s3://dvc-data",
        "endpointurl": "http://localhost:9000",
        "access_key_id": "dvc-user",
        "secret_access_key": settings.dvc_s3_secret_key,
    }
    assert config["core"]["site_cache_dir"] == str(root / ".stack" / "dvc")


def test_keys_stand_in_the_local_file_only(
    settings: Settings, root: Path, mode_of: Callable[[Path], str]
) -> None:
    configure_remote(settings)
    assert [file for file in root.rglob("*") if file.is_file()] == [versioning.LOCAL_CONFIG]
    assert mode_of(versioning.LOCAL_CONFIG) == "600"


def test_the_file_is_written_anew_only_when_it_changes(
    settings: Settings, make_settings: Callable[..., Settings]
) -> None:
    def written() -> int:
        return versioning.LOCAL_CONFIG.stat().st_ino  # each writing makes another file

    configure_remote(settings)
    first = written()
    configure_remote(settings)
    assert written() == first
    configure_remote(make_settings(minio_port=9100))
    assert written() != first
    assert "localhost:9100" in versioning.LOCAL_CONFIG.read_text()


@pytest.mark.parametrize("torn", [b"[core]\n\xff\xfe", b"[core\nremote", b"a = 1\n"])
def test_a_local_file_that_cannot_be_read_is_kept_aside_and_made_anew(
    settings: Settings, root: Path, torn: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_remote(settings)
    whole = versioning.LOCAL_CONFIG.read_text()
    for number in ("", "-2"):
        versioning.LOCAL_CONFIG.write_bytes(torn)
        configure_remote(settings)
        assert versioning.LOCAL_CONFIG.read_text() == whole
        aside = f".stack/replaced/dvc-config.local{number}"
        assert (root / aside).read_bytes() == torn
        assert capsys.readouterr().out.endswith(f"{aside}\n")


def test_the_committed_configuration_holds_no_key() -> None:
    committed = Path(__file__).parents[2] / ".dvc" / "config"
    assert "key" not in committed.read_text()


def test_the_pointer_gives_the_contents_hash() -> None:
    assert pointer_md5() is None
    versioning.POINTER.write_text(POINTER)
    assert pointer_md5() == "0123abcd.dir"


@pytest.mark.parametrize(
    "text",
    [
        f"<<<<<<< HEAD\n{POINTER}=======\n{POINTER.replace('0', '9')}>>>>>>> theirs\n",
        f"outs:\n<<<<<<< HEAD\n{POINTER[6:]}=======\n{POINTER[6:]}>>>>>>> theirs\n",
        "outs: []\n",
        "outs:\n- path: tiny_person\n",
        "no pointer",
        "\xff",
    ],
)
def test_a_damaged_pointer_is_one_clear_error(text: str) -> None:
    versioning.POINTER.write_text(text, encoding="latin-1")
    with pytest.raises(DatasetError, match=r"^tiny_person\.dvc is not a DVC pointer"):
        pointer_md5()


def test_a_folder_has_the_version_of_its_content(tmp_path: Path) -> None:
    first, copy, other = (tmp_path / name for name in ("first", "copy", "other"))
    for folder, text in ((first, "a"), (copy, "a"), (other, "b")):
        folder.mkdir()
        (folder / "file.txt").write_text(text)
    assert versioning.version_of(first) == versioning.version_of(copy)
    assert versioning.version_of(first) != versioning.version_of(other)
    assert versioning.version_of(first).endswith(".dir")


@pytest.mark.parametrize(
    ("file", "torn"),
    [
        ("tiny_person.dvc", b""),
        (".dvc/tmp/rwlock", b""),
        (".dvc/tmp/rwlock", b'{"half'),
        (".dvc/tmp/rwlock", b"\xff"),
    ],
)
def test_what_dvc_was_killed_over_is_written_again(root: Path, file: str, torn: bytes) -> None:
    """It opens both for writing, and so empties them, before it knows what to write."""
    from dvc.repo import Repo

    Repo.init(str(root), no_scm=True)
    versioning.FOLDER.mkdir()
    (versioning.FOLDER / "file.txt").write_text("a")
    md5 = versioning.Versions().add()
    assert (root / file).stat().st_size > 0
    (root / file).write_bytes(torn)
    versions = versioning.Versions()
    assert versions.state(remote=False).changed == (file == "tiny_person.dvc")
    assert versions.add() == md5
    assert not versions.state(remote=False).changed
