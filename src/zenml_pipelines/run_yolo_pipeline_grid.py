"""Run the pipeline for every cell of the grid (``configs/grid*.yaml``), one after the other."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.table import Table

from src.recipes import Cell, read_grid
from src.settings import ROOT
from src.summary import SCORES
from src.zenml_pipelines.command_line import Job, run


def grid(job: Job) -> int:
    """Train what the cache lacks and print a table; 1 when a cell has failed."""
    cells = read_grid(ROOT / "configs" / f"grid{job.inputs.recipe_suffix}.yaml", job.overrides)
    from src.zenml_pipelines.yolo_training_pipeline import Finished, run_cell

    done: dict[str, Finished | Exception] = {}
    for number, cell in enumerate(cells, start=1):
        started = time.monotonic()
        try:
            outcome = run_cell(cell, job.inputs, job.dataset_md5, force=job.force)
        except Exception as error:  # noqa: BLE001 - one cell's failure must not end the others
            done[cell.run_name] = error
            print(f"[{number}/{len(cells)}] {cell.run_name}: FAILED: {error}", file=sys.stderr)
            continue
        done[cell.run_name] = outcome
        how = "from the cache" if outcome.cached else f"{time.monotonic() - started:.0f} s"
        score = outcome.result["metrics"]["mAP50"]
        print(f"[{number}/{len(cells)}] {cell.run_name}: mAP50 {score:.4f} ({how})")
    _print_table(cells, done)
    failed = [name for name, outcome in done.items() if isinstance(outcome, Exception)]
    if failed:
        print(f"error: {len(failed)} of {len(cells)} cells failed: {', '.join(failed)}; the same "
              "command runs only those again", file=sys.stderr)  # fmt: skip
    return int(bool(failed))


def _print_table(cells: list[Cell], done: dict[str, object]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("run", *SCORES, "untrained mAP50", "training s"):
        table.add_column(column, justify="left" if column == "run" else "right", no_wrap=True)
    for cell in cells:
        outcome = done[cell.run_name]
        if isinstance(outcome, Exception):
            table.add_row(cell.run_name, "failed")
            continue
        result = outcome.result  # type: ignore[attr-defined]
        untrained = result["untrained"]
        table.add_row(
            cell.run_name,
            *(f"{result['metrics'][score]:.4f}" for score in SCORES),
            f"{untrained['mAP50']:.4f}" if untrained else "",
            f"{result['training_seconds']:.1f}",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    sys.exit(run(grid, __doc__ or ""))
