"""How a grid's command ends."""

from pathlib import Path

import pytest

from src import errors
from src.training.recipes import Cell
from src.zenml_pipelines.outcome import Failed, Finished, Outcome, Stopped
from src.zenml_pipelines.run_yolo_pipeline_grid import CellsFailedError, _require_success

FINISHED = Finished({}, False, 1.0, "http://zenml/1")
CELLS = [Cell(name, {}) for name in ("a", "b", "c", "d")]


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(errors, "_ROOT", tmp_path)
    monkeypatch.setattr(errors, "LOG", tmp_path / "errors.log")
    return tmp_path / "errors.log"


def test_without_a_failure_it_ends_well() -> None:
    _require_success(CELLS[:2], {"a": FINISHED, "b": Stopped()})


def test_each_cause_is_a_line_with_its_cells(log: Path) -> None:
    done: dict[str, Outcome] = {
        "a": Failed("no room: make room"),
        "b": FINISHED,
        "c": Failed("ValueError: x", "Traceback of c"),
        "d": Failed("no room: make room"),
    }
    with pytest.raises(CellsFailedError) as caught:
        _require_success(CELLS, done)
    assert str(caught.value).splitlines() == [
        "3 of 4 cells failed; the same command runs only those again",
        "a, d: no room: make room",
        "c: ValueError: x",
        "the traceback is in errors.log",
    ]
    assert "Traceback of c" in log.read_text()
