"""A machine that is short of something: disk, open files, shared memory; clocks, many clients.

Natively, and as root, who may mount small disks. ``make test-faults`` runs it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from src.zenml_pipelines.cluster import address_towards
from tests.e2e.conftest import TINY_GRID, Checkout
from tests.e2e.servers import EXPERIMENT, MLflow, ZenML

NATIVE = os.environ.get("TEST_MODE", "native") == "native"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.skipif(
        not NATIVE or sys.platform != "linux" or os.geteuid() != 0,
        reason="mounts small disks under the native servers: Linux, as root",
    ),
]

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
DISKS = ("object-store/data", "mlflow", "zenml")
CELLS = {"zenml_yolo_tiny_e1_32", "zenml_yolo_tiny_e1_64"}


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own under a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def full(folder: Path) -> Iterator[Path]:
    """Somebody else's file takes all the room; delete it to make some."""
    file = folder / "somebody-elses"
    with file.open("wb") as filler:
        free = shutil.disk_usage(folder).free
        os.posix_fallocate(filler.fileno(), 0, free)
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def disks(checkout: Checkout) -> Iterator[dict[str, Path]]:
    """The stack with each server's data on a disk of its own."""
    native = checkout.root / ".stack" / "native"
    checkout.variables |= {"DATASET": "synthetic", "WEIGHTS": "scratch"}
    (checkout.root / "configs" / "grid_scratch.yaml").write_text(TINY_GRID)
    folders = {name: native / name for name in DISKS}
    with (
        disk(native / DISKS[0], "600m"),
        disk(native / "mlflow", "60m"),
        disk(native / "zenml", "60m"),
    ):
        checkout.make("data")
        yield folders
        checkout.make("down")


@pytest.mark.parametrize("name", DISKS)
def test_nothing_begins_on_a_full_disk(
    checkout: Checkout, disks: dict[str, Path], name: str
) -> None:
    with full(disks[name]):
        said = checkout.make("grid", expect=2)
        assert said.count("error: ") == 1, said
        assert f"the disk of .stack/native/{name} is full (0 MB are free): make room" in said
        assert f"FAIL  only 0 MB are free in {disks[name]}: make room" in checkout.make(
            "doctor", expect=2
        )
    checkout.make("data")


@pytest.mark.parametrize("name", DISKS)
def test_a_training_waits_for_room(checkout: Checkout, disks: dict[str, Path], name: str) -> None:
    """The disk fills up while it trains: it says so, and goes on by itself when there is room."""
    printed: list[str] = []
    with all_cells_finish(checkout):
        grid = checkout.start("make", "grid", "FORCE=1")
        follow(grid, "side by side", printed)
        with full(disks[name]) as file:
            follow(grid, "is full", printed)
            assert "make room, and this goes on by itself; it gives up after 10" in printed[-1]
            file.unlink()
            follow(grid, "there is room again: going on", printed)
            rest, _ = grid.communicate(timeout=600)
        assert grid.returncode == 0, "".join(printed) + rest
    assert {run["body"]["status"] for run in ZenML(checkout).runs()} == {"completed"}


def cells(checkout: Checkout) -> dict[str, dict[str, Any]]:
    """The grid's runs in MLflow, by their ids."""
    runs = MLflow(checkout).runs().get(EXPERIMENT, [])
    return {r["info"]["run_id"]: r for r in runs if r["info"]["run_name"] in CELLS}


@contextmanager
def all_cells_finish(checkout: Checkout) -> Iterator[None]:
    """Meanwhile each of the grid's cells is trained to its end, and once."""
    before = cells(checkout).keys()
    yield
    new = [run["info"] for identity, run in cells(checkout).items() if identity not in before]
    assert {info["run_name"] for info in new} == CELLS
    assert [info["status"] for info in new] == ["FINISHED"] * len(CELLS)


def follow(process: subprocess.Popen[str], text: str, printed: list[str]) -> None:
    """Read what a command says until a line holds ``text``."""
    assert process.stdout is not None
    for line in process.stdout:
        printed.append(line)
        if text in line:
            return
    raise AssertionError(f"never said: {text}\n" + "".join(printed))


def test_checkpoints_on_a_full_disk_are_one_clear_error(
    checkout: Checkout, disks: dict[str, Path]
) -> None:
    asked = ("make", "grid", "FORCE=1", "IMGSZ=32")
    with disk(checkout.root / ".stack" / "native" / "runs", "18m"):
        said = checkout.run(*asked, expect=2)
    assert "FAILED: the disk is full, or your share of it: make room" in said
    assert "Traceback" not in said
    checkout.run(*asked)


