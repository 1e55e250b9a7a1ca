"""From a grid to a filed decision, in steps that can be interrupted after each of them.

A report is a folder of its own, with ``decision.json`` beside the pages. It appears there whole, by
one rename; then it is logged to MLflow and to ZenML; only then an alias moves; and last the file
says ``done``. What a kill has left out, the next ``make report`` makes up for. The same grid again
changes nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Literal

import mlflow
from mlflow import MlflowClient
from pydantic import BaseModel, ValidationError

from src import pages
from src.champion import registry
from src.checkpoints import kept
from src.decision import gate, report
from src.decision.report import REPORTS, ReportError
from src.decision.statistics import Grid, analyse
from src.files import unused
from src.settings import Settings
from src.training.scoring import SCORES, Metrics
from src.training.tracking import EXPERIMENT, naming_deleted_experiment, whereabouts
from src.zenml_pipelines import grid_record

REPORTS_EXPERIMENT = f"{EXPERIMENT}_reports"
REPORT_TAG = "report"  # of the MLflow run that a report is logged to
FILE = "decision.json"


class Decision(BaseModel):
    """What was decided, and what of it is done."""

    report: str  # its folder's name
    grid: str
    tag: str  # the grid's
    evidence: str  # a hash of the runs that it was decided on
    day: date
    state: Literal["decided", "done"]
    headline: str
    lines: list[str]  # what is printed
    best: str
    scores: Metrics
    promote: str | None  # id of the run that becomes champion
    start_of: str | None  # id of the run whose starting weights become it instead
    start_scores: Metrics
    why: str
    champion: str | None  # the version that was champion when it was decided
    outcome: str  # what became of it
    links: list[str]  # the addresses of MLflow and ZenML in the pages
    text: str  # SHA-256 of the Markdown that the page was made of


def make_report(settings: Settings, *, force: bool = False, reason: str = "") -> Path:
    """Decide on the latest grid, or finish or repeat what was decided; return the folder.

    ``force`` decides in spite of missing or running cells, with a reason.

    Raises:
        ReportError: When there is no grid, or it is not complete.
    """
    if force and not reason:
        raise ReportError("FORCE=1 needs a reason: make report FORCE=1 REASON='…'")
    with _alone(settings):
        record = grid_record.latest()
        if record is None:
            raise ReportError("no grid has been run yet: make grid")
        running = grid_record.is_running(settings, record.tag)
        if running and not force:
            raise ReportError(
                f"{record.tag} is still running: wait for it, or decide on what is finished: "
                "make report FORCE=1 REASON='…'"
            )
        grid = report.collect(settings, record)
        evidence = _evidence(grid)
        for known in decisions():
            if known.tag == record.tag and known.evidence == evidence:
                return _again(settings, known)
        excuse = _complete(grid, running, force, reason)
        folder = _decide(settings, grid, evidence, excuse)
        finish(settings, folder, grid)
        for line in _read(folder).lines:
            print(line)
        return folder


def decisions() -> list[Decision]:
    """Return all decisions that were filed, the newest first."""
    found = [read for folder in REPORTS.glob("*/") if (read := _maybe(folder)) is not None]
    return sorted(found, key=lambda decision: (decision.day, decision.tag), reverse=True)


def _complete(grid: Grid, running: bool, force: bool, reason: str) -> str:
    """Return what to say of an incomplete grid that is decided on even so, else blank."""
    faults = []
    if running:
        faults.append("it is still running")
    if grid.failed:
        faults.append(f"not finished: {', '.join(grid.failed)}")
    if not faults:
        return ""
    said = f"{grid.tag} is not complete ({'; '.join(faults)})"
    if not force:
        raise ReportError(
            f"{said}: make grid carries on; to decide without: make report FORCE=1 REASON='…'"
        )
    return f"{said}. Decided on even so: {reason}"


def _decide(settings: Settings, grid: Grid, evidence: str, excuse: str) -> Path:
    """Judge, and file the report whole."""
    candidate = grid.candidate
    verdict = gate.check_export(gate.judge(candidate), candidate, settings)
    today = date.today()
    # No report is ever overwritten.
    folder = unused(REPORTS / f"{today.isoformat()}-{grid.tag.removeprefix('grid-')}")
    for leftover in REPORTS.glob(".[0-9]*/"):  # of a killed one, perhaps of another day
        shutil.rmtree(leftover)
    draft = REPORTS / f".{folder.name}"
    report.draw(grid, verdict, draft / "plots")
    text = report.write(grid, verdict, draft, today, excuse)
    scores = {row.name: row.scores for row in verdict.rows if row.name.endswith(", untrained")}
    decision = Decision(
        report=folder.name,
        grid=grid.name,
        tag=grid.tag,
        evidence=evidence,
        day=today,
        state="decided",
        headline=verdict.headline,
        lines=[*analyse(grid, report.compare_runs), verdict.headline, *verdict.reasons],
        best=grid.best.name,
        scores={score: grid.best.mean(score) for score in SCORES},
        promote=candidate.info.run_id if verdict.passed else None,
        start_of=candidate.info.run_id if verdict.start_takes_over else None,
        start_scores=next(iter(scores.values()), {}),
        why="; ".join(verdict.reasons),
        champion=verdict.champion,
        outcome="",
        links=[settings.mlflow_url, settings.zenml_url],
        text=_sha256(text),
    )
    _write(draft, decision)
    draft.rename(folder)
    return folder


def finish(settings: Settings, folder: Path, grid: Grid) -> None:
    """Log a filed decision and carry it out; what is done already, stays."""
    _log_to_mlflow(folder, grid)
    _log_to_zenml(folder)
    decision = _read(folder)
    outcome = _carry_out(settings, decision)
    _write(folder, decision.model_copy(update={"state": "done", "outcome": outcome}))
    write_index()


def _carry_out(settings: Settings, decision: Decision) -> str:
    """Move the alias where that was decided; return what became of it."""
    run_id = decision.promote or decision.start_of
    now = registry.champion()
    if run_id is None:
        return f"version {now.version} stays" if now else "none"
    run = MlflowClient().get_run(run_id)
    if decision.start_of:
        weights = kept(run.data.tags["weights_sha256"])
        run = registry.starting_run(run, weights, decision.start_scores)
    held = str(now.version) if now else None
    if held != decision.champion and not (now and now.run_id == run.info.run_id):
        deleted = decision.champion is None and now and whereabouts(str(now.run_id))
        if not deleted:
            return f"not promoted: another has become champion meanwhile (version {held})"
    version = registry.promote(run, settings, decision.why)
    return f"version {version.version}"


def _again(settings: Settings, decision: Decision) -> Path:
    """Finish a decision that was interrupted; else leave it, but for its page's links and text."""
    folder = REPORTS / decision.report
    if decision.state != "done":
        record = grid_record.latest()
        assert record is not None
        finish(settings, folder, report.collect(settings, record))
        for line in decision.lines:
            print(line)
        print(f"{decision.report}: finished what was interrupted")
        return folder
    changed = _refresh(settings, folder, decision)
    write_index()
    for line in (decision.headline, *changed):
        print(line)
    print(f"{decision.report}: unchanged")
    return folder


