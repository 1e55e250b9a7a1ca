"""Runs cells side by side, each slot in a process of its own, on this machine.

Nothing listens: parent and workers talk through pipes. A worker imports ZenML and PyTorch once for
all its cells; one that dies takes only its cell with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psutil

from src.recipes import Cell
from src.settings import Settings
from src.zenml_pipelines.command_line import Job
from src.zenml_pipelines.outcome import Failed, Outcome, Stopped

MEMORY_PER_CELL = 1.5e9  # bytes; a training of YOLOv8n at 416 px takes 1.1e9
POLL = 0.2  # seconds between two looks at the workers' progress


@dataclass(frozen=True)
class Epoch:
    """What a worker says after each epoch."""

    run_name: str
    epoch: int
    epochs: int
    score: float  # mAP50


def default_jobs(cells: int) -> int:
    """Return how many cells fit side by side: one for each GPU, else for each CPU core."""
    fitting = int(psutil.virtual_memory().available / MEMORY_PER_CELL)
    return max(1, min(cells, _gpus() or min(os.cpu_count() or 1, fitting)))


def run_cells(
    cells: list[Cell],
    job: Job,
    jobs: int,
    tags: list[str],
    on_epoch: Callable[[Epoch], None],
    on_outcome: Callable[[Cell, Outcome], None],
) -> None:
    """Run the cells, the longest first, ``jobs`` at a time.

    Raises:
        KeyboardInterrupt: After Ctrl-C, when every worker has marked its run and ended.
    """
    context = multiprocessing.get_context("spawn")
    stop, progress = context.Event(), context.SimpleQueue()
    gpus = _gpus()

    def new_slot(number: int) -> ProcessPoolExecutor:
        device = str(number % gpus) if gpus else None
        return ProcessPoolExecutor(1, context, _prepare, (job.settings, stop, progress, device))

    waiting = sorted(cells, key=lambda cell: cell.cost, reverse=True)
    slots = [new_slot(number) for number in range(jobs)]
    running: dict[Future[Outcome], tuple[int, Cell]] = {}
    interrupted = False
    try:
        while running or (waiting and not interrupted):
            try:
                busy = {number for number, _ in running.values()}
                for number in sorted(set(range(jobs)) - busy):
                    if waiting and not interrupted:
                        cell = waiting.pop(0)
                        running[slots[number].submit(_work, cell, job, tags)] = (number, cell)
                finished, _ = wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
                while not progress.empty():
                    on_epoch(progress.get())
                for future in finished:
                    number, cell = running.pop(future)
                    try:
                        outcome = future.result()
                    except BrokenProcessPool:
                        outcome = Failed("its process was killed (out of memory?)")
                        slots[number] = new_slot(number)
                    on_outcome(cell, outcome)
            except KeyboardInterrupt:
                interrupted = True
                stop.set()
    finally:
        stop.set()
        for slot in slots:
            slot.shutdown(cancel_futures=True)
    if interrupted:
        raise KeyboardInterrupt


def _gpus() -> int:
    """Return the number of Nvidia GPUs, without paying for PyTorch's import."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


def _prepare(
    settings: Settings, stop: Event, progress: SimpleQueue[Epoch], device: str | None
) -> None:
    """Make this process a worker: quiet, ended with its parent, stopped by the event alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which sets `stop`
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Before NumPy and PyTorch are imported: a cell that spins on two cores slows its neighbour.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    # What a step prints still goes to its log: ZenML wraps this stream.
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - open for the process's life
    from src import train_cv
    from src.settings import use_stack

    use_stack(settings)

    def report(run_name: str, epoch: int, epochs: int, values: dict[str, Any]) -> None:
        progress.put(Epoch(run_name, epoch, epochs, values["mAP50"]))

    train_cv.WATCH.on_epoch = report
    train_cv.WATCH.stopped = stop.is_set


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os._exit(1)


def _work(cell: Cell, job: Job, tags: list[str]) -> Outcome:
    from src.zenml_pipelines.yolo_training_pipeline import run_cell

    try:
        return run_cell(cell, job.inputs, job.dataset_md5, force=job.force, tags=tags)
    except KeyboardInterrupt:
        return Stopped()
    except Exception as error:  # noqa: BLE001 - one cell's failure must not end the others
        return Failed(f"{type(error).__name__}: {error}")
