"""The pipeline's last step: what came out, beside what the weights could do untrained."""

from __future__ import annotations

from typing import Annotated, Any

from zenml import log_metadata, step
from zenml.config.cache_policy import CachePolicy
from zenml.types import HTMLString

from src.datasets import manifest
from src.zenml_steps import summary


@step(cache_policy=CachePolicy(source_dependencies=[summary, manifest]))
def summarize_yolo_experiment(training_result: dict[str, Any]) -> Annotated[HTMLString, "summary"]:
    """Return the summary as a page for ZenML's dashboard, its figures as the step's metadata."""
    log_metadata(summary.figures(training_result))
    return HTMLString(summary.page(training_result))
