"""Says in ZenML and MLflow how a run ended that could not say so itself.

Import this only after ``settings.use_stack``: ZenML reads its environment on import.
"""

from __future__ import annotations

from datetime import UTC, datetime

from mlflow import MlflowClient
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunUpdate, StepRunUpdate

from src.client import use_stack
from src.settings import Settings, load_settings
from src.training.tracking import EXPERIMENT
from src.zenml_pipelines.runs import abandoned

# Not FAILED: that is how ZenML's tracker ends the MLflow run of a step that was interrupted.
ENDED = ("FINISHED", "KILLED")


def recover(settings: Settings) -> list[str]:
    """Mark as failed what a killed process of this checkout left running; return the names.

    Only runs whose owner is provably gone: see ``src.zenml_pipelines.runs``.
    """
    with abandoned(settings) as names:
        for name in names:
            mark_ended(name, ExecutionStatus.FAILED, "FAILED")
    return names


def mark_ended(name: str, zenml_status: ExecutionStatus, mlflow_status: str) -> None:
    """End the ZenML run ``name``, its open steps and its MLflow run with these statuses."""
    client = Client()
    now = datetime.now(UTC)
    for run in client.list_pipeline_runs(name=name):
        for step in client.list_run_steps(pipeline_run_id=run.id):
            if not step.status.is_finished:
                client.zen_store.update_run_step(
                    step.id, StepRunUpdate(status=zenml_status, end_time=now)
                )
        if not run.status.is_finished:  # else ZenML refuses
            client.zen_store.update_run(
                run.id, PipelineRunUpdate(status=zenml_status, end_time=now)
            )
    settings = load_settings()
    use_stack(settings)  # again: ZenML's tracker takes its variables away after each step
    tracking = MlflowClient(settings.mlflow_url)
    experiment = tracking.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return
    # ZenML's tracker opens the MLflow run under ZenML's name; the training renames and tags it.
    found = {
        run.info.run_id: run
        for query in (f"tags.zenml_run = '{name}'", f"attributes.run_name = '{name}'")
        for run in tracking.search_runs([experiment.experiment_id], query)
    }
    for run_id, tracked in found.items():
        if tracked.info.status not in ENDED:
            tracking.set_terminated(run_id, mlflow_status)