# --- Clocks ---------------------------------------------------------------------------------------


def clock(offset: str | Path) -> dict[str, str]:
    """Variables that give the processes that get them another time."""
    if FAKETIME is None:
        pytest.skip("no libfaketime here")
    how = {"FAKETIME": offset} if isinstance(offset, str) else {
        "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_CACHE_DURATION": "1"
    }  # fmt: skip
    return {"LD_PRELOAD": str(FAKETIME)} | how


def at(checkout: Checkout, offset: str | Path) -> Checkout:
    return Checkout(checkout.root, checkout.home, checkout.variables | clock(offset))


@pytest.mark.parametrize("offset", ["+2h", "-2h"])
def test_a_clock_that_is_hours_off_is_named(
    checkout: Checkout, disks: dict[str, Path], offset: str
) -> None:
    there = at(checkout, offset)
    said = there.run("scripts/run-pipeline.sh", "baseline", expect=1)
    assert said.count("error: ") == 1, said
    assert "error: object-store: its clock says" in said
    assert "set the clocks alike" in said
    assert "its clock says" in there.make("doctor", expect=2)


@pytest.mark.parametrize("offset", ["-10m", "+10m"])
def test_a_clock_that_is_minutes_off_does_no_harm(
    checkout: Checkout, disks: dict[str, Path], offset: str
) -> None:
    with all_cells_finish(checkout):
        at(checkout, offset).make("grid", "FORCE=1")


def test_a_clock_that_jumps_while_it_trains_does_no_harm(
    checkout: Checkout, disks: dict[str, Path], tmp_path: Path
) -> None:
    printed: list[str] = []
    (tmp_path / "clock").write_text("+0")
    with all_cells_finish(checkout):
        grid = at(checkout, tmp_path / "clock").start("make", "grid", "FORCE=1")
        follow(grid, "side by side", printed)
        (tmp_path / "clock").write_text("+10m")
        rest, _ = grid.communicate(timeout=600)
        assert grid.returncode == 0, "".join(printed) + rest


# --- Shared memory, and a home that can't be written ----------------------------------------------


def with_mounted(where: str, options: str) -> tuple[str, ...]:
    """The start of a command that alone sees another disk there."""
    mount = f'mount -t tmpfs -o {options} none "{where}" && exec "$@"'
    return ("unshare", "--mount", "bash", "-c", mount, "-")


def test_a_small_dev_shm_is_enough(checkout: Checkout, disks: dict[str, Path]) -> None:
    """As in a container: 64 KB for a grid and for a Ray node of its own."""
    if checkout.root.is_relative_to("/dev/shm"):
        pytest.skip("the temporary folder is in /dev/shm itself: set TMPDIR to another")
    inside = with_mounted("/dev/shm", "size=64k")
    checkout.run(*inside, "make", "grid", "FORCE=1")
    here = address_towards("198.18.0.1:9")  # Ray makes that of 127.0.0.1
    try:
        checkout.run(*inside, "make", "ray-head", f"NODE_ADDRESS={here}", "CPUS=1")
        ran = checkout.make("grid", "FORCE=1", f"RAY_ADDRESS={here}:6379")
        assert "2 cells, 1 side by side" in ran  # the node's one core; this machine has more
    finally:
        checkout.make("ray-stop")


def test_a_home_that_cannot_be_written_is_not_needed(
    checkout: Checkout, disks: dict[str, Path]
) -> None:
    """From the servers' start to what trains: no library keeps anything there."""
    inside = with_mounted("$HOME", "ro")
    for command in ("down", "stack", "data FORCE=1", "grid FORCE=1", "report"):
        checkout.run(*inside, "make", *command.split())


# --- A container without an init ------------------------------------------------------------------


def test_where_nobody_takes_leave_of_the_dead_all_ends_and_starts(
    checkout: Checkout, disks: dict[str, Path]
) -> None:
    """The first process of such a container reaps nothing: who is dead stays as a zombie."""
    checkout.make("down")
    first = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    inside = ("unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", first)
    began = time.monotonic()
    every = "make up && make status && make down && make up && make down"
    checkout.run(*inside, "bash", "-c", every, timeout=300)
    print(f"{time.monotonic() - began:.0f} s")
    checkout.make("up")