def _refresh(settings: Settings, folder: Path, decision: Decision) -> list[str]:
    """Have links follow changed ports, and the page the user's edits; return what was done."""
    file, links = folder / "report.md", [settings.mlflow_url, settings.zenml_url]
    text = file.read_text(encoding="utf-8")
    said = []
    if links != decision.links:
        for old, new in zip(decision.links, links, strict=True):
            text = text.replace(f"({old}/", f"({new}/")
        file.write_text(text, encoding="utf-8")
        said.append("its links follow the changed addresses")
    elif _sha256(text) != decision.text:
        said.append("its page follows your edits of report.md")
    if said:
        (folder / "report.html").write_text(report.to_html(text, folder), encoding="utf-8")
        _write(folder, decision.model_copy(update={"links": links, "text": _sha256(text)}))
    return said


def _log_to_mlflow(folder: Path, grid: Grid) -> None:
    client = MlflowClient()
    with naming_deleted_experiment(REPORTS_EXPERIMENT):
        experiment = mlflow.set_experiment(REPORTS_EXPERIMENT)
    found = client.search_runs(
        [experiment.experiment_id], f"tags.{REPORT_TAG} = '{folder.name}'", max_results=1
    )
    if found and found[0].info.status == "FINISHED":
        return
    decision = _read(folder)
    mlflow.set_experiment_tag("mlflow.experimentKind", "custom_model_development")
    known = {"run_id": found[0].info.run_id} if found else {"run_name": folder.name}
    with mlflow.start_run(**known, tags={REPORT_TAG: folder.name}):
        mlflow.log_params({"grid": grid.name, "cells": len(grid.cells)})
        if not (found and found[0].data.metrics):  # logged again they would stand there twice
            mlflow.log_metrics({f"best_{score}": value for score, value in decision.scores.items()})
        promoted = str(decision.promote is not None).lower()
        mlflow.set_tags({"best": decision.best, "promoted": promoted, "grid": decision.tag})
        mlflow.log_artifacts(str(folder))


def _log_to_zenml(folder: Path) -> None:
    from zenml import save_artifact
    from zenml.client import Client
    from zenml.types import HTMLString

    if Client().list_artifact_versions(artifact="grid_report", version=folder.name).total:
        return
    page = (folder / "report.html").read_text(encoding="utf-8")
    # Where it lies is the report's own, so that one that was killed before ZenML knew of it leaves
    # nothing behind.
    uri = f"custom_artifacts/grid_report/{folder.name}"
    save_artifact(HTMLString(page), "grid_report", version=folder.name, uri=uri)


def write_index() -> None:
    """Write the page that lists all reports, the newest first."""
    body = pages.render("index.html", reports=decisions())
    (REPORTS / "index.html").write_text(pages.page("Decision reports", body), encoding="utf-8")


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    file = settings.backend_state / "report.lock"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ReportError("another make report is at work here: let it end") from None
        yield


def _evidence(grid: Grid) -> str:
    runs = sorted(run.tracked.info.run_id for cell in grid.cells for run in cell.runs)
    return _sha256(" ".join([grid.tag, *runs]))[:16]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(folder: Path, decision: Decision) -> None:
    fresh = folder / f".{FILE}"
    fresh.write_text(decision.model_dump_json(indent=2) + "\n", encoding="utf-8")
    fresh.replace(folder / FILE)


def _read(folder: Path) -> Decision:
    return Decision.model_validate_json((folder / FILE).read_text(encoding="utf-8"))


def _maybe(folder: Path) -> Decision | None:
    if folder.name.startswith(".") or not (folder / FILE).is_file():
        return None
    try:
        return _read(folder)
    except ValidationError:
        print(f"{folder.name}/{FILE} can't be read: left out", file=sys.stderr)
        return None
