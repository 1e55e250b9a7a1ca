"""Runs in MLflow's real store, for tests that use the fixture ``registry``."""

import hashlib

from mlflow import MlflowClient
from mlflow.entities import Run

from src.training.provenance import TRAINED
from src.training.tracking import EXPERIMENT

DATASET = "0123.dir"


def tracked_run(name: str, content: str = "0.5", imgsz: int = 320, **tags: str) -> Run:
    """Track a finished training whose best weights are the text ``content``."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    known = {"dataset_md5": DATASET, "weights": "random", "weights_sha256": "scratch"}
    known |= {TRAINED: hashlib.sha256(content.encode()).hexdigest()} | tags
    run = client.create_run(experiment.experiment_id, run_name=name, tags=known)
    client.log_param(run.info.run_id, "imgsz", imgsz)
    client.log_text(run.info.run_id, content, "weights/best.pt")
    client.set_terminated(run.info.run_id)
    return client.get_run(run.info.run_id)
