"""What the gate scores, and at which size: real registry, weights that are a number."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from src.champion.registry import RegistryError, promote, rollback, starting_run
from src.decision import gate
from src.decision.gate import judge
from src.settings import Settings
from src.training.provenance import TRAINED
from src.training.scoring import SCORES
from tests.unit import scored_weights
from tests.unit.mlflow_runs import DATASET, tracked_run

pytestmark = pytest.mark.usefixtures("no_export")

STARTED_FROM = {"weights": "yolov8n.pt", "weights_sha256": scored_weights.START}


@pytest.fixture(autouse=True)
def scored(
    registry: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[int, str]]:
    """Return the sizes and splits that were asked for."""
    return scored_weights.use(tmp_path, monkeypatch)


def names(verdict: gate.Verdict) -> list[str]:
    return [row.name for row in verdict.rows]


def reasons(verdict: gate.Verdict) -> str:
    return "\n".join(verdict.reasons)


def test_from_scratch_and_without_a_champion_chance_is_the_rival() -> None:
    verdict = judge(tracked_run("new", "0.8"))
    assert verdict.passed
    assert names(verdict)[0] == "new (candidate)"
    assert names(verdict)[1].startswith("chance")
    assert not judge(tracked_run("nothing", "0.0")).passed


def test_all_are_scored_on_the_test_split_at_the_sizes_they_were_trained_at(
    settings: Settings, scored: list[tuple[int, str]]
) -> None:
    promote(tracked_run("old", "0.65", 416), settings, "first")
    verdict = judge(tracked_run("new", "0.99", 320, **STARTED_FROM))
    assert verdict.passed
    assert names(verdict) == [
        "new (candidate)",
        "yolov8n.pt, untrained",
        "old (champion, version 1)",
    ]
    assert sorted(scored) == [(320, "test"), (320, "test"), (416, "test")]
    assert [row.imgsz for row in verdict.rows] == [320, 320, 416]


@pytest.mark.parametrize(
    ("champions", "passed"), [("0.65", True), ("0.98", False), ("0.99", False)]
)
def test_the_champion_must_be_beaten(settings: Settings, champions: str, passed: bool) -> None:
    promote(tracked_run("old", champions), settings, "first")
    assert judge(tracked_run("new", "0.99", **STARTED_FROM)).passed is passed


def test_a_gain_within_the_noise_is_not_promoted_and_the_start_takes_over() -> None:
    run = tracked_run("new", "0.61", **STARTED_FROM)
    verdict = judge(run)
    assert not verdict.passed
    assert verdict.start_takes_over
    assert "Not distinguishable from yolov8n.pt, untrained (the rival)" in reasons(verdict)
    assert reasons(verdict).endswith(f"make promote RUN={run.info.run_id} FORCE=1 REASON='…'")


def test_the_champion_itself_is_not_judged_against_itself(settings: Settings) -> None:
    run = tracked_run("old", "0.7")
    promote(run, settings, "first")
    verdict = judge(run)
    assert not verdict.passed
    assert "champion already" in verdict.headline
    assert names(verdict) == ["old (candidate)"]


def test_a_deleted_champion_is_left_out_and_said(
    settings: Settings, registry: MlflowClient
) -> None:
    old = tracked_run("old", "0.99")
    promote(old, settings, "first")
    registry.delete_run(old.info.run_id)
    verdict = judge(tracked_run("new", "0.8"))
    assert verdict.passed
    assert "the champion, version 1, is left out: its run was deleted" in reasons(verdict)


def test_a_champion_that_cannot_be_checked_keeps_no_successor_out(
    settings: Settings, registry: MlflowClient
) -> None:
    old = tracked_run("old", "0.99")
    promote(old, settings, "by an earlier release")
    registry.delete_tag(old.info.run_id, TRAINED)
    verdict = judge(tracked_run("new", "0.8"))
    assert verdict.passed
    assert "the champion, version 1, is left out: old has no tag" in reasons(verdict)


def test_what_a_rollback_undid_is_not_promoted_again(settings: Settings) -> None:
    promote(tracked_run("old", "0.6"), settings, "first")
    new = tracked_run("new", "0.99")
    assert judge(new).passed
    promote(new, settings, "better")
    rollback()
    verdict = judge(new)
    assert not verdict.passed
    assert "make rollback took this run out of use" in reasons(verdict)
    promote(new, settings, "forced: after all")  # asked for, it comes back
    promote(tracked_run("third", "0.6"), settings, "forced")
    assert judge(new).passed


def test_the_candidates_scores_and_that_it_was_judged_go_to_its_run(registry: MlflowClient) -> None:
    run = tracked_run("new", "0.99", **STARTED_FROM)
    judge(run)
    held = registry.get_run(run.info.run_id).data
    assert set(held.metrics) == {f"test_{score}" for score in SCORES}
    assert any(tag.startswith(gate.JUDGED) for tag in held.tags)


def test_it_says_how_many_candidates_the_test_split_has_judged(registry: MlflowClient) -> None:
    first = tracked_run("one", "0.8")
    assert "1 candidate has been judged" in reasons(judge(first))
    registry.delete_run(first.info.run_id)  # it was judged all the same
    second = tracked_run("two", "0.8")
    for _ in range(2):
        assert "2 candidates have been judged" in reasons(judge(second))


def test_a_run_on_other_data_is_refused_unless_forced() -> None:
    run = tracked_run("new", dataset_md5="89.dir")
    with pytest.raises(RegistryError, match="new was trained on other data: not the version 89"):
        judge(run)
    verdict = judge(run, force=True)
    assert not verdict.passed
    assert "trained on other data" in reasons(verdict)


def test_weights_that_this_checkout_does_not_hold_are_named_or_left_out() -> None:
    run = tracked_run("new", "0.8", weights="mine.pt", weights_sha256="89")
    with pytest.raises(RegistryError, match=r"started from mine\.pt.*WEIGHTS"):
        judge(run)
    assert "left out: new started from mine.pt" in reasons(judge(run, force=True))


def test_a_model_that_knows_no_class_of_the_data_is_refused() -> None:
    with pytest.raises(RegistryError, match="knows none of the classes person"):
        judge(tracked_run("new", "cats"))
    assert not judge(tracked_run("new", "cats"), force=True).passed


def test_starting_weights_that_know_no_class_are_left_out(tmp_path: Path) -> None:
    (tmp_path / f"{scored_weights.START}.pt").write_text("cats")
    verdict = judge(tracked_run("new", "0.9", **STARTED_FROM))
    assert verdict.passed
    assert "knows none of the data's classes: left out" in reasons(verdict)


def test_the_starting_checkpoint_becomes_a_run_like_any_other(
    settings: Settings, registry: MlflowClient, tmp_path: Path
) -> None:
    run = tracked_run("new", "0.61", 416, **STARTED_FROM)
    scores = dict.fromkeys(SCORES, 0.5)
    made = starting_run(run, tmp_path / f"{scored_weights.START}.pt", scores)
    assert made.info.status == "FINISHED"
    assert made.data.params["imgsz"] == "416"
    assert made.data.tags["dataset_md5"] == DATASET
    assert made.data.metrics["test_mAP50"] == 0.5
    assert (
        starting_run(run, tmp_path / f"{scored_weights.START}.pt", scores).info.run_id
        == made.info.run_id
    )
    client = MlflowClient()
    client.update_run(made.info.run_id, status="RUNNING")  # as after a kill
    taken_up = starting_run(run, tmp_path / f"{scored_weights.START}.pt", scores)
    assert (taken_up.info.run_id, taken_up.info.status) == (made.info.run_id, "FINISHED")
    assert len(client.get_metric_history(made.info.run_id, "test_mAP50")) == 1
    promote(made, settings, "nothing beat it")
    verdict = judge(tracked_run("next", "0.99", **STARTED_FROM))
    assert verdict.passed
    assert "yolov8n.pt_416 (champion, version 1)" in names(verdict)
