"""Links into MLflow's pages: the one place where they are made.

Without ``workflowType`` in its address, MLflow 3.17 opens an experiment on its GenAI side. A
``viewStateShareKey`` names a saved view: which columns the table of runs has and how it is sorted.
The names are those of MLflow's own page, which documents neither.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

from src.settings import Settings

VIEW = "training"  # the saved view's key
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"  # of the experiment
_TRAINING_SIDE = "workflowType=machine_learning"


def home(settings: Settings) -> str:
    """Return the address of the list of experiments."""
    return f"{settings.mlflow_url}/#/experiments?{_TRAINING_SIDE}"


def experiment(settings: Settings, experiment_id: str) -> str:
    """Return the address of an experiment's table of runs, newest first, scores as columns."""
    return (
        f"{settings.mlflow_url}/#/experiments/{experiment_id}/runs"
        f"?{_TRAINING_SIDE}&viewStateShareKey={VIEW}"
    )


def run(settings: Settings, experiment_id: str, run_id: str) -> str:
    """Return the address of a run's page."""
    return f"{settings.mlflow_url}/#/experiments/{experiment_id}/runs/{run_id}?{_TRAINING_SIDE}"


def compare(settings: Settings, experiment_id: str, run_ids: Iterable[str]) -> str:
    """Return the address of the page that shows several runs of an experiment side by side."""
    runs = quote(json.dumps(list(run_ids), separators=(",", ":")), safe=",")
    experiments = quote(json.dumps([experiment_id]))
    return (
        f"{settings.mlflow_url}/#/compare-runs?runs={runs}&experiments={experiments}"
        f"&{_TRAINING_SIDE}"
    )


def version(settings: Settings, model: str, number: str) -> str:
    """Return the address of a registered model's version."""
    return f"{settings.mlflow_url}/#/models/{model}/versions/{number}?{_TRAINING_SIDE}"


def experiment_of(known: str) -> str:
    """Return the experiment's id in the address of a run's page."""
    return known.partition("/#/experiments/")[2].partition("/")[0]


def moved(known: str, settings: Settings) -> str:
    """Return a run's page under MLflow's present address; ``known`` may be an older version's."""
    found = re.search(r"/#/experiments/([^/?]+)/runs/([^/?]+)", known)
    if found is None:
        return known
    return run(settings, found[1], found[2])


def view(metrics: Iterable[str], params: Iterable[str]) -> str:
    """Return the saved view's content (the value of ``VIEW_TAG``): columns, newest run first."""
    columns = ["attributes.`Created`"]
    columns += [f"metrics.`{name}`" for name in metrics]
    columns += [f"params.`{name}`" for name in params]
    return json.dumps(
        {
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "selectedColumns": columns,
            "columnOrder": columns,
        }
    )
