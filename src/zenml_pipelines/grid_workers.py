"""Runs cells side by side, each slot in a process of its own, on this machine.

Nothing listens, and nothing has a name that a killed grid could leave behind: parent and workers
talk through pipes. A worker that dies takes only its cell with it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from src import machine
from src.client import use_stack
from src.services.outage import patience
from src.training import memory
from src.training.devices import visible as _gpus
from src.training.recipes import Cell
from src.zenml_pipelines.command_line import Job
from src.zenml_pipelines.outcome import Epoch, Failed, Finished, outcome_of
from src.zenml_pipelines.progress import Progress

PRELOADED = ("torchvision", "ultralytics", "zenml", "matplotlib.pyplot")  # 4 s, and no threads


@dataclass
class Slot:
    """A worker, the pipe to it, and the cell that it works on."""

    process: BaseProcess
    pipe: Connection
    cell: Cell | None = None

    def tell(self, message: Cell | None) -> None:
        """Give the worker its next cell; None means that there is none, and to stop."""
        with suppress(ConnectionError):  # it has died: the pipe's other direction says so
            self.pipe.send(message)


def connect(job: Job) -> int:
    """Return how many cells fit side by side on this machine; it is always ready."""
    return default_jobs()


def default_jobs(cells: int = sys.maxsize) -> int:
    """Return how many cells fit side by side: one for each GPU, else for each CPU core."""
    return max(1, min(cells, len(_gpus()) or min(machine.cores(), memory.fitting())))


def run_cells(cells: list[Cell], job: Job, jobs: int, tags: list[str], progress: Progress) -> None:
    """Run the cells, the longest first, ``jobs`` at a time.

    Ctrl-C has every worker mark its run and end; once more kills those that can't.

    Raises:
        KeyboardInterrupt: After Ctrl-C, when every worker has ended.
    """
    waiting = sorted(cells, key=lambda cell: cell.cost, reverse=True)
    slots: list[Slot] = []
    interrupted = False
    pressed, press = multiprocessing.Pipe(duplex=False)
    # Ctrl-C as a message, not as an exception, which could come in the middle of another message.
    before = signal.signal(signal.SIGINT, lambda *_: press.send(None))
    try:
        slots += [_start(number, job, tags, jobs) for number in range(jobs)]
        with progress, patience(job.settings):
            while True:
                if pressed.poll():
                    pressed.recv()
                    for slot in slots:
                        slot.process.kill() if interrupted else slot.tell(None)
                    interrupted = True
                    waiting.clear()
                    progress.on_interrupt()
                for slot in slots:
                    if slot.cell is None and waiting:
                        slot.cell = waiting.pop(0)
                        slot.tell(slot.cell)
                busy = [slot.pipe for slot in slots if slot.cell]
                if not busy:
                    break
                ready = wait([*busy, pressed])
                for number, slot in enumerate(slots):
                    if slot.cell is None or slot.pipe not in ready:
                        continue
                    try:
                        said = slot.pipe.recv()
                    except (ConnectionError, EOFError):
                        guess = "" if interrupted else " (out of memory?)"
                        said = Failed(f"its process was killed{guess}")
                        if waiting:
                            slots[number] = _start(number, job, tags, jobs)
                    if isinstance(said, Epoch):
                        progress.on_epoch(said)
                    else:
                        cell, slot.cell = slot.cell, None
                        progress.on_outcome(cell, said)
    finally:
        for slot in slots:
            slot.tell(None)
        for slot in slots:
            slot.process.join()
        signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt


def _start(number: int, job: Job, tags: list[str], jobs: int) -> Slot:
    gpus = _gpus()
    way = context(gpus)
    ours, theirs = way.Pipe()
    process = way.Process(
        target=_work, args=(theirs, job, tags, jobs, gpus[number % len(gpus)] if gpus else None)
    )
    process.start()
    theirs.close()
    return Slot(process, ours)


def context(gpus: Sequence[str] | None = None) -> ForkContext | SpawnContext:
    """Return how to start a worker: as a fork that has PyTorch and ZenML already, where it may be.

    No fork survives CUDA, threads of its parent, or macOS' libraries. MLflow is left to the
    workers, because it starts Polars' threads.
    """
    gpus = _gpus() if gpus is None else gpus
    if sys.platform != "linux" or gpus or psutil.Process().num_threads() > 1:
        return multiprocessing.get_context("spawn")
    for module in PRELOADED:
        import_module(module)
    gc.freeze()  # else each collection would look at all that again, and write to shared pages
    return multiprocessing.get_context("fork")


def _work(pipe: Connection, job: Job, tags: list[str], jobs: int, device: str | None) -> None:
    """Be a worker: quiet, ended with its parent, stopped by a message alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to take
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    # Not by a new sys.stdout: ZenML takes what a step prints for its log from the one that it wraps
    # on import, which a fork has behind it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    use_stack(job.settings)
    from src.training.trainer import WATCH

    def report(run_name: str, epoch: int, epochs: int, values: dict[str, Any]) -> None:
        pipe.send(Epoch(run_name, epoch, epochs, values["mAP50"]))

    WATCH.on_epoch = report
    WATCH.stopped = pipe.poll
    WATCH.side_by_side = jobs
    while (cell := pipe.recv()) is not None:
        pipe.send(outcome_of(partial(_run, cell, job, tags)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _run(cell: Cell, job: Job, tags: list[str]) -> Finished:
    from src.zenml_pipelines.yolo_training_pipeline import run_cell

    return run_cell(cell, job.inputs, job.dataset_md5, force=job.force, tags=tags)
