"""Prepare, train, summarise: the pipeline, and how one cell of work goes through it.

Import this only after ``settings.use_stack``: ZenML reads its environment on import.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from zenml import pipeline
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunUpdate

from src.inputs import Inputs
from src.recipes import Cell
from src.zenml_steps.data_steps import prepare_tiny_coco_dataset
from src.zenml_steps.eval_steps import summarize_yolo_experiment
from src.zenml_steps.train_steps import train_yolo_tiny


@dataclass(frozen=True)
class Finished:
    """A finished run of the pipeline."""

    result: dict[str, Any]  # the training step's `training_result`
    cached: bool  # the training came from the cache
    zenml_url: str | None  # the run in ZenML's dashboard


@pipeline
def yolo_training_pipeline(
    dataset_md5: str, run_name: str, recipe: dict[str, Any], weights_sha256: str
) -> None:
    """Train one recipe on one version of the data, starting from certain weights."""
    dataset = prepare_tiny_coco_dataset(dataset_md5=dataset_md5)
    _, result = train_yolo_tiny(
        dataset=dataset, run_name=run_name, recipe=recipe, weights_sha256=weights_sha256
    )
    summarize_yolo_experiment(training_result=result)


def run_cell(cell: Cell, inputs: Inputs, dataset_md5: str, *, force: bool) -> Finished:
    """Run the pipeline for one cell; ``force`` ignores the cache.

    ZenML wants names that are unique, and resumes an MLflow run of the same name: the time makes
    ZenML's name unique, and the training gives the MLflow run the cell's own.
    """
    name = f"{cell.run_name}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
    configured = yolo_training_pipeline.with_options(
        run_name=name, enable_cache=not force, tags=[cell.run_name]
    )
    try:
        run = configured(
            dataset_md5=dataset_md5,
            run_name=cell.run_name,
            recipe=cell.recipe,
            weights_sha256=inputs.weights_sha256,
        )
    except KeyboardInterrupt:
        _mark_stopped(name)
        raise
    assert run is not None
    run = Client().get_pipeline_run(run.id)
    step = run.steps["train_yolo_tiny"]
    (output,) = step.outputs["training_result"]
    return Finished(output.load(), step.status == ExecutionStatus.CACHED, dashboard_url(run.id))


def dashboard_url(run_id: object) -> str:
    """Return the address of a run in ZenML's dashboard."""
    client = Client()
    return f"{client.zen_store.url}/projects/{client.active_project.name}/runs/{run_id}"


def _mark_stopped(name: str) -> None:
    """Say in ZenML that a run was interrupted, which it would show as running for ever."""
    client = Client()
    for run in client.list_pipeline_runs(name=name):
        if not run.status.is_finished:
            client.zen_store.update_run(
                run.id, PipelineRunUpdate(status=ExecutionStatus.STOPPED)
            )
