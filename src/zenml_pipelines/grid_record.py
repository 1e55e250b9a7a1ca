"""A grid's record: what was planned, from what, and how far it is.

It is an MLflow run with a JSON file, written before the first cell starts. The cells are tied to it
by its tag on their ZenML runs: a cell out of the cache has its MLflow run from an earlier grid.

What needs MLflow runs in a process of its own (``apart``), because MLflow starts threads, and a
process with threads can't fork the grid's workers.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from src.bootstrap import BootstrapError
from src.bootstrap.zenml_server import signed_in
from src.settings import ROOT, Settings
from src.training import fingerprint, scoring, tracking, trainer
from src.training.provenance import git_commit
from src.training.recipes import Cell
from src.zenml_pipelines.command_line import Job
from src.zenml_pipelines.runs import address_of, new_grid_tag, run_name_of

EXPERIMENT = f"{tracking.EXPERIMENT}_grids"
FILE = "grid.json"
Result = TypeVar("Result")


class PlannedCell(BaseModel):
    """One training as it was planned."""

    model_config = ConfigDict(frozen=True)

    run_name: str
    recipe: dict[str, Any]


class GridRecord(BaseModel):
    """A grid as it was when it began."""

    model_config = ConfigDict(frozen=True)

    tag: str  # on the ZenML runs of its cells; its name everywhere
    identity: str  # the same for what would train the same cells
    name: str  # of its file, without the ending
    file: str  # the file's text
    created: datetime
    cells: list[PlannedCell]
    commit: str
    changes: str  # SHA-256 of the difference to the commit; blank without one
    dataset: str
    dataset_md5: str
    weights: str
    weights_sha256: str
    versions: dict[str, str]
    threads: str
    seeds: list[int]
    host: str


State = Literal["finished", "running", "failed", "deleted", "not begun"]


@dataclass(frozen=True)
class CellState:
    """How far a cell is, with its latest run that counts."""

    state: State
    zenml_run: str = ""  # id
    zenml_url: str = ""
    mlflow_run: str = ""  # id


def plan(job: Job, path: Path, cells: list[Cell]) -> GridRecord:
    """Return the record of a grid that is about to begin."""
    code = fingerprint.code_hash(scoring, trainer, tracking)
    planned = [PlannedCell(run_name=cell.run_name, recipe=cell.recipe) for cell in cells]
    versions = fingerprint.versions()
    determined = {
        "cells": [cell.model_dump() for cell in planned],
        "data": job.dataset_md5,
        "weights": job.inputs.weights_sha256,
        "versions": {name: versions[name] for name in ("python", *fingerprint.PACKAGES)},
        "code": code,
    }
    text = json.dumps(determined, sort_keys=True)
    return GridRecord(
        tag=new_grid_tag(path.stem),
        identity=hashlib.sha256(text.encode()).hexdigest()[:16],
        name=path.stem,
        file=path.read_text(encoding="utf-8"),
        created=datetime.now(UTC),
        cells=planned,
        commit=git_commit().split("+")[0],
        changes=_changes(),
        dataset=job.inputs.dataset,
        dataset_md5=job.dataset_md5,
        weights=job.inputs.weights_name,
        weights_sha256=job.inputs.weights_sha256,
        versions=versions,
        threads=fingerprint.threads(),
        seeds=sorted({int(cell.recipe["seed"]) for cell in cells}),
        host=socket.gethostname(),
    )


def begin(record: GridRecord, *, afresh: bool) -> GridRecord:
    """Write the record to MLflow, or return the one of the same grid that is there already.

    ``afresh`` begins another grid even so.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = restored(EXPERIMENT)
    asked = {"asked_at": datetime.now(UTC).isoformat()}  # what `make report` takes for the latest
    if not afresh:
        query = f"tags.identity = '{record.identity}'"
        for run in client.search_runs([experiment], query, order_by=["tags.asked_at DESC"]):
            if (known := _read(run.info.run_id)) is not None:
                for name, value in asked.items():
                    client.set_tag(run.info.run_id, name, value)
                return known
    run = client.create_run(
        experiment, run_name=record.tag, tags={"identity": record.identity, "grid": record.tag}
    )
    client.log_text(run.info.run_id, record.model_dump_json(indent=2), FILE)
    for name, value in asked.items():  # last: whoever finds it, finds it whole
        client.set_tag(run.info.run_id, name, value)
    return record


def resume(
    settings: Settings, record: GridRecord, *, afresh: bool
) -> tuple[GridRecord, dict[str, tuple[dict[str, Any], str]]]:
    """Begin a grid or take up the same one; return its record and its finished cells' results."""
    record = begin(record, afresh=afresh)
    done = {} if afresh else results(settings, record)
    if len(done) == len(record.cells):
        end(record.tag, "FINISHED")  # a killed command may not have said so
    return record, done


