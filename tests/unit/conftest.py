"""What the unit tests share: valid settings, and libraries kept away from the home folder."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from urllib3.util import connection

from src.settings import EXAMPLE_FILE, Settings, read_env_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

MakeSettings = Callable[..., Settings]


def pytest_configure(config: pytest.Config) -> None:
    """Keep libraries out of the home folder and off the network, before any test imports them."""
    folder = tempfile.mkdtemp(prefix="unit-tests-")
    # The lab's own data set, whichever is in use in this checkout.
    os.environ.pop("DATASET", None)
    os.environ["NAME"] = "tiny_person"
    config.add_cleanup(lambda: shutil.rmtree(folder))
    places = ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "YOLO_CONFIG_DIR")
    os.environ |= dict.fromkeys(places, folder)
    os.environ |= dict.fromkeys(
        ("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "YOLO_OFFLINE"), "true"
    )
    os.environ |= dict.fromkeys(("ZENML_ANALYTICS_OPT_IN", "YOLO_AUTOINSTALL"), "false")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command waits for in a test, no other test waits for: see src/services/outage.py."""
    monkeypatch.setattr(connection, "create_connection", connection.create_connection)


@pytest.fixture
def valid() -> dict[str, str]:
    """``.env.example`` with its blank secrets filled, each differently."""
    return {
        key: value or hashlib.sha256(key.encode()).hexdigest()[:32]
        for key, value in read_env_file(EXAMPLE_FILE).items()
    }


@pytest.fixture
def make_settings(valid: dict[str, str]) -> MakeSettings:
    """Return valid settings with some changed: ``make_settings(dataset="coco128")``."""

    def make(**changes: object) -> Settings:
        values = {key.lower(): value for key, value in valid.items()}
        return Settings.model_validate(values | changes)

    return make


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


@pytest.fixture
def mode_of() -> Callable[[Path], str]:
    """Return a file's permission bits as ``ls`` users write them: ``600``."""
    return lambda path: f"{path.stat().st_mode & 0o777:o}"


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables, which take seconds to make."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def registry(
    empty_mlflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator["MlflowClient"]:
    """MLflow's real store and registry, this test's own, with the experiment and no run."""
    import mlflow

    from src.training.tracking import EXPERIMENT

    monkeypatch.chdir(tmp_path)  # where MLflow puts the artifacts of other experiments
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{shutil.copy(empty_mlflow, tmp_path / 'mlflow.db')}")
    try:
        client = mlflow.MlflowClient()
        client.create_experiment(EXPERIMENT, (tmp_path / "artifacts").as_uri())
        yield client
    finally:
        mlflow.set_tracking_uri(before)


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Register a version without making the model of it, which takes weights that are some."""
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from src.champion import model, registry
    from src.decision import gate

    def register(run: Run, settings: Settings, *, force: bool) -> ModelVersion:
        source, tags = f"{run.info.artifact_uri}/model", {model.FILES_TAG: "{}"}
        return MlflowClient().create_model_version(
            registry.MODEL, source, run.info.run_id, tags=tags
        )

    monkeypatch.setattr(registry, "_register", register)
    monkeypatch.setattr(model, "is_intact", lambda version: True)
    monkeypatch.setattr(gate, "make_model", lambda *_: tmp_path)
    monkeypatch.setattr(gate, "made_of", lambda *_: tmp_path)
    monkeypatch.setattr(gate, "fidelity_of", lambda *_: registry.Fidelity(0.8, 0.8))