# --- Many clients ---------------------------------------------------------------------------------

CLIENT = """
import json, logging, sys, time
from zenml import pipeline, step
import mlflow
number, runs = int(sys.argv[1]), int(sys.argv[2])

@step(experiment_tracker="mlflow_tracker", enable_cache=False)
def measure(value: int) -> int:
    began = time.monotonic()
    mlflow.log_metric("value", value)
    own.append(time.monotonic() - began)
    return value

@pipeline(enable_cache=False)
def many(value: int):
    measure(value)

took, own = [], []
for index in range(runs):
    began = time.monotonic()
    many.with_options(run_name=f"many-{number}-{index}")(value=index)
    took.append(time.monotonic() - began)
print(json.dumps([took, own]))
"""


def test_twenty_clients_and_two_hundred_runs_lose_nothing(
    checkout: Checkout, disks: dict[str, Path], tmp_path: Path
) -> None:
    clients, each = 20, 10
    (tmp_path / "many.py").write_text(CLIENT)
    command = ("scripts/run-client.sh", "python", str(tmp_path / "many.py"))
    started = [checkout.start(*command, str(number), str(each)) for number in range(clients)]
    took: list[float] = []
    overhead: list[float] = []  # of a step and its run: what is not the step's own code
    for client in started:
        printed, _ = client.communicate(timeout=3000)
        assert client.returncode == 0, printed[-3000:]
        assert "locked" not in printed
        runs_took, own = json.loads(printed.strip().splitlines()[-1])
        took += runs_took
        overhead += [whole - part for whole, part in zip(runs_took, own, strict=True)]
    names = {f"many-{number}-{index}" for number in range(clients) for index in range(each)}
    total = clients * each
    zenml = ZenML(checkout)
    pages = [
        zenml.get("runs", project="default", size=100, page=page, name="startswith:many-")
        for page in (1, 2)
    ]
    runs = [run for page in pages for run in page["items"]]
    assert {run["name"] for run in runs} == names
    assert {run["body"]["status"] for run in runs} == {"completed"}
    tracked = MLflow(checkout).post(
        "runs/search", max_results=1000,
        experiment_ids=[MLflow(checkout).get("experiments/get-by-name", experiment_name="many")[
            "experiment"]["experiment_id"]],
    )["runs"]  # fmt: skip
    assert len(tracked) == total
    assert {run["info"]["status"] for run in tracked} == {"FINISHED"}
    for what, seconds in (("a run", took), ("its step's overhead", overhead)):
        median, p95 = (sorted(seconds)[int(total * share)] for share in (0.5, 0.95))
        print(f"{total} runs of {clients} clients: {what} median {median:.1f} s, p95 {p95:.1f} s")


# --- Many runs ------------------------------------------------------------------------------------


def test_a_thousand_runs_slow_nothing_down(checkout: Checkout, disks: dict[str, Path]) -> None:
    """`make status` and a repeated `make report` beside a thousand trainings of other days."""
    checkout.make("grid")
    checkout.make("report")
    mlflow = MLflow(checkout)
    model = next(iter(cells(checkout).values()))
    tags = [tag for tag in model["data"]["tags"] if tag["key"] != "mlflow.runName"]
    took = {"before": timed(checkout)}
    for number in range(1000):
        run = mlflow.post(
            "runs/create", experiment_id=model["info"]["experiment_id"], start_time=number,
            run_name=f"zenml_yolo_tiny_e9_{number}", tags=tags,
        )["run"]["info"]["run_id"]  # fmt: skip
        mlflow.post(
            "runs/log-batch", run_id=run, metrics=model["data"]["metrics"],
            params=model["data"]["params"],
        )  # fmt: skip
        mlflow.post("runs/update", run_id=run, status="FINISHED", end_time=number + 1)
    took["after"] = timed(checkout)
    print(took)
    assert took["after"]["status"] < 5
    assert took["after"]["report"] < max(5, 1.5 * took["before"]["report"])


def timed(checkout: Checkout) -> dict[str, float]:
    """How long each takes, in seconds: the shorter of two."""
    took = {}
    for target in ("status", "report"):
        tries = []
        for _ in range(2):
            began = time.monotonic()
            checkout.make(target)
            tries.append(round(time.monotonic() - began, 1))
        took[target] = min(tries)
    return took
