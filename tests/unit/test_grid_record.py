"""A grid's record: what it is the same grid by, and whether it is running."""

from pathlib import Path
from typing import Any

import pytest

from src.bootstrap import BootstrapError
from src.inputs import Inputs
from src.settings import Settings
from src.training import fingerprint, tracking
from src.training.recipes import Cell
from src.zenml_pipelines import grid_record
from src.zenml_pipelines.command_line import Job
from src.zenml_pipelines.grid_record import (
    CellState,
    GridRecord,
    begin,
    claimed,
    is_running,
    latest,
    plan,
    states,
)
from tests.unit.mlflow_runs import tracked_run

RECIPE = {"epochs": 1, "imgsz": 64, "batch": 8, "seed": 0}


def job(settings: Settings, **changes: Any) -> Job:
    inputs = Inputs(
        settled_for=("", "", ""), dataset="synthetic", weights="scratch",
        weights_sha256="scratch", notices=[],
    )  # fmt: skip
    return Job(**({"settings": settings, "inputs": inputs, "dataset_md5": "0.dir", "overrides": {},
                   "force": False} | changes))  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text("grid: {}\n")
    return file


def planned(
    settings: Settings, path: Path, recipe: dict[str, Any] = RECIPE, **changes: Any
) -> GridRecord:
    return plan(job(settings, **changes), path, [Cell("one", recipe)])


def test_the_record_holds_what_was_planned(settings: Settings, path: Path) -> None:
    record = planned(settings, path)
    assert record.file == "grid: {}\n"
    assert [cell.run_name for cell in record.cells] == ["one"]
    assert record.versions.keys() == {"python", *fingerprint.RECORDED}
    assert record.seeds == [0]
    assert record.tag.startswith("grid-tiny-")
    assert GridRecord.model_validate_json(record.model_dump_json()) == record


def test_it_is_the_same_grid_where_it_would_train_the_same(
    settings: Settings, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = planned(settings, path).identity
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # a grid may be carried on elsewhere
    path.write_text("# a comment\ngrid: {}\n")
    assert planned(settings, path).identity == same
    assert planned(settings, path, RECIPE | {"seed": 1}).identity != same
    assert planned(settings, path, dataset_md5="1.dir").identity != same
    monkeypatch.setattr(fingerprint, "code_hash", lambda *_: "other code")
    assert planned(settings, path).identity != same


def test_the_same_grid_again_carries_on_and_force_begins_another(
    registry: object, settings: Settings, path: Path
) -> None:
    assert latest() is None
    first = begin(planned(settings, path), afresh=False)
    again = planned(settings, path).model_copy(update={"tag": "grid-tiny-2"})
    assert begin(again, afresh=False) == first
    other = planned(settings, path, RECIPE | {"epochs": 2})
    other = other.model_copy(update={"tag": "grid-tiny-3"})
    assert begin(other, afresh=False) == other
    assert latest() == other
    assert begin(again, afresh=False) == first  # asked for again, it is the latest
    assert latest() == first
    assert begin(again, afresh=True) == again


def test_a_record_that_was_not_written_whole_is_no_record(
    registry: Any, settings: Settings, path: Path
) -> None:
    experiment = grid_record.restored(grid_record.EXPERIMENT)
    record = planned(settings, path)
    registry.create_run(experiment, tags={"identity": record.identity})
    assert latest() is None
    assert begin(record, afresh=False) == record


def test_a_deleted_experiment_of_records_is_restored(
    registry: Any, settings: Settings, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = begin(planned(settings, path), afresh=False)
    registry.delete_experiment(grid_record.restored(grid_record.EXPERIMENT))
    assert latest() == first
    assert "restored" in capsys.readouterr().err


def test_a_grid_runs_for_as_long_as_its_command(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "backend_state", tmp_path)
    assert not is_running(settings, "grid-x")
    with claimed(settings, "grid-x"):
        assert is_running(settings, "grid-x")
    assert not is_running(settings, "grid-x")
    (tmp_path / "grids" / "grid-x").touch()  # left by a killed command
    assert not is_running(settings, "grid-x")


class ZenMLServer:
    """Its REST API's answers, cut down to the keys that are read."""

    def __init__(self, *runs: tuple[str, bool, str | None]) -> None:
        """Hold runs as (name without its time, in progress, MLflow run's id), the oldest first."""
        self.runs = runs

    def call(self, method: str, path: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        if path == "projects/9ef6":
            return {"name": "default"}
        assert (method, path, params and params["tags"]) == ("GET", "runs", ["grid-tiny-1"])
        items = [
            {
                "id": f"run-{number}",
                "name": f"{name}-20261126-090214-669640",
                "body": {"project_id": "9ef6", "in_progress": running},
                "metadata": {"run_metadata": {"mlflow_run_id": tracked} if tracked else {}},
            }
            for number, (name, running, tracked) in enumerate(self.runs)
        ]
        return {"items": items}


def test_cells_are_as_far_as_zenml_and_mlflow_have_them(
    registry: Any, settings: Settings, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, deleted = (tracked_run(name).info.run_id for name in ("kept", "deleted"))
    registry.delete_run(deleted)
    server = ZenMLServer(
        ("retried", False, None), ("retried", True, None), ("kept", False, None),
        ("kept", False, kept), ("kept", False, None), ("deleted", False, deleted),
        ("killed", False, None), ("of another plan", True, None),
    )  # fmt: skip
    names = ("retried", "kept", "deleted", "killed", "to come")
    record = plan(job(settings), path, [Cell(name, RECIPE) for name in names])
    record = record.model_copy(update={"tag": "grid-tiny-1"})
    monkeypatch.setattr(grid_record, "signed_in", lambda _: server)
    monkeypatch.setattr(tracking, "load_settings", lambda: settings)
    monkeypatch.setattr(tracking, "use_stack", lambda _: None)  # MLflow is this test's own
    pages = f"{settings.zenml_url}/projects/default/runs"
    assert states(settings, record) == {
        "retried": CellState("running", "run-1", f"{pages}/run-1"),
        "kept": CellState("finished", "run-3", f"{pages}/run-3", kept),
        "deleted": CellState("deleted", "run-5", f"{pages}/run-5", deleted),
        "killed": CellState("failed", "run-6", f"{pages}/run-6"),
        "to come": CellState("not begun"),
    }
    monkeypatch.setattr(grid_record, "signed_in", lambda _: None)
    with pytest.raises(BootstrapError, match="make stack"):
        states(settings, record)
