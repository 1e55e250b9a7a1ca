"""Run the pipeline for every cell of the grid (``configs/grid*.yaml``), side by side."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from src import mlflow_pages
from src.errors import UserError, keep
from src.settings import ROOT
from src.training.recipes import Cell, read_grid
from src.training.scaling import auto_here
from src.training.scoring import SCORES
from src.zenml_pipelines import cluster, grid_workers
from src.zenml_pipelines.command_line import Job, run
from src.zenml_pipelines.grid_record import apart, claimed, end, plan, resume
from src.zenml_pipelines.outcome import Failed, Finished, Outcome
from src.zenml_pipelines.progress import Progress
from src.zenml_pipelines.runner import Runner


class CellsFailedError(UserError):
    """Some cells have failed; the message has a line for each reason."""


def grid(job: Job) -> int:
    """Train what the cache lacks and print a table.

    Raises:
        CellsFailedError: When a cell has failed, after all others have ended.
    """
    name = job.grid or f"configs/grid{job.inputs.recipe_suffix}.yaml"
    path = ROOT / name
    cells = read_grid(path, job.overrides, auto_here(job.inputs))
    record, done = apart(resume, job.settings, plan(job, path, cells), afresh=job.force)
    missing = [cell for cell in cells if cell.run_name not in done]
    progress = Progress(cells)
    for cell in cells:
        if found := done.get(cell.run_name):
            progress.on_outcome(cell, Finished(found[0], True, 0.0, found[1]))
    if missing:
        runner: Runner = cluster if job.ray_address else grid_workers
        jobs = min(job.jobs or runner.connect(job), len(missing))
        count = "1 cell" if len(missing) == 1 else f"{len(missing)} cells, {jobs} side by side"
        print(f"{name}: {count}", file=sys.stderr)
        with claimed(job.settings, record.tag):
            status = "KILLED"
            try:
                runner.run_cells(missing, job, jobs, [record.tag], progress)
                failed = any(isinstance(o, Failed) for o in progress.outcomes.values())
                status = "FAILED" if failed else "FINISHED"
            finally:
                apart(end, record.tag, status)
    else:
        print(f"{name}: nothing is missing", file=sys.stderr)
    Console(width=None if sys.stdout.isatty() else 120).print(_table(cells, progress.outcomes))
    _say_where(job, progress.outcomes)
    _require_success(cells, progress.outcomes)
    return 0


def _say_where(job: Job, done: Mapping[str, Outcome]) -> None:
    """Print where the finished runs can be compared."""
    results = [outcome.result for outcome in done.values() if isinstance(outcome, Finished)]
    if results:
        experiment = mlflow_pages.experiment_of(results[0]["mlflow_url"])
        runs = [result["mlflow_run_id"] for result in results]
        print(f"runs      {mlflow_pages.experiment(job.settings, experiment)}")
        if len(runs) > 1:
            print(f"compared  {mlflow_pages.compare(job.settings, experiment, runs)}")
        print("next      make report")


def _require_success(cells: list[Cell], done: Mapping[str, Outcome]) -> None:
    failed = {name: outcome for name, outcome in done.items() if isinstance(outcome, Failed)}
    if not failed:
        return
    causes: dict[str, list[str]] = {}
    for name, outcome in failed.items():
        causes.setdefault(outcome.reason, []).append(name)
    lines = [f"{', '.join(names)}: {reason}" for reason, names in causes.items()]
    traces = "\n".join(f"{name}\n{o.trace}" for name, o in failed.items() if o.trace)
    if traces:
        lines.append(keep(traces))
    count = f"{len(failed)} of {len(cells)} cells failed; the same command runs only those again"
    raise CellsFailedError("\n".join((count, *lines)))


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
