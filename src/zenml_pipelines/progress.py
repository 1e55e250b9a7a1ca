"""Shows how the cells of a grid get on: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich import progress
from rich.console import Console

from src.training.recipes import Cell
from src.zenml_pipelines.outcome import Epoch, Failed, Finished, Outcome


class Progress:
    """A bar for each cell (epoch, mAP50, time left), or a line for each event."""

    def __init__(self, cells: list[Cell]) -> None:
        """Make the bars; nothing is shown before the ``with`` block, which starts a thread."""
        self.outcomes: dict[str, Outcome] = {}  # by the cells' run names
        self._count = len(cells)
        console = Console(stderr=True)
        self._live = console.is_terminal and not console.is_dumb_terminal
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[note]}"),
            progress.TimeRemainingColumn(),
            console=console,
            disable=not self._live,
        )
        self._tasks = {
            cell.run_name: self._bars.add_task(
                cell.run_name, total=cell.recipe["epochs"], start=False, note="waiting"
            )
            for cell in cells
        }

    def __enter__(self) -> Self:
        """Start to show."""
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the last state on the terminal."""
        self._bars.stop()

    def on_epoch(self, event: Epoch) -> None:
        """Show a finished epoch."""
        task = self._tasks[event.run_name]
        if not self._bars.tasks[task].started:
            self._bars.start_task(task)
        self._bars.update(task, completed=event.epoch, note=f"mAP50 {event.score:.4f}")
        self._say(f"{event.run_name}: epoch {event.epoch}/{event.epochs}, mAP50 {event.score:.4f}")

    def on_outcome(self, cell: Cell, outcome: Outcome) -> None:
        """Show how a cell ended."""
        self.outcomes[cell.run_name] = outcome
        task = self._tasks[cell.run_name]
        if isinstance(outcome, Finished):
            how = "from the cache" if outcome.cached else f"{outcome.seconds:.0f} s"
            note = f"mAP50 {outcome.result['metrics']['mAP50']:.4f} ({how})"
            self._bars.update(task, completed=cell.recipe["epochs"], note=note)
        else:
            note = f"FAILED: {outcome.reason}" if isinstance(outcome, Failed) else "stopped"
            self._bars.update(task, note=note.splitlines()[0])
        self._bars.stop_task(task)
        self._say(f"[{len(self.outcomes)}/{self._count}] {cell.run_name}: {note}")

    def on_interrupt(self) -> None:
        """Say what Ctrl-C has begun."""
        self._bars.console.print("stopping: the cells mark their runs (Ctrl-C again kills them)")

    def _say(self, line: str) -> None:
        if not self._live:
            print(line, flush=True)
