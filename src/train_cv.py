"""Train YOLOv8n and track the run in MLflow, without ZenML; what the pipeline's step calls.

``python -m src.train_cv --epochs 3 --imgsz 320 --exp-name my_run`` is the lab's own command.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.datasets import CLASSES, FOLDER, DatasetError, manifest
from src.datasets.validation import validate
from src.datasets.versioning import pointer_md5
from src.inputs import SCRATCH_MODEL, InputsError, settle
from src.recipes import Recipe, RecipeError, read_recipe
from src.settings import ROOT, SettingsError, load_settings, use_stack

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer

EXPERIMENT = "cv_yolo_tiny"
METRICS = {
    "metrics/mAP50(B)": "mAP50",
    "metrics/mAP50-95(B)": "mAP50-95",
    "metrics/precision(B)": "precision",
    "metrics/recall(B)": "recall",
}
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
SCORE_BATCH = 8  # images; the same for every model, so that scores compare
ORIGIN = ROOT / "origin.json"  # beside code that was sent to a cluster's worker
INTEGRATIONS = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")

Metrics = dict[str, float]
EpochCallback = Callable[[int, Metrics], None]


@dataclass
class Watch:
    """How whoever runs this process follows a training, and ends it early."""

    on_epoch: Callable[[str, int, int, Metrics], None] = lambda *_: None  # run, epoch, epochs
    stopped: Callable[[], bool] = lambda: False
    node: str = socket.gethostname()  # where it runs


WATCH = Watch()


@dataclass(frozen=True)
class Training:
    """A finished training; its files are in ``folder``."""

    folder: Path
    metrics: Metrics  # of the best epoch's weights on the validation split, each 0 to 1
    untrained: Metrics | None  # of the weights it started from, same split and size
    seconds: float  # of wall clock, training and its validations

    @property
    def weights(self) -> Path:
        """The best epoch's checkpoint."""
        return self.folder / "weights" / "best.pt"


@contextmanager
def workspace(data: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a temporary folder and a copy of the data set in it; both are gone afterwards.

    Ultralytics writes caches beside the labels, which would change what DVC versions.
    """
    with tempfile.TemporaryDirectory(prefix="training-") as folder:
        copy = Path(folder) / "data"
        shutil.copytree(data, copy)
        yield Path(folder), copy


def train(
    recipe: Recipe, data: Path, model: str, folder: Path, on_epoch: EpochCallback
) -> Training:
    """Train ``model`` (a checkpoint or an architecture) on the data set folder ``data``.

    The same recipe, data and model give the same weights: fixed seed, deterministic kernels, and
    on a CPU one thread (``OMP_NUM_THREADS`` for another number), because the sums of several
    threads depend on their number. Writes into ``folder`` only.
    """
    import torch
    from ultralytics import YOLO

    _configure_libraries()
    data_file = str(data / "data.yaml")
    untrained = score(model, data, recipe["imgsz"], "val", folder)

    yolo = YOLO(model)
    seen = -1

    def after_epoch(trainer: BaseTrainer) -> None:
        nonlocal seen
        if trainer.epoch <= seen or trainer.epoch >= trainer.epochs:
            return  # the final validation comes here too
        seen = trainer.epoch
        losses = {
            name.replace("/", "_"): float(value)
            for name, value in trainer.label_loss_items(trainer.tloss, prefix="train").items()
        }
        on_epoch(trainer.epoch + 1, losses | _named(trainer.metrics))

    def after_batch(trainer: BaseTrainer) -> None:
        if WATCH.stopped():
            raise KeyboardInterrupt

    yolo.add_callback("on_train_batch_end", after_batch)
    yolo.add_callback("on_fit_epoch_end", after_epoch)
    started = time.monotonic()
    yolo.train(
        **recipe,
        data=data_file,
        project=str(folder),
        name="training",
        exist_ok=True,
        workers=0,
        deterministic=True,
        amp=torch.cuda.is_available(),
        plots=True,
        verbose=False,
    )
    seconds = time.monotonic() - started
    trainer = yolo.trainer
    return Training(Path(trainer.save_dir), _named(trainer.metrics), untrained, seconds)


def score(model: str, data: Path, imgsz: int, split: str, folder: Path) -> Metrics | None:
    """Return a model's four scores, each 0 to 1, on a split at an image size in px.

    COCO's other classes are left out of account. None for a model whose first class is no person.
    """
    from ultralytics import YOLO

    _configure_libraries()
    yolo = YOLO(model)
    if model != SCRATCH_MODEL and yolo.names.get(0) not in CLASSES:
        return None
    result = yolo.val(
        data=str(data / "data.yaml"),
        imgsz=imgsz,
        split=split,
        batch=SCORE_BATCH,
        classes=[0],
        workers=0,
        plots=False,
        project=str(folder),
        name="score",
        exist_ok=True,
        verbose=False,
    )
    return _named(result.results_dict)


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
    ones (``untrained_…``), ``training_seconds``, Ultralytics' plots, arguments and weights, the
    data set as an input, and ``provenance`` as tags.
    """
    import mlflow

    run = mlflow.active_run()
    assert run is not None
    mlflow.set_tag("mlflow.runName", run_name)
    mlflow.set_experiment_tag("mlflow.experimentKind", "custom_model_development")
    mlflow.set_tags(dict(provenance))
    mlflow.log_params(recipe | {"model": provenance.get("weights", model)})
    _log_dataset(provenance)

    def on_epoch(epoch: int, values: Metrics) -> None:
        mlflow.log_metrics(values, step=epoch)
        WATCH.on_epoch(run_name, epoch, int(recipe["epochs"]), values)
        print(
            f"{run_name}: epoch {epoch}/{recipe['epochs']}, "
            f"box loss {values.get('train_box_loss', 0.0):.3f}, mAP50 {values['mAP50']:.4f}"
        )

    training = train(recipe, data, model, folder, on_epoch)
    final = training.metrics | {"training_seconds": training.seconds}
    if training.untrained is not None:
        final |= {f"untrained_{name}": value for name, value in training.untrained.items()}
    mlflow.log_metrics(final, step=int(recipe["epochs"]))
    for name in ARTIFACTS:
        file = training.folder / name
        if file.is_file():
            mlflow.log_artifact(str(file), str(Path(name).parent) if "/" in name else None)
    return training


def provenance(dataset_md5: str, kind: str, weights: str, weights_sha256: str) -> dict[str, str]:
    """Return the tags that tell where a run's numbers come from."""
    return {
        "dataset": kind,
        "dataset_md5": dataset_md5,
        "weights": weights,
        "weights_sha256": weights_sha256,
        "git_commit": git_commit(),
        "node": WATCH.node,
    }


def git_commit() -> str:
    """Return the checkout's commit, ``+changes`` where the code differs from it."""
    if ORIGIN.is_file():
        return str(json.loads(ORIGIN.read_text())["git_commit"])

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
        ).stdout.strip()

    commit = git("rev-parse", "HEAD")
    if not commit.isalnum():  # no commit yet
        return "none"
    return f"{commit}+changes" if git("status", "--porcelain", "--", "src", "configs") else commit


