"""Prepare, train, summarise: the pipeline, and how one cell of work goes through it.

Import this only after ``settings.use_stack``: ZenML reads its environment on import.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import mlflow
from zenml import log_metadata, pipeline
from zenml.client import Client
from zenml.enums import ExecutionMode, ExecutionStatus
from zenml.exceptions import RunInterruptedException
from zenml.integrations.registry import integration_registry
from zenml.logger import ZenMLConsoleHandler

from src import mlflow_pages
from src.client import turn, use_stack
from src.inputs import Inputs
from src.services.outage import be_patient, be_patient_with_s3fs
from src.settings import load_settings
from src.training import tracking
from src.training.recipes import Cell
from src.training.tracking import EXPERIMENT, naming_deleted_experiment
from src.training.trainer import WATCH
from src.zenml_pipelines.outcome import Finished
from src.zenml_pipelines.recovery import mark_ended
from src.zenml_pipelines.runs import address_of, claim, new_name
from src.zenml_steps import summary
from src.zenml_steps.data_steps import prepare_tiny_coco_dataset
from src.zenml_steps.eval_steps import summarize_yolo_experiment
from src.zenml_steps.train_steps import train_yolo_tiny

# Before it compiles a pipeline ZenML imports each integration whose packages are installed, PyTorch
# and scikit-learn among them, for materializers of which our steps use none.
integration_registry.activate_integrations = lambda: None  # type: ignore[method-assign]


@pipeline(execution_mode=ExecutionMode.FAIL_FAST)  # raises a step's own error
def yolo_training_pipeline(
    dataset_md5: str, run_name: str, recipe: dict[str, Any], weights_sha256: str
) -> None:
    """Train one recipe on one version of the data, starting from certain weights."""
    dataset, _ = prepare_tiny_coco_dataset(dataset_md5=dataset_md5)
    _, result = train_yolo_tiny(
        dataset=dataset, run_name=run_name, recipe=recipe, weights_sha256=weights_sha256
    )
    summarize_yolo_experiment(training_result=result)


def run_cell(
    cell: Cell,
    inputs: Inputs,
    dataset_md5: str,
    *,
    force: bool,
    tags: Sequence[str] = (),
    name: str | None = None,
) -> Finished:
    """Run the pipeline for one cell; ``force`` ignores the cache.

    The figures go to the run's metadata from here, not from a step, so that a run out of the
    cache has them too. ZenML wants names that are unique, and resumes an MLflow run of the same
    name: the time makes ZenML's name unique, and the training gives the MLflow run the cell's own.
    Whoever must know ZenML's name beforehand gives one made by ``new_name``.

    Raises:
        KeyboardInterrupt: After marking the run as stopped, in ZenML and in MLflow.
    """
    _narrate_less()
    started = time.monotonic()
    use_stack(load_settings())
    be_patient(load_settings())
    be_patient_with_s3fs()
    with turn(load_settings()):
        _ = Client().active_stack
    # ZenML's tracker takes both away after each step, and a worker runs several cells.
    mlflow.set_tracking_uri(load_settings().mlflow_url)
    tracking.require_experiment(EXPERIMENT)
    for lost in forget_lost(cell.run_name):
        print(f"{cell.run_name}: {lost}; training again", file=sys.stderr)
    name = name or new_name(cell.run_name)
    configured = yolo_training_pipeline.with_options(
        run_name=name, enable_cache=not force, tags=[cell.run_name, *tags]
    )
    with claim(load_settings(), name):
        try:
            with naming_deleted_experiment(EXPERIMENT):
                run = configured(
                    dataset_md5=dataset_md5,
                    run_name=cell.run_name,
                    recipe=cell.recipe,
                    weights_sha256=inputs.weights_sha256,
                )
        except BaseException as error:
            # While a step runs, ZenML turns SIGINT into a failure of the step.
            interrupted = isinstance(error, KeyboardInterrupt | RunInterruptedException)
            if interrupted or WATCH.stopped():
                mark_ended(name, ExecutionStatus.STOPPED, "KILLED")
                raise KeyboardInterrupt from error
            raise
    assert run is not None
    run = Client().get_pipeline_run(run.id)
    step = run.steps["train_yolo_tiny"]
    (output,) = step.outputs["training_result"]
    result = dict(output.load())
    result["mlflow_url"] = mlflow_pages.moved(result["mlflow_url"], load_settings())
    log_metadata(metadata=summary.figures(result), run_id_name_or_prefix=run.id)
    return Finished(
        result=result,
        cached=step.status == ExecutionStatus.CACHED,
        seconds=time.monotonic() - started,
        zenml_url=dashboard_url(run.id),
    )


def forget_lost(run_name: str) -> list[str]:
    """Have ZenML's cache forget trainings whose MLflow run is gone; return why, a line for each.

    ZenML would serve them for ever, with links to nothing.
    """
    client, said = Client(), {}
    for run in client.list_pipeline_runs(
        tags=[run_name], sort_by="desc:created", size=100, hydrate=True
    ):
        run_id, step = run.run_metadata.get("mlflow_run_id"), run.steps.get("train_yolo_tiny")
        if not isinstance(run_id, str) or step is None or step.cache_expires_at is not None:
            continue  # not finished, or forgotten already
        if why := tracking.whereabouts(run_id):
            said[run_id] = f"its run {run_id} {why}"
            for step_id in filter(None, (step.id, step.original_step_run_id)):
                client.update_step_run(step_id, cache_expires_at=datetime.now(UTC))
    return list(said.values())


def dashboard_url(run_id: object) -> str:
    """Return the address of a run in ZenML's dashboard."""
    client = Client()
    return address_of(client.zen_store.url, client.active_project.name, run_id)


def _narrate_less() -> None:
    """Keep ZenML's own narration off the terminal; its server still gets all of it."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, ZenMLConsoleHandler):
            handler.setLevel(logging.WARNING)
            handler.addFilter(_not_a_failed_step)
    # It tries to switch off autologging in frameworks that are not installed, and warns.
    logging.getLogger("zenml.integrations.mlflow").setLevel(logging.ERROR)


def _not_a_failed_step(record: logging.LogRecord) -> bool:
    """Keep what `run_cell` raises from being said twice, with a traceback."""
    return not (record.levelno >= logging.ERROR and record.name.startswith("zenml.orchestrators."))
