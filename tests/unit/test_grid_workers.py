"""Cells side by side on one machine: their order, their failures, and Ctrl-C."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkContext
from pathlib import Path
from types import ModuleType

import pytest

from src.inputs import SCRATCH, Inputs
from src.settings import Settings
from src.training.recipes import Cell
from src.training.trainer import WATCH
from src.zenml_pipelines import grid_workers
from src.zenml_pipelines.command_line import Job
from src.zenml_pipelines.grid_workers import run_cells
from src.zenml_pipelines.outcome import Failed, Finished, Stopped
from src.zenml_pipelines.progress import Progress

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the workers here are forks")

RunCell = Callable[..., Finished]


def cell(name: str, epochs: int = 1) -> Cell:
    return Cell(name, {"epochs": epochs, "imgsz": 320})


def finished(cell: Cell) -> Finished:
    return Finished({"metrics": {"mAP50": 0.5}, "pid": os.getpid()}, False, 0.1, "http://zenml/1")


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline


def press_after(*files: Path) -> None:
    for file in files:
        wait_until(file.exists)
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def job(settings: Settings) -> Job:
    asked = ("synthetic", SCRATCH, "file:///none")
    inputs = Inputs(
        settled_for=asked, dataset="synthetic", weights=SCRATCH, weights_sha256=SCRATCH, notices=[]
    )
    return Job(settings, inputs, "0123.dir", {}, False)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[RunCell], None]]:
    """Return a function that says what the workers, forks of this process, run a cell with."""
    monkeypatch.setattr(grid_workers, "_gpus", list)
    monkeypatch.setattr(grid_workers, "context", lambda gpus: multiprocessing.get_context("fork"))
    monkeypatch.setattr(grid_workers, "use_stack", lambda settings: None)

    def use(run_cell: RunCell) -> None:
        module = ModuleType("src.zenml_pipelines.yolo_training_pipeline")
        module.run_cell = lambda cell, *_, **__: run_cell(cell)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)

    yield use
    assert multiprocessing.active_children() == []


def test_the_longest_goes_first_and_a_worker_serves_many(
    job: Job, pipeline: Callable[[RunCell], None]
) -> None:
    pipeline(finished)
    progress = Progress(cells := [cell("short", 1), cell("long", 9), cell("middle", 3)])
    run_cells(cells, job, 1, [], progress)
    assert list(progress.outcomes) == ["long", "middle", "short"]
    outcomes = progress.outcomes.values()
    assert len({o.result["pid"] for o in outcomes if isinstance(o, Finished)}) == 1


def test_an_error_fails_its_cell_alone(job: Job, pipeline: Callable[[RunCell], None]) -> None:
    def run_cell(cell: Cell) -> Finished:
        if cell.run_name == "wrong":
            raise ValueError("no such file")
        return finished(cell)

    pipeline(run_cell)
    progress = Progress(cells := [cell("wrong", 9), cell("right")])
    run_cells(cells, job, 1, [], progress)
    assert progress.outcomes["wrong"] == Failed("ValueError: no such file")
    assert isinstance(progress.outcomes["right"], Finished)


def test_a_killed_worker_is_replaced(job: Job, pipeline: Callable[[RunCell], None]) -> None:
    def run_cell(cell: Cell) -> Finished:
        if cell.run_name == "greedy":
            os.kill(os.getpid(), signal.SIGKILL)
        return finished(cell)

    pipeline(run_cell)
    progress = Progress(cells := [cell("greedy", 9), cell("modest")])
    run_cells(cells, job, 1, [], progress)
    assert progress.outcomes["greedy"] == Failed("its process was killed (out of memory?)")
    assert isinstance(progress.outcomes["modest"], Finished)


def test_ctrl_c_stops_what_runs_and_begins_nothing_more(
    job: Job, pipeline: Callable[[RunCell], None], tmp_path: Path
) -> None:
    begun = tmp_path / "begun"

    def run_cell(cell: Cell) -> Finished:
        begun.touch()
        wait_until(WATCH.stopped)
        raise KeyboardInterrupt

    pipeline(run_cell)
    before = signal.getsignal(signal.SIGINT)
    progress = Progress(cells := [cell("first", 9), cell("second")])
    threading.Thread(target=press_after, args=[begun]).start()
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, job, 1, [], progress)
    assert progress.outcomes == {"first": Stopped()}
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_again_ends_a_worker_that_does_not_stop(
    job: Job, pipeline: Callable[[RunCell], None], tmp_path: Path
) -> None:
    begun, stopping = tmp_path / "begun", tmp_path / "stopping"

    def run_cell(cell: Cell) -> Finished:
        begun.touch()
        wait_until(WATCH.stopped)
        stopping.touch()
        signal.pause()
        return finished(cell)

    pipeline(run_cell)
    progress = Progress(cells := [cell("stuck", 9), cell("second")])
    threading.Thread(target=press_after, args=[begun, stopping]).start()
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, job, 1, [], progress)
    assert progress.outcomes == {"stuck": Failed("its process was killed")}


def test_ctrl_c_before_the_first_cell_begins_none(
    job: Job, pipeline: Callable[[RunCell], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_and_press(gpus: int) -> ForkContext:
        os.kill(os.getpid(), signal.SIGINT)
        return multiprocessing.get_context("fork")

    pipeline(finished)
    monkeypatch.setattr(grid_workers, "context", start_and_press)
    progress = Progress(cells := [cell("first"), cell("second")])
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, job, 2, [], progress)
    assert progress.outcomes == {}


def test_each_worker_gets_one_of_the_gpus_that_were_given(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = []

    class Way:
        Pipe = staticmethod(multiprocessing.Pipe)

        @staticmethod
        def Process(target: object, args: tuple[object, ...]) -> multiprocessing.Process:
            devices.append(args[-1])
            return multiprocessing.Process(target=str)

    monkeypatch.setattr(grid_workers, "_gpus", lambda: ["2", "GPU-8f2a"])
    monkeypatch.setattr(grid_workers, "context", lambda gpus: Way)
    for number in range(3):
        grid_workers._start(number, job, [], 3).process.join()
    assert devices == ["2", "GPU-8f2a", "2"]
    assert grid_workers.default_jobs() == 2
