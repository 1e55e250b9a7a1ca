"""Files are whole and private."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from src.files import discard, own_folder, private_folder, sha256, unfinished, unused, write_private
from src.settings import ROOT


def test_a_private_file_is_replaced_in_one_move_and_readable_by_nobody_else(
    tmp_path: Path, mode_of: Callable[[Path], str]
) -> None:
    file = tmp_path / "folder" / "file"
    write_private(file, "one")
    file.chmod(0o644)
    before = file.stat().st_ino
    write_private(file, "two")
    assert file.read_text() == "two"
    assert file.stat().st_ino != before
    assert mode_of(file) == "600"
    assert mode_of(file.parent) == "700"
    assert list(file.parent.iterdir()) == [file]


def test_a_digest_is_the_files_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert sha256(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()


def test_folders_above_are_nobody_elses_either(
    tmp_path: Path, mode_of: Callable[[Path], str]
) -> None:
    old = os.umask(0)
    try:
        folder = private_folder(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(old)
    assert [mode_of(f) for f in (folder, *folder.parents[:2])] == ["700"] * 3
    tmp_path.chmod(0o755)
    private_folder(folder)  # what is there already stays as it is
    assert mode_of(tmp_path) == "755"


def test_a_killed_write_leaves_what_git_ignores_and_the_next_write_removes(
    tmp_path: Path,
) -> None:
    file = tmp_path / "config.local"
    code = f"""
import os, pathlib, signal
from src.files import write_private
pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_private(pathlib.Path({str(file)!r}), "secret")
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -9
    (leftover,) = tmp_path.iterdir()
    assert leftover.read_text() == "secret"
    ignored = subprocess.run(["git", "check-ignore", "-q", f".dvc/{leftover.name}"], cwd=ROOT)
    assert ignored.returncode == 0
    write_private(file, "new")
    assert list(tmp_path.iterdir()) == [file]


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    wanted = tmp_path / "2026-11-25"
    assert unused(wanted) == wanted
    for name in ("2026-11-25", "2026-11-25-2"):
        (tmp_path / name).mkdir()
    assert unused(wanted) == tmp_path / "2026-11-25-3"


@pytest.mark.parametrize(
    "begin",
    ["(held := unfinished(base)).__enter__()", "own_folder(base, os.getpid())"],
    ids=["unfinished", "own_folder"],
)
def test_what_a_killed_process_began_is_deleted_by_the_next(tmp_path: Path, begin: str) -> None:
    code = f"""
import os, pathlib, signal
from src.files import discard, own_folder, unfinished
base = pathlib.Path({str(tmp_path)!r})
folder = {begin}
(folder / "file").write_text("half")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -9
    assert [file.name for file in tmp_path.rglob("file")] == ["file"]
    theirs = own_folder(tmp_path, os.getppid())  # of a process that lives
    with unfinished(tmp_path) as one, unfinished(tmp_path) as two:
        mine = own_folder(tmp_path, os.getpid())
        assert {one, two, mine} <= set(tmp_path.iterdir()) <= {one, two, mine, theirs}
    assert theirs.is_dir()


def test_a_folder_that_is_deleted_is_whole_or_gone(tmp_path: Path) -> None:
    """However early the process is killed."""
    folder = tmp_path / "made"
    folder.mkdir()
    for name in ("model.onnx", "labels.json"):
        (folder / name).write_text("whole")
    code = f"""
import os, pathlib, signal, sys
sys.addaudithook(lambda event, _: event == "os.remove" and os.kill(os.getpid(), signal.SIGKILL))
from src.files import discard
discard(pathlib.Path({str(folder)!r}))
"""
    assert subprocess.run([sys.executable, "-B", "-c", code], cwd=ROOT).returncode == -9
    assert not folder.exists()
    discard(folder)  # as another process does at the same time
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_dead_that_nobody_took_leave_of_are_dead(tmp_path: Path) -> None:
    """As in a container without an init."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    while Path(f"/proc/{dead.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    (tmp_path / str(dead.pid)).mkdir()
    (tmp_path / f".file.{dead.pid}.new").touch()
    own_folder(tmp_path, os.getpid())
    write_private(tmp_path / "file", "")
    assert {path.name for path in tmp_path.iterdir()} == {str(os.getpid()), "file"}
    dead.wait()
