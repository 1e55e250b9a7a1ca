"""The pipeline's second step: one training, one MLflow run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import mlflow
from zenml import ArtifactConfig, get_step_context, log_metadata, step
from zenml.client import Client
from zenml.config.cache_policy import CachePolicy
from zenml.enums import ArtifactType, ExecutionStatus
from zenml.exceptions import RunInterruptedException
from zenml.models import StepRunUpdate

from src import checkpoints, mlflow_pages
from src.bootstrap.zenml_state import TRACKER
from src.datasets import FOLDER, manifest, versioning
from src.files import sha256
from src.inputs import InputsError
from src.settings import load_settings
from src.training import fingerprint, provenance, scoring, tracking, trainer
from src.zenml_steps import yolo_materializer


def determinants() -> dict[str, str]:
    """Return what determines a training's result here, apart from the step's parameters."""
    own = sys.modules[__name__]
    return fingerprint.determinants(
        checkpoints, scoring, trainer, tracking, provenance, yolo_materializer, own
    )


def cache_key() -> str:
    """Return that as text: ZenML takes a finished training only where all of it is the same."""
    return json.dumps(determinants(), sort_keys=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have an interrupted step end as stopped, where ZenML would call it failed."""
    try:
        yield
    except (KeyboardInterrupt, RunInterruptedException):  # the latter is ZenML's SIGINT
        step_run = get_step_context().step_run
        Client().zen_store.update_run_step(
            step_run.id, StepRunUpdate(status=ExecutionStatus.STOPPING)
        )
        raise


@step(
    experiment_tracker=TRACKER,
    settings={"experiment_tracker.mlflow": {"experiment_name": tracking.EXPERIMENT}},
    output_materializers={"yolo_weights": yolo_materializer.YoloMaterializer},
    cache_policy=CachePolicy(include_step_code=False, cache_func=cache_key),
)
def train_yolo_tiny(
    dataset: dict[str, Any], run_name: str, recipe: dict[str, Any], weights_sha256: str
) -> tuple[
    Annotated[
        yolo_materializer.Checkpoint,
        ArtifactConfig(name="yolo_weights", artifact_type=ArtifactType.MODEL),
    ],
    Annotated[dict[str, Any], "training_result"],
]:
    """Train on the referenced data set and track everything in the step's MLflow run.

    Args:
        dataset: The reference of ``prepare_tiny_coco_dataset``.
        run_name: The MLflow run's name; a parameter, so that a grid cell with the baseline's
            arguments is not served from the baseline's cache.
        recipe: Ultralytics' training arguments.
        weights_sha256: Of the checkpoint to start from, or "scratch"; new weights train again.

    Returns:
        The best epoch's checkpoint, and the scores with their provenance.
    """
    settings = load_settings()
    inputs = manifest.settled(settings)
    if inputs.weights_sha256 != weights_sha256:
        raise InputsError("WEIGHTS has changed since this run was started: run it again")
    versioning.require_current(dataset["md5"])
    tags = provenance.tags(dataset["md5"], dataset["kind"], inputs.weights_name, weights_sha256)
    tags |= determinants() | {"machine": fingerprint.machine()}
    tags["zenml_run"] = get_step_context().pipeline_run.name
    run = mlflow.active_run()
    assert run is not None  # the experiment tracker has started it
    with _interruptible(), trainer.workspace(FOLDER) as (folder, data):
        training = tracking.track(recipe, run_name, data, inputs.model, folder, tags)
        tags[provenance.TRAINED] = sha256(training.weights)
        checkpoint = yolo_materializer.Checkpoint(training.weights.read_bytes())
    result = {
        "run_name": run_name,
        "metrics": training.metrics,
        "untrained": training.untrained,
        "by_class": training.by_class,
        "training_seconds": training.seconds,
        "busy_seconds": training.busy_seconds,
        "recipe": recipe,
        "provenance": tags,
        "images": dataset["images"],
        "mlflow_run_id": run.info.run_id,
        "mlflow_url": mlflow_pages.run(settings, run.info.experiment_id, run.info.run_id),
    }
    log_metadata({"mlflow_run_id": run.info.run_id, "metrics": training.metrics, **tags})
    return checkpoint, result
