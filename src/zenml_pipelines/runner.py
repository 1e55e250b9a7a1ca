"""The contract of whatever runs the cells of a grid: ``grid_workers`` and ``cluster`` keep it."""

from __future__ import annotations

from typing import Protocol

from src.training.recipes import Cell
from src.zenml_pipelines.command_line import Job
from src.zenml_pipelines.progress import Progress


class Runner(Protocol):
    """A place where cells run side by side; a module with these two functions is one."""

    def connect(self, job: Job) -> int:
        """Prove that cells can run there; return how many fit side by side.

        Raises:
            NotReady: When they can't; the message says what to do.
        """

    def run_cells(
        self, cells: list[Cell], job: Job, jobs: int, tags: list[str], progress: Progress
    ) -> None:
        """Run the cells, the longest first, ``jobs`` at a time; ``connect`` first.

        Tells ``progress`` of each epoch, and once of each cell how it ended. A cell that fails
        ends no other.

        Raises:
            KeyboardInterrupt: After Ctrl-C, when every run that was begun is marked as stopped.
        """