def _named(metrics: Mapping[str, Any]) -> Metrics:
    """Return the four scores under the names that MLflow and people use."""
    return {ours: float(metrics[theirs]) for theirs, ours in METRICS.items() if theirs in metrics}


def _log_dataset(provenance: Mapping[str, str]) -> None:
    import mlflow
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset

    md5 = provenance["dataset_md5"].removesuffix(".dir")
    bucket = load_settings().dvc_bucket
    source = resolve_dataset_source(f"s3://{bucket}/files/md5/{md5[:2]}/{md5[2:]}.dir")
    dataset = MetaDataset(source, name=f"tiny_person_{provenance['dataset']}", digest=md5[:32])
    mlflow.log_input(dataset, context="training")


def _configure_libraries() -> None:
    """One thread, and Ultralytics without integrations but with a font, lest it fetch one."""
    import matplotlib
    from ultralytics.utils import SETTINGS, USER_CONFIG_DIR, torch_utils

    # Not torch.set_num_threads: Ultralytics calls that itself with this, all cores but one.
    torch_utils.NUM_THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
    unwanted = {name: False for name in INTEGRATIONS if SETTINGS.get(name)}
    if unwanted:
        SETTINGS.update(unwanted)
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):
        font = Path(USER_CONFIG_DIR) / name
        if not font.is_file():
            shutil.copy(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", font)


def main() -> int:
    """Run the lab's command line: one training, tracked in MLflow."""
    parser = argparse.ArgumentParser(prog="python -m src.train_cv", description=__doc__)
    parser.add_argument("--epochs", type=int, help="default: the baseline's")
    parser.add_argument("--imgsz", type=int, help="image edge in px, a multiple of 32")
    parser.add_argument("--exp-name", default=EXPERIMENT, help="name of the MLflow run")
    parser.add_argument(
        "--data", type=Path, default=FOLDER, help="data set folder or its data.yaml"
    )
    parser.add_argument("--model", help="weights to start from; default: WEIGHTS")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        if arguments.model:
            settings = settings.model_copy(update={"weights": arguments.model})
        use_stack(settings)
        inputs = settle(settings)
        inputs.announce()
        given = {"epochs": arguments.epochs, "imgsz": arguments.imgsz}
        recipe = read_recipe(
            ROOT / "configs" / f"baseline{inputs.recipe_suffix}.yaml",
            {name: value for name, value in given.items() if value is not None},
        )
        data = arguments.data.parent if arguments.data.suffix == ".yaml" else arguments.data
        validate(data)
        kind = manifest.read(data).kind
    except (DatasetError, InputsError, RecipeError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    import mlflow

    mlflow.set_experiment(EXPERIMENT)
    tags = provenance(pointer_md5() or "none", kind, inputs.weights_name, inputs.weights_sha256)
    with workspace(data) as (folder, copy), mlflow.start_run(run_name=arguments.exp_name):
        training = track(recipe, arguments.exp_name, copy, inputs.model, folder, tags)
    for name, value in training.metrics.items():
        print(f"{name}: {value:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
