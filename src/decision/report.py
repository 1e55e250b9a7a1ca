"""A grid's report: what was compared, what was decided, as Markdown and as one HTML page."""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path

import mlflow
from markdown_it import MarkdownIt
from mlflow import MlflowClient

from src import mlflow_pages, pages
from src.champion import registry
from src.datasets import FOLDER, SET, sets
from src.datasets.manifest import LAYOUT_FILE, NOTICES, class_names
from src.decision import gate
from src.decision.comparison import Comparison, compare
from src.decision.statistics import Grid, ReportedCell, ReportedRun, analyse, points, varying
from src.errors import UserError
from src.settings import ROOT, Settings
from src.training.classes import metric_names
from src.training.scoring import SCORES, Matches
from src.training.tracking import MATCHES
from src.zenml_pipelines import grid_record
from src.zenml_pipelines.grid_record import GridRecord

REPORTS = ROOT / "reports"
TEMPLATE = "decision_template_zenml.md"


class ReportError(UserError):
    """There is nothing to report on; the message says what to run."""


def collect(settings: Settings, record: GridRecord) -> Grid:
    """Return a grid's finished runs, and why each of the others is missing.

    Raises:
        ReportError: When none has finished.
    """
    cells: dict[str, list[ReportedRun]] = {}
    planned: dict[str, int] = {}
    missing = []
    states = grid_record.states(settings, record)
    for cell in record.cells:
        group = cell.run_name.removesuffix(f"_s{cell.recipe['seed']}")
        planned[group] = planned.get(group, 0) + 1
        state = states[cell.run_name]
        if state.state != "finished":
            missing.append(f"{cell.run_name} ({_why(state.state)})")
            continue
        tracked = MlflowClient().get_run(state.mlflow_run)
        page = mlflow_pages.run(settings, tracked.info.experiment_id, state.mlflow_run)
        run = ReportedRun(tracked, state.zenml_url, page)
        cells.setdefault(group, []).append(run)
    if not cells:
        raise ReportError(f"no run of {record.tag} has finished: make grid")
    return Grid(
        record.name,
        [ReportedCell(name, runs, planned=planned[name]) for name, runs in sorted(cells.items())],
        missing,
        tag=record.tag,
        plan={
            "Grid": f"`{record.tag}`, {len(record.cells)} runs planned",
            "Versions": ", ".join(f"{name} {v}" for name, v in record.versions.items()),
            "Threads": record.threads,
        },
    )


def _why(state: str) -> str:
    return {"deleted": "its run was deleted in MLflow", "running": "not finished"}.get(state, state)


@cache
def matches_of(run_id: str) -> Matches:
    """Return which boxes of a run hit on the validation split."""
    with tempfile.TemporaryDirectory() as folder:
        return Matches.load(
            Path(
                mlflow.artifacts.download_artifacts(
                    run_id=run_id, artifact_path=MATCHES, dst_path=folder
                )
            )
        )


@cache
def _compared(first: str, second: str) -> Comparison:
    return compare(matches_of(first), matches_of(second))


def compare_runs(first: ReportedRun, second: ReportedRun) -> Comparison:
    """Compare two runs on the validation split."""
    return _compared(first.tracked.info.run_id, second.tracked.info.run_id)


def draw(grid: Grid, verdict: gate.Verdict, folder: Path) -> None:
    """Write the plots into ``folder``."""
    from src.decision import plots  # Matplotlib is not for a report that only repeats one

    folder.mkdir(parents=True, exist_ok=True)
    plots.pareto(points(grid), folder / "pareto.png")
    plots.curves(
        {cell.name: [_curve(run) for run in cell.runs] for cell in grid.cells},
        folder / "curves.png",
    )
    axes = varying(grid.cells)
    plots.heatmap(
        [({axis: cell.params[axis] for axis in axes}, cell.mean("mAP50")) for cell in grid.cells],
        axes,
        folder / "heatmap.png",
    )
    compared = [(row.name, row.against) for row in verdict.rows if row.against]
    if compared:
        plots.interval(
            [(name, found.low, found.difference, found.high) for name, found in compared],
            folder / "interval.png",
        )
    classes = by_class(grid)
    if len(classes) > 1:
        plots.class_heatmap(classes, [cell.name for cell in grid.cells], folder / "classes.png")
    worst = min(grid.cells, key=lambda cell: cell.mean("mAP50"))
    with tempfile.TemporaryDirectory() as temporary:
        pictures = {}
        for label, cell in (("best", grid.best), ("worst", worst)):
            pictures[f"{label}: {cell.name}"] = Path(
                mlflow.artifacts.download_artifacts(
                    run_id=cell.middle.tracked.info.run_id,
                    artifact_path="val_batch0_pred.jpg",
                    dst_path=str(Path(temporary) / label),
                )
            )
        plots.side_by_side(pictures, folder / "predictions.png")


