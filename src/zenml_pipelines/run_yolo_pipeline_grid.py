"""Run the pipeline for every cell of the grid (``configs/grid*.yaml``), side by side."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from src.settings import ROOT
from src.training.recipes import Cell, read_grid
from src.training.trainer import SCORES
from src.zenml_pipelines import cluster, grid_workers
from src.zenml_pipelines.command_line import Job, run
from src.zenml_pipelines.outcome import Failed, Finished, Outcome
from src.zenml_pipelines.progress import Progress


def grid(job: Job) -> int:
    """Train what the cache lacks and print a table; 1 when a cell has failed."""
    path = ROOT / (job.grid or f"configs/grid{job.inputs.recipe_suffix}.yaml")
    cells = read_grid(path, job.overrides)
    run_cells, fitting = grid_workers.run_cells, grid_workers.default_jobs(len(cells))
    if job.ray_address:
        run_cells, fitting = cluster.run_cells, cluster.connect(job)
    jobs = min(job.jobs or fitting, len(cells))
    # What `make report` finds the cells of this grid by.
    tags = [f"grid-{path.stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"]
    print(f"{len(cells)} cells, {jobs} side by side", file=sys.stderr)
    progress = Progress(cells)
    run_cells(cells, job, jobs, tags, progress)
    Console(width=None if sys.stdout.isatty() else 120).print(_table(cells, progress.outcomes))
    failed = [name for name, outcome in progress.outcomes.items() if isinstance(outcome, Failed)]
    if failed:
        print(
            f"error: {len(failed)} of {len(cells)} cells failed: {', '.join(failed)}; "
            "the same command runs only those again",
            file=sys.stderr,
        )
    return int(bool(failed))


def _table(cells: list[Cell], done: Mapping[str, Outcome]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("run", *SCORES, "untrained mAP50", "training s"):
        table.add_column(column, justify="left" if column == "run" else "right", no_wrap=True)
    for cell in cells:
        outcome = done[cell.run_name]
        if not isinstance(outcome, Finished):
            table.add_row(cell.run_name, "failed")
            continue
        result = outcome.result
        untrained = result["untrained"]
        table.add_row(
            cell.run_name,
            *(f"{result['metrics'][score]:.4f}" for score in SCORES),
            f"{untrained['mAP50']:.4f}" if untrained else "",
            f"{result['training_seconds']:.1f}",
        )
    return table


if __name__ == "__main__":
    sys.exit(run(grid, __doc__ or "", for_grid=True))
