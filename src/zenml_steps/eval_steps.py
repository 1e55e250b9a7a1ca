"""The pipeline's last step: what came out, beside what the weights could do untrained."""

from __future__ import annotations

from typing import Annotated, Any

from zenml import log_metadata, step
from zenml.config.cache_policy import CachePolicy
from zenml.types import HTMLString

from src import mlflow_pages
from src.datasets import manifest
from src.settings import load_settings
from src.zenml_steps import summary


def cache_key() -> str:
    """Return MLflow's address: the page links to it, and a port may change."""
    return load_settings().mlflow_url


@step(
    cache_policy=CachePolicy(
        source_dependencies=[summary, manifest, mlflow_pages],
        file_dependencies=["reports/templates/summary.html", "reports/templates/style.css"],
        cache_func=cache_key,
    )
)
def summarize_yolo_experiment(training_result: dict[str, Any]) -> Annotated[HTMLString, "summary"]:
    """Return the summary as a page for ZenML's dashboard, its figures as the step's metadata."""
    log_metadata(summary.figures(training_result))
    link = mlflow_pages.moved(training_result["mlflow_url"], load_settings())
    return HTMLString(summary.page(training_result | {"mlflow_url": link}))
