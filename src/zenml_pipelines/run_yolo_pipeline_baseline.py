"""Run the pipeline once with the baseline's recipe (``configs/baseline*.yaml``)."""

from __future__ import annotations

import sys

from src.services.outage import patience
from src.settings import ROOT
from src.training.recipes import RUN_PREFIX, Cell, read_recipe
from src.training.scaling import auto_here
from src.zenml_pipelines.command_line import Job, run

RUN_NAME = f"{RUN_PREFIX}_baseline"


def baseline(job: Job) -> int:
    """Train the baseline and print its scores beside the untrained weights'."""
    path = ROOT / "configs" / f"baseline{job.inputs.recipe_suffix}.yaml"
    recipe = read_recipe(path, job.overrides, auto_here(job.inputs))
    from src.zenml_pipelines.yolo_training_pipeline import run_cell

    with patience(job.settings):
        done = run_cell(Cell(RUN_NAME, recipe), job.inputs, job.dataset_md5, force=job.force)
    result = done.result
    print(f"{RUN_NAME}: {'from the cache' if done.cached else 'trained'}")
    for score, value in result["metrics"].items():
        before = f" (untrained {result['untrained'][score]:.4f})" if result["untrained"] else ""
        print(f"  {score:<10} {value:.4f}{before}")
    print(f"  data       {result['provenance']['dataset']}, {result['provenance']['weights']}")
    print(f"  ZenML      {done.zenml_url}\n  MLflow     {result['mlflow_url']}")
    print("  next       make grid")
    return 0


if __name__ == "__main__":
    sys.exit(run(baseline, __doc__ or ""))
