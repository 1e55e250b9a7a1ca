"""What this process may use: cores, memory and GPUs, within what a scheduler leaves of them."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pynvml
import pytest

from src import machine
from src.training import devices, memory

GB = 10**9


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 cores and 256 GB; control groups of this test's own."""
    monkeypatch.setattr(machine, "MOUNT", tmp_path)
    monkeypatch.setattr(machine, "PROC", tmp_path / "own")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    available = type("Memory", (), {"available": 256 * GB})
    monkeypatch.setattr(psutil, "virtual_memory", available)
    return tmp_path


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_without_limits_it_is_the_machine(groups: Path) -> None:
    assert (machine.cores(), machine.free_memory()) == (64, 256 * GB)
    (groups / "own").write_text("0::/user.slice\n")
    write(groups / "user.slice", cpu__max="max 100000", memory__max="max", memory__current=GB)
    assert (machine.cores(), machine.free_memory()) == (64, 256 * GB)


def test_a_container_has_what_it_was_given(groups: Path) -> None:
    (groups / "own").write_text("0::/\n")
    write(groups, cpu__max="150000 100000", memory__max=4 * GB, memory__current=2 * GB)
    write(groups, memory__stat=f"anon 1\ninactive_file {GB}")
    assert machine.cores() == 2
    assert machine.free_memory() == 3 * GB
    assert memory.fitting() == 1


def test_the_tightest_group_around_counts(groups: Path) -> None:
    (groups / "own").write_text("0::/a/b/c\n")
    write(groups / "a", cpu__max="300000 100000", memory__max=8 * GB, memory__current=0)
    write(groups / "a" / "b" / "c", cpu__max="400000 100000", memory__max=9 * GB, memory__current=0)
    assert (machine.cores(), machine.free_memory()) == (3, 8 * GB)


def test_version_1_is_read_too(groups: Path) -> None:
    (groups / "own").write_text("4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n")
    write(groups / "cpu" / "job", cpu__cfs_quota_us=200000, cpu__cfs_period_us=100000)
    write(groups / "cpu", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    write(groups / "memory" / "job", memory__limit_in_bytes=2 * GB, memory__usage_in_bytes=3 * GB)
    assert (machine.cores(), machine.free_memory()) == (2, 0)
    assert memory.fitting() == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone binds to cores")
def test_the_cores_it_is_bound_to_count() -> None:
    first = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, [{first}]); import src.machine as m; print(m.cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (None, ["0", "1", "2", "3"]),
        ("", []),
        ("-1", []),
        ("2,3", ["2", "3"]),
        (" 1 , 0 ", ["1", "0"]),
        ("1,9,2", ["1"]),  # as CUDA does: up to the first that can't be one
        ("1,1", []),
        ("GPU-8f2a,MIG-77", ["GPU-8f2a", "MIG-77"]),
        ("NoDevFiles", []),  # what Slurm sets for a job without GPUs
    ],
)
def test_a_scheduler_s_choice_of_gpus_is_kept(
    monkeypatch: pytest.MonkeyPatch, given: str | None, seen: list[str]
) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert devices.visible() == seen
    assert devices.gpus() == len(seen)


def test_each_disk_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".stack" / "native" / "mlflow").mkdir(parents=True)
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert list(machine.free_disk()) == [tmp_path]
    assert machine.full_disk() is None


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    mlflow = tmp_path / ".stack" / "native" / "mlflow"
    monkeypatch.setattr(machine, "free_disk", lambda: {tmp_path: GB, mlflow: 3_000_000})
    assert machine.full_disk() == "the disk of .stack/native/mlflow is full (3 MB are free)"
    monkeypatch.setattr(machine, "free_disk", lambda: {tmp_path: 0})
    assert machine.full_disk() == f"the disk of {tmp_path} is full (0 MB are free)"
