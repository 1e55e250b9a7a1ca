"""How the cells of a grid get on: a line for each event where there is no terminal."""

import pytest

from src.training.recipes import Cell
from src.zenml_pipelines.outcome import Epoch, Failed, Finished, Outcome, Stopped
from src.zenml_pipelines.progress import Progress

CELLS = [Cell(name, {"epochs": 3, "imgsz": 320}) for name in ("one", "two")]


def finished(*, cached: bool) -> Finished:
    return Finished({"metrics": {"mAP50": 0.75}}, cached, 12.3, "http://localhost:8080/runs/1")


def test_each_epoch_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(CELLS) as progress:
        progress.on_epoch(Epoch("one", 2, 3, 0.5))
    assert capsys.readouterr().out == "one: epoch 2/3, mAP50 0.5000\n"


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (finished(cached=False), "mAP50 0.7500 (12 s)"),
        (finished(cached=True), "mAP50 0.7500 (from the cache)"),
        (Failed("out of memory"), "FAILED: out of memory"),
        (Stopped(), "stopped"),
    ],
)
def test_each_end_is_a_line(
    outcome: Outcome, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(CELLS) as progress:
        for cell in CELLS:
            progress.on_outcome(cell, outcome)
    assert capsys.readouterr().out == f"[1/2] one: {line}\n[2/2] two: {line}\n"
