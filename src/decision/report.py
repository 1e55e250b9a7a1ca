"""The decision report of a grid: compared, decided, promoted, written and logged.

It takes the latest grid from ZenML and MLflow, lets the gate judge its best run, and writes
``reports/<date>-<grid>/`` as Markdown and as one self-contained HTML page.
"""

from __future__ import annotations

import base64
import re
import tempfile
from datetime import date
from pathlib import Path

import mlflow
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from mlflow import MlflowClient

from src.champion import registry
from src.datasets.manifest import NOTICES
from src.decision import gate, plots
from src.decision.statistics import Grid, ReportedCell, ReportedRun, analyse, points, varying
from src.errors import UserError
from src.settings import ROOT, Settings
from src.training.tracking import EXPERIMENT, naming_deleted_experiment
from src.training.trainer import SCORES
from src.zenml_pipelines.runs import GRID_TAG, grid_of, run_name_of

REPORTS = ROOT / "reports"
TEMPLATES = REPORTS / "templates"
TEMPLATE = "decision_template_zenml.md"
REPORTS_EXPERIMENT = f"{EXPERIMENT}_reports"

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title><style>
body {{ font: 16px/1.55 system-ui, sans-serif; color: #1c2430; background: #fff; margin: 0 auto;
  max-width: 68rem; padding: 1rem; overflow-wrap: break-word; }}
