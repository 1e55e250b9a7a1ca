"""Track a training in MLflow: parameters, curves, scores, files and where they come from."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from src import mlflow_pages
from src.client import use_stack
from src.datasets import SET
from src.datasets.manifest import class_names
from src.errors import UserError
from src.files import sha256
from src.settings import load_settings
from src.training.classes import batches, metric_names
from src.training.provenance import TRAINED
from src.training.recipes import Recipe
from src.training.scoring import SCORES, Metrics
from src.training.trainer import WATCH, Training, train

EXPERIMENT = SET.experiment
LONG = 600.0  # seconds of training that are worth a warning
ARTIFACTS = (
    "results.png",
    "confusion_matrix.png",
    "BoxPR_curve.png",
    "val_batch0_labels.jpg",
    "val_batch0_pred.jpg",
    "args.yaml",
    "results.csv",
    "weights/best.pt",
)
MATCHES = "matches_val.npz"  # what the report compares cells by


class ExperimentDeletedError(UserError):
    """The experiment was deleted in MLflow; the message says how to bring it back."""


@contextmanager
def naming_deleted_experiment(name: str) -> Iterator[None]:
    """Raise ``ExperimentDeletedError`` where MLflow refuses because ``name`` was deleted.

    MLflow's own messages lack the id, which is needed to restore it.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException:
        require_experiment(name)
        raise


def require_experiment(name: str) -> None:
    """Raise ``ExperimentDeletedError`` where the experiment was deleted; it may not exist yet."""
    from mlflow import MlflowClient

    use_stack(load_settings())  # again: ZenML's tracker takes its variables away
    found = MlflowClient().get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        raise ExperimentDeletedError(
            f"the experiment {name} was deleted in MLflow: bring it back with "
            "scripts/run-client.sh mlflow experiments restore --experiment-id "
            f"{found.experiment_id}"
        )


def whereabouts(run_id: str) -> str:
    """Return why MLflow can't show a run, blank where it can."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        stage = MlflowClient().get_run(run_id).info.lifecycle_stage
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return "is gone from MLflow"
    return "" if stage == "active" else "was deleted in MLflow"


def track(
    recipe: Recipe,
    run_name: str,
    data: Path,
    model: str,
    folder: Path,
    provenance: Mapping[str, str],
) -> Training:
    """Train, and log everything to the active MLflow run, renamed to ``run_name``.

    Logs parameters, per-epoch curves, the four scores of the best weights and of the untrained
    ones (``untrained_…``), mAP50 by class (``mAP50/<class>``), ``training_seconds`` and
    ``busy_seconds``, Ultralytics' plots, arguments and weights, which boxes hit, the data set as an
    input, and ``provenance`` as tags.
    """
    import mlflow

    run = mlflow.active_run()
    assert run is not None
    mlflow.set_tag("mlflow.runName", run_name)
    mlflow.set_experiment_tags(
        {
            "mlflow.experimentKind": "custom_model_development",
            mlflow_pages.VIEW_TAG: mlflow_pages.view(
                (*SCORES, "training_seconds"), ("epochs", "imgsz")
            ),
        }
    )
    mlflow.set_tags(dict(provenance))
    mlflow.log_params(recipe | {"model": provenance.get("weights", model)})
    _log_dataset(provenance)

    began = time.monotonic()

    def on_epoch(epoch: int, values: Metrics) -> None:
        mlflow.log_metrics(values, step=epoch)
        if epoch == 1:
            _say_how_long(run_name, time.monotonic() - began, int(recipe["epochs"]))
        WATCH.on_epoch(run_name, epoch, int(recipe["epochs"]), values)
        print(
            f"{run_name}: epoch {epoch}/{recipe['epochs']}, "
            f"box loss {values.get('train_box_loss', 0.0):.3f}, mAP50 {values['mAP50']:.4f}"
        )

    training = train(recipe, data, model, folder, on_epoch)
    final = training.metrics | {
        "training_seconds": training.seconds,
        "busy_seconds": training.busy_seconds,
    }
    if training.untrained is not None:
        final |= {f"untrained_{name}": value for name, value in training.untrained.items()}
    names = metric_names(class_names(data))
    final |= {names[title]: value for title, value in training.by_class.items()}
    for part in batches(final):
        mlflow.log_metrics(part, step=training.epochs)
    mlflow.set_tag(TRAINED, sha256(training.weights))
    training.matches.save(training.folder / MATCHES)
    for name in (*ARTIFACTS, MATCHES):
        file = training.folder / name
        if file.is_file():
            mlflow.log_artifact(str(file), str(Path(name).parent) if "/" in name else None)
    return training


def _say_how_long(run_name: str, first: float, epochs: int) -> None:
    """Say after the first epoch, of which ``first`` is the time in s, when there is long to go."""
    left = first * (epochs - 1)
    if left > LONG:
        sys.stderr.write(
            f"{run_name}: the first of {epochs} epochs took {first:.0f} s: up to {left / 60:.0f} "
            "minutes to go (fewer with EPOCHS or IMGSZ)\n"
        )


def _log_dataset(provenance: Mapping[str, str]) -> None:
    import mlflow
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset

    md5 = provenance["dataset_md5"].removesuffix(".dir")
    bucket = load_settings().dvc_bucket
    source = resolve_dataset_source(f"s3://{bucket}/files/md5/{md5[:2]}/{md5[2:]}.dir")
    dataset = MetaDataset(source, name=f"{SET.name}_{provenance['dataset']}", digest=md5[:32])
    mlflow.log_input(dataset, context="training")
