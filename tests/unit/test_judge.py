"""What the gate scores, and at which size: real registry, weights that are a number."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from src.champion.registry import RegistryError, promote
from src.datasets import DatasetError
from src.decision import gate
from src.decision.gate import judge
from src.settings import Settings
from src.training.trainer import SCORES, Metrics
from tests.unit.mlflow_runs import DATASET, tracked_run

STARTED_FROM = {"weights": "yolov8n.pt", "weights_sha256": "4567"}


@pytest.fixture(autouse=True)
def scored(
    registry: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[int, str]]:
    """Have weights be scored by the number in their file; return the sizes and splits asked for."""
    asked: list[tuple[int, str]] = []

    def score(model: str, data: Path, imgsz: int, split: str, folder: Path) -> Metrics | None:
        asked.append((imgsz, split))
        text = Path(model).read_text()
        return None if text == "cats" else dict.fromkeys(SCORES, float(text))

    def require_current(md5: str) -> None:
        if md5 != DATASET:
            raise DatasetError(f"not the version {md5}")

    @contextmanager
    def workspace(data: Path) -> Iterator[tuple[Path, Path]]:
        yield tmp_path, data

    monkeypatch.setattr(gate, "score", score)
    monkeypatch.setattr(gate, "require_current", require_current)
    monkeypatch.setattr(gate, "workspace", workspace)
    monkeypatch.setattr(gate, "kept", lambda digest: tmp_path / f"{digest}.pt")
    (tmp_path / "4567.pt").write_text("0.6")
    return asked


def names(verdict: gate.Verdict) -> list[str]:
    return [row.name for row in verdict.rows]


def test_from_scratch_and_without_a_champion_there_is_nothing_to_beat() -> None:
    verdict = judge(tracked_run("new", "0.1"))
    assert verdict.passed
    assert names(verdict) == ["new (candidate)"]


def test_all_are_scored_on_the_test_split_at_the_sizes_they_were_trained_at(
    settings: Settings, scored: list[tuple[int, str]]
) -> None:
    promote(tracked_run("old", "0.7", 416), settings, "first")
    verdict = judge(tracked_run("new", "0.8", 320, **STARTED_FROM))
    assert verdict.passed
    assert names(verdict) == [
        "new (candidate)",
        "yolov8n.pt, untrained",
        "old (champion, version 1)",
    ]
    assert scored == [(320, "test"), (320, "test"), (416, "test")]
    assert [row.imgsz for row in verdict.rows] == [320, 320, 416]


@pytest.mark.parametrize(("champions", "passed"), [("0.7", True), ("0.8", False), ("0.9", False)])
def test_the_champion_must_be_beaten(settings: Settings, champions: str, passed: bool) -> None:
    promote(tracked_run("old", champions), settings, "first")
    assert judge(tracked_run("new", "0.8", **STARTED_FROM)).passed is passed


def test_the_weights_it_started_from_must_be_beaten() -> None:
    assert not judge(tracked_run("new", "0.5", **STARTED_FROM)).passed


def test_the_champion_itself_is_not_judged_against_itself(settings: Settings) -> None:
    run = tracked_run("old", "0.7")
    promote(run, settings, "first")
    verdict = judge(run)
    assert not verdict.passed
    assert "champion already" in verdict.headline
    assert names(verdict) == ["old (candidate)"]


def test_the_candidates_scores_go_to_its_run(registry: MlflowClient) -> None:
    run = tracked_run("new", "0.8", **STARTED_FROM)
    judge(run)
    held = registry.get_run(run.info.run_id).data.metrics
    assert held == {f"test_{score}": 0.8 for score in SCORES}


def test_a_run_on_other_data_is_refused() -> None:
    with pytest.raises(RegistryError, match="new was trained on other data: not the version 89"):
        judge(tracked_run("new", dataset_md5="89.dir"))


def test_weights_that_this_checkout_does_not_hold_are_named() -> None:
    run = tracked_run("new", weights="mine.pt", weights_sha256="89")
    with pytest.raises(RegistryError, match=r"started from mine\.pt.*WEIGHTS"):
        judge(run)


def test_a_model_that_knows_no_people_is_refused() -> None:
    with pytest.raises(RegistryError, match="knows no class person"):
        judge(tracked_run("new", "cats"))