h1, h2 {{ line-height: 1.25; }} h2 {{ margin-top: 2.2rem; border-bottom: 1px solid #d9dee6; }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; font-size: .92em; }}
td, th {{ padding: .35rem .7rem; border-bottom: 1px solid #d9dee6; text-align: left; }}
code {{ font-size: .88em; background: #f1f4f8; padding: .1em .3em; overflow-wrap: anywhere; }}
blockquote {{ margin: 1rem 0; padding: .4rem 1rem; background: #fff3cd; }}
img {{ max-width: 100%; height: auto; }} a {{ color: #0b5cad; }}
</style><body>{body}</body></html>
"""


class ReportError(UserError):
    """There is nothing to report on; the message says what to run."""


def latest_grid(settings: Settings) -> Grid:
    """Collect the runs of the latest grid.

    Raises:
        ReportError: When there is no grid yet, or none of its runs has finished.
    """
    from zenml.client import Client

    from src.zenml_pipelines.yolo_training_pipeline import dashboard_url

    client = Client()
    tagged = client.list_pipeline_runs(
        tags=[f"startswith:{GRID_TAG}"], sort_by="desc:created", size=1, hydrate=True
    )
    if not tagged.items:
        raise ReportError("no grid has been run yet: make grid")
    newest = max(tag.name for tag in tagged.items[0].tags if tag.name.startswith(GRID_TAG))
    cells: dict[str, list[ReportedRun]] = {}
    failed = []
    for run in client.list_pipeline_runs(
        tags=[newest], sort_by="asc:created", size=1000, hydrate=True
    ):
        run_id = run.run_metadata.get("mlflow_run_id")
        if not isinstance(run_id, str):
            failed.append(run_name_of(run.name))
            continue
        tracked = MlflowClient().get_run(run_id)
        url = f"{settings.mlflow_url}/#/experiments/{tracked.info.experiment_id}/runs/{run_id}"
        tested = ReportedRun(tracked, dashboard_url(run.id), url)
        cells.setdefault(tested.cell, []).append(tested)
    if not cells:
        raise ReportError(f"no run of {newest} has finished: make grid")
    found = [ReportedCell(cell, runs) for cell, runs in sorted(cells.items())]
    return Grid(grid_of(newest), found, failed)


def draw(grid: Grid, folder: Path) -> None:
    """Write the four plots into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    plots.pareto(points(grid), folder / "pareto.png")
    client = MlflowClient()
    curves = {
        cell.name: [
            [
                point.value
                for point in client.get_metric_history(run.tracked.info.run_id, "mAP50")
                if point.step <= int(cell.params["epochs"])
            ][: int(cell.params["epochs"])]
            for run in cell.runs
        ]
        for cell in grid.cells
    }
    plots.curves(curves, folder / "curves.png")
    axes = varying(grid.cells)
    plots.heatmap(
        [({axis: cell.params[axis] for axis in axes}, cell.mean("mAP50")) for cell in grid.cells],
        axes,
        folder / "heatmap.png",
    )
    worst = min(grid.cells, key=lambda cell: cell.mean("mAP50"))
    with tempfile.TemporaryDirectory() as temporary:
        pictures = {}
        for label, cell in (("best", grid.best), ("worst", worst)):
            run_id = cell.runs[0].tracked.info.run_id
            pictures[f"{label}: {cell.name}"] = Path(
                mlflow.artifacts.download_artifacts(
                    run_id=run_id,
                    artifact_path="val_batch0_pred.jpg",
                    dst_path=str(Path(temporary) / label),
                )
            )
        plots.side_by_side(pictures, folder / "predictions.png")


def write(grid: Grid, verdict: gate.Verdict, folder: Path, today: date) -> None:
    """Write ``report.md`` and ``report.html`` beside the plots."""
    runs = [run for cell in grid.cells for run in cell.runs]
    origin = dict(runs[0].tracked.data.tags)
    shared = {
        name: value
        for name, value in grid.cells[0].params.items()
        if name not in (*varying(grid.cells), "seed", "model")
    }
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown; the conversion to HTML escapes
    )  # fmt: skip
    text = templates.get_template(TEMPLATE).render(
        grid=grid.name,
        date=today.isoformat(),
        runs=runs,
        seeds=max(len(cell.runs) for cell in grid.cells),
        cells=[ReportedCell(c.name, c.runs, best=c is grid.best) for c in grid.cells],
        failed=grid.failed,
        notice=NOTICES.get(origin["dataset"]),
        scores=SCORES,
        origin=origin,
        shared=", ".join(f"{name}={value}" for name, value in sorted(shared.items())),
        analysis=analyse(grid),
        verdict=verdict,
        model=registry.MODEL,
    )
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "report.html").write_text(to_html(text, folder), encoding="utf-8")


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
    title = text.splitlines()[0].removeprefix("# ")
    return _PAGE.format(title=title, body=body)


def log(grid: Grid, verdict: gate.Verdict, folder: Path) -> None:
    """Log the report to MLflow (an experiment of its own) and to ZenML (an artifact)."""
    from zenml import save_artifact
    from zenml.types import HTMLString

    with naming_deleted_experiment(REPORTS_EXPERIMENT):
        mlflow.set_experiment(REPORTS_EXPERIMENT)
    mlflow.set_experiment_tag("mlflow.experimentKind", "custom_model_development")
    with mlflow.start_run(run_name=folder.name):
        mlflow.log_params({"grid": grid.name, "cells": len(grid.cells)})
        mlflow.log_metrics({f"best_{score}": grid.best.mean(score) for score in SCORES})
        mlflow.set_tags({"best": grid.best.name, "promoted": str(verdict.passed).lower()})
        mlflow.log_artifacts(str(folder))
    page = (folder / "report.html").read_text(encoding="utf-8")
    save_artifact(HTMLString(page), "grid_report")


def make_report(settings: Settings) -> Path:
    """Compare, decide, promote where the gate says so, write and log; return the folder."""
    grid = latest_grid(settings)
    verdict = gate.judge(grid.candidate)
    if verdict.passed:
        version = registry.promote(grid.candidate, settings, "; ".join(verdict.reasons))
        where = registry.version_url(settings, version)
        verdict.reasons.append(
            f"Registered as [{registry.MODEL} version {version.version}]({where})"
        )
    today = date.today()
    folder = REPORTS / f"{today.isoformat()}-{grid.name}"
    draw(grid, folder / "plots")
    write(grid, verdict, folder, today)
    log(grid, verdict, folder)
    for line in (*analyse(grid), verdict.headline, *verdict.reasons):
        print(line)
    return folder
