"""The cores, memory and disk that this process may use: what affinity and control groups leave it.

A container, a scheduler or a systemd slice gives a part of the machine; what takes the whole for
its own is slow, or killed. joblib counts cores so, too, but takes 0.3 s to import.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROC = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")
FULL = 16 * 2**20  # bytes: less than the store or a database can work with


def cores() -> int:
    """Return how many cores this process may keep busy; 1 at least."""
    counts = [float(os.cpu_count() or 1)]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    for group in _groups("cpu"):
        first = [
            *_numbers(group / "cpu.cfs_quota_us", 1),
            *_numbers(group / "cpu.cfs_period_us", 1),
        ]
        given = _numbers(group / "cpu.max", 2) or first  # version 2, else 1
        if len(given) == 2 and min(given) > 0:  # -1 is no quota
            counts.append(math.ceil(given[0] / given[1]))
    return max(1, int(min(counts)))


def free_memory() -> int:
    """Return the bytes that this process may still take."""
    import psutil

    free = [psutil.virtual_memory().available]
    for group in _groups("memory"):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            if (most := _numbers(group / limit, 1)) and (now := _numbers(group / used, 1)):
                free.append(int(most[0] - now[0]) + _reclaimable(group / "memory.stat"))
    return max(0, min(free))


def free_disk() -> dict[Path, int]:
    """Return the free bytes of each disk that holds this checkout, or its native servers' data."""
    state = ROOT / ".stack"
    folders = [ROOT, state, *sorted(state.glob("*/*")), state / "native" / "object-store" / "data"]
    disks: dict[int, Path] = {}
    for folder in folders:
        if folder.is_dir():
            disks.setdefault(folder.stat().st_dev, folder)
    return {folder: shutil.disk_usage(folder).free for folder in disks.values()}


def full_disk() -> str | None:
    """Return which of those disks is full, as people find it; None where none is."""
    for folder, free in free_disk().items():
        if free < FULL:
            where = os.path.relpath(folder, ROOT) if folder != ROOT else str(ROOT)
            return f"the disk of {where} is full ({free // 10**6} MB are free)"
    return None


def _groups(controller: str) -> Iterator[Path]:
    """Yield this process's control group for a controller, and those around it.

    In a container the path is often that of the machine, and the container's own group is mounted
    at the top.
    """
    try:
        lines = PROC.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = MOUNT / controller if controllers else MOUNT
        own = top / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))


def _numbers(file: Path, count: int) -> tuple[float, ...]:
    """Return a file's numbers; nothing where it isn't there, or says ``max``."""
    try:
        numbers = tuple(float(word) for word in file.read_text().split())
    except (OSError, ValueError):
        return ()
    return numbers if len(numbers) == count else ()


def _reclaimable(file: Path) -> int:
    """Return the bytes of files' contents that the kernel lets go of when memory is wanted."""
    try:
        pairs = dict(line.split(" ", 1) for line in file.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(pairs.get("total_inactive_file") or pairs.get("inactive_file") or 0)