def end(tag: str, status: str) -> None:
    """Say in MLflow how the grid's command ended: FINISHED, FAILED or KILLED."""
    from mlflow import MlflowClient

    client = MlflowClient()
    for run in client.search_runs([restored(EXPERIMENT)], f"tags.grid = '{tag}'"):
        if run.info.status != status:
            client.set_terminated(run.info.run_id, status)


def latest() -> GridRecord | None:
    """Return the grid that was asked for last, None before the first."""
    from mlflow import MlflowClient

    found = MlflowClient().search_runs(
        [restored(EXPERIMENT)], "tags.asked_at != ''", order_by=["tags.asked_at DESC"]
    )
    records = (_read(run.info.run_id) for run in found)
    return next((record for record in records if record is not None), None)


def states(settings: Settings, record: GridRecord) -> dict[str, CellState]:
    """Return how far each planned cell is, by its run name, as ZenML and MLflow have it.

    ZenML is asked over its REST API, since its client takes seconds to import.

    Raises:
        BootstrapError: When ZenML takes no API key of this checkout.
    """
    tracking.require_experiment(tracking.EXPERIMENT)
    server = signed_in(settings)
    if server is None:
        raise BootstrapError("ZenML does not know this checkout: make stack")
    # The oldest first: a retry counts in place of what it retries.
    query = {"tags": [record.tag], "sort_by": "asc:created", "size": 1000, "hydrate": "true"}
    answer: Any = server.call("GET", "runs", params=query)
    ids = {run["body"]["project_id"] for run in answer["items"]}
    projects = {one: str(server.call("GET", f"projects/{one}")["name"]) for one in ids}
    found: dict[str, CellState] = {}
    for run in answer["items"]:
        name = run_name_of(run["name"])
        known = found.get(name)
        project = projects[run["body"]["project_id"]]
        url = address_of(settings.zenml_url, project, run["id"])
        run_id = run["metadata"]["run_metadata"].get("mlflow_run_id")
        if isinstance(run_id, str):
            alive = not tracking.whereabouts(run_id)
            found[name] = CellState("finished" if alive else "deleted", run["id"], url, run_id)
        elif known is None or known.state not in ("finished", "deleted"):
            state: State = "running" if run["body"]["in_progress"] else "failed"
            found[name] = CellState(state, run["id"], url)
    return {
        cell.run_name: found.get(cell.run_name, CellState("not begun")) for cell in record.cells
    }


def results(settings: Settings, record: GridRecord) -> dict[str, tuple[dict[str, Any], str]]:
    """Return the finished cells' ``training_result`` and ZenML address, whoever trained them."""
    from zenml.client import Client

    found = {}
    for name, state in states(settings, record).items():
        if state.state == "finished":
            run = Client().get_pipeline_run(state.zenml_run)
            (output,) = run.steps["train_yolo_tiny"].outputs["training_result"]
            found[name] = (dict(output.load()), state.zenml_url)
    return found


def restored(name: str) -> str:
    """Return an experiment's id; one that was deleted in MLflow's page is restored, and said."""
    from mlflow import MlflowClient

    client = MlflowClient()
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
        print(f"{name}: was deleted in MLflow; restored, with its runs", file=sys.stderr)
    return str(found.experiment_id)


@contextmanager
def claimed(settings: Settings, tag: str) -> Iterator[None]:
    """Say for as long as this block runs that the grid is running here."""
    file = _lock(settings, tag)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            file.unlink()


def is_running(settings: Settings, tag: str) -> bool:
    """Tell whether a grid's command is at work in this checkout."""
    try:
        with _lock(settings, tag).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def apart(function: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """Run a function in a process of its own, where this one is to fork; return its result."""
    from src.zenml_pipelines.grid_workers import context

    if context().get_start_method() != "fork":
        return function(*arguments, **named)
    ours, theirs = context().Pipe()
    process = context().Process(target=_answer, args=(theirs, function, arguments, named))
    process.start()
    theirs.close()
    try:
        result, error = ours.recv()
    except EOFError:
        raise RuntimeError("a helper process was killed") from None
    finally:
        process.join()
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _answer(
    pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to take
    from src.client import use_stack
    from src.settings import load_settings

    use_stack(load_settings())
    try:
        pipe.send((function(*arguments, **named), None))
    except Exception as error:  # noqa: BLE001 - the parent raises it
        pipe.send((None, error))


def _lock(settings: Settings, tag: str) -> Path:
    return settings.backend_state / "grids" / tag


def _read(run_id: str) -> GridRecord | None:
    """Return the record that a run holds, None where it was killed before it wrote one."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return GridRecord.model_validate_json(mlflow.artifacts.load_text(f"runs:/{run_id}/{FILE}"))
    except (MlflowException, OSError):
        return None


def _changes() -> str:
    """Return a hash of how the code differs from the commit, blank where it doesn't."""
    command = ["git", "-C", str(ROOT), "diff", "HEAD", "--", "src", "configs"]
    said = subprocess.run(command, capture_output=True, check=False).stdout
    return hashlib.sha256(said).hexdigest() if said else ""
