"""What MLflow refuses, on its real store."""

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from src.training import tracking
from src.training.tracking import EXPERIMENT, ExperimentDeletedError, naming_deleted_experiment


@pytest.fixture(autouse=True)
def _stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "load_settings", lambda: None)
    monkeypatch.setattr(tracking, "use_stack", lambda settings: None)


def test_a_deleted_experiment_comes_with_the_command_that_restores_it(
    registry: MlflowClient,
) -> None:
    import mlflow

    found = registry.get_experiment_by_name(EXPERIMENT)
    registry.delete_experiment(found.experiment_id)
    with pytest.raises(ExperimentDeletedError) as caught, naming_deleted_experiment(EXPERIMENT):
        mlflow.set_experiment(EXPERIMENT)
    assert str(caught.value) == (
        f"the experiment {EXPERIMENT} was deleted in MLflow: bring it back with "
        f"scripts/run-client.sh mlflow experiments restore --experiment-id {found.experiment_id}"
    )


def test_another_refusal_stays_what_it_is(registry: MlflowClient) -> None:
    with pytest.raises(MlflowException, match="No Experiment"), naming_deleted_experiment("other"):
        registry.get_experiment("99")
    with pytest.raises(ValueError, match="mine"), naming_deleted_experiment(EXPERIMENT):
        raise ValueError("mine")
