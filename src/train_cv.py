"""Train YOLOv8n once and track the run in MLflow, without ZenML.

``python -m src.train_cv --epochs 3 --imgsz 320 --exp-name my_run`` is the lab's own command.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from src.client import use_stack
from src.datasets import FOLDER, manifest, sets
from src.datasets.validation import validate
from src.datasets.versioning import version_of
from src.errors import run_command
from src.services import health
from src.settings import ROOT, load_settings
from src.training import fingerprint, provenance, scoring, tracking, trainer
from src.training.recipes import as_given, read_recipe
from src.training.scaling import auto_here
from src.training.tracking import EXPERIMENT, naming_deleted_experiment, track
from src.training.trainer import workspace


def main() -> None:
    """Run the lab's command line: one training, tracked in MLflow."""
    parser = argparse.ArgumentParser(prog="python -m src.train_cv", description=__doc__)
    parser.add_argument("--epochs", type=as_given, help="default: the baseline's")
    parser.add_argument("--imgsz", type=as_given, help="image edge in px, a multiple of 32")
    parser.add_argument("--exp-name", default=EXPERIMENT, help="name of the MLflow run")
    parser.add_argument(
        "--data", type=Path, default=FOLDER, help="data set folder or its data.yaml"
    )
    parser.add_argument("--model", help="weights to start from; default: WEIGHTS")
    arguments = parser.parse_args()
    settings = load_settings()
    if arguments.model:
        settings = settings.model_copy(update={"weights": arguments.model})
    sets.require()
    use_stack(settings)
    health.require(settings)
    inputs = manifest.settled(settings)
    inputs.announce()
    given = {"epochs": arguments.epochs, "imgsz": arguments.imgsz}
    recipe = read_recipe(
        ROOT / "configs" / f"baseline{inputs.recipe_suffix}.yaml",
        {name: value for name, value in given.items() if value is not None},
        auto_here(inputs),
    )
    data = arguments.data.parent if arguments.data.suffix == ".yaml" else arguments.data
    validate(data)
    kind = manifest.read(data).kind
    import mlflow

    with naming_deleted_experiment(EXPERIMENT):
        mlflow.set_experiment(EXPERIMENT)
    tags = provenance.tags(
        version_of(data), kind, inputs.weights_name, inputs.weights_sha256
    ) | fingerprint.determinants(scoring, trainer, tracking, provenance)
    tags["machine"] = fingerprint.machine()
    with workspace(data) as (folder, copy), mlflow.start_run(run_name=arguments.exp_name):
        training = track(recipe, arguments.exp_name, copy, inputs.model, folder, tags)
    for name, value in training.metrics.items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    sys.exit(run_command(main))
