"""Where to look: ``python -m src.training.where`` prints the page of MLflow that shows the runs."""

from __future__ import annotations

import sys

import requests

from src import mlflow_pages
from src.datasets import SET
from src.errors import run_command
from src.services.launcher import PROOF
from src.settings import Settings, load_settings

TIMEOUT = 10.0  # seconds


def runs_page(settings: Settings) -> str:
    """Return the address of the table of runs, of the list of experiments before the first run.

    A click in that list would lead to MLflow's GenAI side.
    """
    try:
        with requests.Session() as http:
            http.trust_env = False  # no proxy between this machine and itself
            answer = http.get(
                f"{settings.mlflow_url}/api/2.0/mlflow/experiments/get-by-name",
                params={"experiment_name": SET.experiment},
                auth=(settings.mlflow_admin_username, settings.mlflow_admin_password),
                timeout=TIMEOUT,
            )
    except requests.RequestException:  # whether MLflow is healthy is for others to say
        return mlflow_pages.home(settings)
    # Another checkout's server, or there is none yet, or a changed password awaits make stack.
    if answer.headers.get(PROOF) != settings.checkout or answer.status_code != 200:
        return mlflow_pages.home(settings)
    return mlflow_pages.experiment(settings, answer.json()["experiment"]["experiment_id"])


def main() -> None:
    """Print the page."""
    print(runs_page(load_settings()))


if __name__ == "__main__":
    sys.exit(run_command(main))