def _curve(run: ReportedRun) -> list[float]:
    """Return mAP50 after each epoch that was trained; the final score is of the best of them."""
    found: dict[int, float] = {}
    for point in MlflowClient().get_metric_history(run.tracked.info.run_id, "mAP50"):
        found.setdefault(point.step, point.value)
    return [found[step] for step in sorted(found)]


def by_class(grid: Grid) -> dict[str, list[float | None]]:
    """Return each class's mAP50 on validation in each cell, the mean over its seeds."""
    if not (FOLDER / LAYOUT_FILE).is_file():
        return {}
    return {
        title: [cell.mean(metric) if cell.values(metric) else None for cell in grid.cells]
        for title, metric in metric_names(class_names(FOLDER)).items()
    }


def write(
    grid: Grid, verdict: gate.Verdict, folder: Path, today: date, incomplete: str = ""
) -> str:
    """Write ``report.md`` and ``report.html`` beside the plots; return the Markdown."""
    runs = [run for cell in grid.cells for run in cell.runs]
    tags = [dict(run.tracked.data.tags) for run in runs]
    shared = {
        name: value
        for name, value in grid.cells[0].params.items()
        if name not in (*varying(grid.cells), "seed", "model")
    }
    found = {
        "Weights at the start": lambda t: f"{t['weights']}, SHA-256 `{t['weights_sha256'][:16]}`",
        "Git commit": lambda t: f"`{t['git_commit']}`",
        "Machine": lambda t: t.get("machine", "unknown"),
    }
    facts = {name: _each(runs, tags, shown) for name, shown in found.items()} | dict(grid.plan)
    text = pages.render(
        TEMPLATE,
        grid=grid.name,
        date=today.isoformat(),
        runs=runs,
        seeds=max(len(cell.runs) for cell in grid.cells),
        cells=[replace(cell, best=cell is grid.best) for cell in grid.cells],
        failed=grid.failed,
        notice=NOTICES.get(tags[0]["dataset"]),
        incomplete=incomplete,
        scores=SCORES,
        model_name=grid.cells[0].params.get("model", tags[0]["weights"]),
        origin=tags[0],
        facts=facts,
        shared=", ".join(f"{name}={value}" for name, value in sorted(shared.items())),
        analysis=analyse(grid, compare_runs),
        classes=by_class(grid),
        task="detect people" if SET.name == sets.LAB else f"detect objects in {SET.shown}",
        verdict=verdict,
        interval=any(row.against for row in verdict.rows),
        model=registry.MODEL,
    )
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "report.html").write_text(to_html(text, folder), encoding="utf-8")
    return text


def _each(
    runs: list[ReportedRun], tags: list[dict[str, str]], shown: Callable[[dict[str, str]], str]
) -> str:
    """Return a fact once where all runs share it, else with the runs it is true of."""
    by_value: dict[str, list[str]] = {}
    for run, held in zip(runs, tags, strict=True):
        by_value.setdefault(shown(held), []).append(str(run.tracked.info.run_name))
    if len(by_value) == 1:
        return next(iter(by_value))
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in by_value.items())


def to_html(text: str, folder: Path) -> str:
    """Return Markdown as one page that needs no other file and no network."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = body.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )

    def embed(match: re.Match[str]) -> str:
        data = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{data}"'

    body = re.sub(r'src="(plots/[a-z]+\.png)"', embed, body)
    title = text.strip().splitlines()[0].removeprefix("# ") if text.strip() else "Decision report"
    return pages.page(title, body)
