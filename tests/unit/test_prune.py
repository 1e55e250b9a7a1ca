"""What make prune would delete: all that is deleted in the pages, nothing that is still needed."""

import io

import pytest
from mlflow import MlflowClient

from src import prune
from src.champion.registry import promote
from src.prune import Plan, PruneError
from src.settings import Settings
from src.training.tracking import EXPERIMENT
from tests.unit.mlflow_runs import tracked_run

pytestmark = pytest.mark.usefixtures("registry")


def planned() -> Plan:
    found = Plan()
    prune._plan_mlflow(found)
    return found


def test_deleted_runs_and_experiments_would_go() -> None:
    client = MlflowClient()
    gone, kept = tracked_run("gone"), tracked_run("kept")
    client.delete_run(gone.info.run_id)
    other = client.create_experiment("other")
    inside = client.create_run(other)
    client.delete_experiment(other)
    found = planned()
    assert set(found.runs) == {gone.info.run_id, inside.info.run_id}
    assert found.experiments == [other]
    assert kept.info.run_id not in found.runs
    assert not found.empty


@pytest.mark.usefixtures("no_export")
def test_a_deleted_run_whose_weights_are_registered_stays(settings: Settings) -> None:
    run = tracked_run("champion")
    promote(run, settings, "first")
    MlflowClient().delete_run(run.info.run_id)
    found = planned()
    assert found.runs == []
    assert found.kept == ["champion, which is person-detector version 1"]
    assert found.empty


@pytest.mark.usefixtures("no_export")
def test_a_deleted_experiment_with_registered_weights_stops_it(settings: Settings) -> None:
    client = MlflowClient()
    promote(tracked_run("champion"), settings, "first")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(PruneError, match="restore the experiment, or delete that version"):
        planned()


@pytest.mark.parametrize(
    ("kept", "calls"),
    [
        ([], [()]),
        (["x"], [("--run-ids", "0,1"), ("--run-ids", "2")]),
    ],
)
def test_gc_is_told_the_runs_only_where_one_must_stay(
    monkeypatch: pytest.MonkeyPatch, kept: list[str], calls: list[tuple[str, ...]]
) -> None:
    """Without ids it deletes all that is deleted."""
    monkeypatch.setattr(prune, "BATCH", 2)
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr(prune, "_gc", lambda *options: seen.append(options))
    prune._prune_mlflow(Plan(runs=["0", "1", "2"], kept=kept))
    assert seen == calls


@pytest.mark.parametrize(("typed", "goes_on"), [("prune\n", True), ("yes\n", False), ("", False)])
def test_the_word_must_be_typed(monkeypatch: pytest.MonkeyPatch, typed: str, goes_on: bool) -> None:
    terminal = io.StringIO(typed)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    if goes_on:
        prune._confirm()
        return
    with pytest.raises(PruneError, match="nothing deleted"):
        prune._confirm()


def test_nothing_is_deleted_where_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("prune\n"))
    with pytest.raises(PruneError, match="make prune FORCE=1"):
        prune._confirm()
