"""Locks of resources: who waits, who is refused, and what frees one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from src import locks
from src.locks import FOLDERS, Busy, hold

HOLDS = """
import sys
from pathlib import Path
from src import locks
locks.ROOT, locks.NOTES = Path(sys.argv[1]), Path(sys.argv[1]) / ".stack" / "locks"
with locks.hold(sys.argv[2], "make grid", shared=sys.argv[3] == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in [*FOLDERS.values(), ".stack"]:
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(locks, "ROOT", tmp_path)
    monkeypatch.setattr(locks, "NOTES", tmp_path / ".stack" / "locks")
    return tmp_path


@contextmanager
def holding(checkout: Path, resource: str, how: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLDS, str(checkout), resource, how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


@pytest.fixture(params=["shared", "alone"])
def holder(checkout: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    with holding(checkout, "data", request.param) as process:
        yield process


def test_who_may_not_wait_is_told_who_is_at_work(holder: subprocess.Popen[bytes]) -> None:
    refused = pytest.raises(Busy, match=rf"make grid \(pid {holder.pid}\) is at work")
    with refused, hold("data", "make data", wait=False):
        pass


def test_who_waits_says_for_whom_and_gives_up(
    holder: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(locks, "LIMIT", 0.3)
    with pytest.raises(Busy), hold("data", "make data"):
        pass
    assert capsys.readouterr().err == f"waiting for make grid (pid {holder.pid})\n"


def test_a_dead_owners_lock_is_free(holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    holder.wait()
    with hold("data", "make data", wait=False):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="about what Linux keeps of the dead")
def test_a_dead_owner_that_nobody_took_leave_of_is_not_named(checkout: Path) -> None:
    """As in a container without an init."""
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        while "Z" not in Path(f"/proc/{dead.pid}/stat").read_text().rpartition(")")[2].split()[0]:
            time.sleep(0.01)
        left = checkout / ".stack" / "locks" / f"data.{dead.pid}"
        left.parent.mkdir(parents=True)
        left.write_text("make grid")
        with (
            holding(checkout, "data", "shared") as owner,
            pytest.raises(Busy) as refused,
            hold("data", "make data", wait=False),
        ):
            pass
    assert str(refused.value).startswith(f"make grid (pid {owner.pid}) is at work")


def test_a_dead_owner_whose_number_is_anothers_now_is_not_named(checkout: Path) -> None:
    """As in containers, where numbers are small and begin again."""
    left = checkout / ".stack" / "locks" / f"data.{os.getppid()}"
    left.parent.mkdir(parents=True)
    left.write_text("make grid")
    with (
        holding(checkout, "data", "alone") as owner,
        pytest.raises(Busy) as refused,
        hold("data", "make data", wait=False),
    ):
        pass
    assert str(refused.value).startswith(f"make grid (pid {owner.pid}) is at work")


def test_another_resource_is_free(holder: subprocess.Popen[bytes]) -> None:
    with hold("registry", "make promote", wait=False):
        pass


def test_those_who_share_are_all_named(checkout: Path) -> None:
    with (
        holding(checkout, "stack", "shared") as one,
        holding(checkout, "stack", "shared") as other,
        pytest.raises(Busy) as refused,
        hold("stack", "make down", wait=False),
    ):
        pass
    assert all(f"make grid (pid {held.pid})" in str(refused.value) for held in (one, other))


def test_who_shares_and_then_wants_it_alone_does_not_name_itself(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "LIMIT", 0.3)
    with holding(checkout, "data", "shared") as other:
        with hold("data", "make data", shared=True):
            pass
        with pytest.raises(Busy), hold("data", "make data"):
            pass
    assert capsys.readouterr().err == f"waiting for make grid (pid {other.pid})\n"


def test_every_locked_folder_is_in_the_checkout() -> None:
    for folder in FOLDERS.values():
        assert (Path(locks.__file__).parents[1] / folder).is_dir()
