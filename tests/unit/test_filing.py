"""A decision is filed whole, carried out once, and finished after a kill at any step."""

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient

from src.champion import registry as champions
from src.decision import filing, report
from src.decision.filing import Decision, make_report
from src.decision.report import ReportError
from src.decision.statistics import Grid, ReportedCell, ReportedRun
from src.settings import ROOT, Settings
from src.training.scoring import SCORES
from src.zenml_pipelines import grid_record
from src.zenml_pipelines.grid_record import GridRecord
from tests.unit import scored_weights
from tests.unit.mlflow_runs import tracked_run

pytestmark = pytest.mark.usefixtures("no_export")

TAG = "grid-tiny-20261123-101112"
STARTED_FROM = {"weights": "yolov8n.pt", "weights_sha256": scored_weights.START}


class KilledError(BaseException):
    """What stands for kill -9: nothing below may catch it."""


@pytest.fixture(autouse=True)
def reports(
    registry: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> Path:
    """A folder of reports; ZenML's artifact is a set of versions, as its server keeps them."""
    folder = tmp_path / "reports"
    folder.mkdir()
    scored_weights.use(tmp_path, monkeypatch)
    monkeypatch.setattr(filing, "REPORTS", folder)
    monkeypatch.setattr(filing, "kept", lambda digest: tmp_path / f"{digest}.pt")
    monkeypatch.setattr(type(settings), "backend_state", tmp_path / "state")
    monkeypatch.setattr(report, "draw", lambda grid, verdict, plots: plots.mkdir(parents=True))
    monkeypatch.setattr(report, "compare_runs", None)
    monkeypatch.setattr(filing, "analyse", lambda grid, compare: ["Best cell: one."])
    monkeypatch.setattr(report, "write", write)
    logged: set[str] = set()
    monkeypatch.setattr(filing, "_log_to_zenml", lambda folder: logged.add(folder.name))
    return folder


def write(grid: Grid, verdict: object, folder: Path, today: date, excuse: str) -> str:
    text = f"# Report\n\n{excuse}\n\n[MLflow](http://localhost:5000/x)\n"
    (folder / "report.md").write_text(text)
    (folder / "report.html").write_text(report.to_html(text, folder))
    return text


def of_one_run(
    monkeypatch: pytest.MonkeyPatch, share: str, tag: str = TAG, missing: tuple[str, ...] = (),
    **tags: str,
) -> str:  # fmt: skip
    """Have the latest grid be one run; return its id."""
    run = tracked_run("one", share, **tags)
    client = MlflowClient()
    for score in SCORES:
        client.log_metric(run.info.run_id, score, 0.5)
    run = client.get_run(run.info.run_id)
    grid = Grid("tiny", [ReportedCell("one", [ReportedRun(run, "z", "m")])], list(missing), tag=tag)
    record = GridRecord(
        tag=tag, identity="x", name="tiny", file="", created=datetime.now(UTC), cells=[],
        commit="", changes="", dataset="synthetic", dataset_md5="", weights="", weights_sha256="",
        versions={}, threads="1", seeds=[0], host="",
    )  # fmt: skip
    monkeypatch.setattr(grid_record, "latest", lambda: record)
    monkeypatch.setattr(report, "collect", lambda settings, record: grid)
    return run.info.run_id


def decision(folder: Path) -> Decision:
    return Decision.model_validate_json((folder / "decision.json").read_text())


def logged() -> int:
    """How many reports MLflow has, each with its scores once."""
    client = MlflowClient()
    found = client.get_experiment_by_name(filing.REPORTS_EXPERIMENT)
    runs = client.search_runs([found.experiment_id]) if found else []
    for run in runs:
        assert len(client.get_metric_history(run.info.run_id, "best_mAP50")) == 1
    return len(runs)


def test_the_same_grid_again_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run = of_one_run(monkeypatch, "0.9")
    folder = make_report(settings)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert decision(folder).headline == "Promoted to champion."
    assert champions.champion().run_id == run  # type: ignore[union-attr]
    capsys.readouterr()
    assert make_report(settings) == folder
    assert "unchanged" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert logged() == 1
    assert len(MlflowClient().search_model_versions(f"name = '{champions.MODEL}'")) == 1


def test_two_grids_of_one_day_have_a_report_each(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, reports: Path
) -> None:
    of_one_run(monkeypatch, "0.9")
    first = make_report(settings)
    of_one_run(monkeypatch, "0.5", tag="grid-tiny-20261123-111213")
    second = make_report(settings)
    assert first != second
    page = (reports / "index.html").read_text()
    assert page.index(second.name) < page.index(first.name)


def test_edits_survive_and_show_in_the_page(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    of_one_run(monkeypatch, "0.9")
    folder = make_report(settings)
    with (folder / "report.md").open("a") as file:
        file.write("\nMy own remark.\n")
    make_report(settings)
    assert "My own remark." in (folder / "report.md").read_text()
    assert "My own remark." in (folder / "report.html").read_text()


def test_links_follow_a_changed_port(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    of_one_run(monkeypatch, "0.9")
    folder = make_report(settings)
    make_report(settings.model_copy(update={"mlflow_port": 5999}))
    for name in ("report.md", "report.html"):
        assert "localhost:5999/x" in (folder / name).read_text()
        assert "localhost:5000/x" not in (folder / name).read_text()


STEPS = {
    "judging": (filing.gate, "judge"),
    "drawing": (report, "draw"),
    "filing": (Path, "rename"),
    "logging to MLflow": (filing, "_log_to_mlflow"),
    "in the middle of logging": (filing.mlflow, "log_artifacts"),
    "logging to ZenML": (filing, "_log_to_zenml"),
    "promoting": (filing.registry, "promote"),
    "the last word": (filing, "write_index"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_each_step_is_finished_by_the_next_report(
    step: str, when: str, monkeypatch: pytest.MonkeyPatch, settings: Settings, reports: Path
) -> None:
    run = of_one_run(monkeypatch, "0.9")
    where, name = STEPS[step]
    real = getattr(where, name)

    def killed(*arguments: object, **named: object) -> object:
        if when == "after":
            real(*arguments, **named)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(where, name, killed)
        with pytest.raises(KilledError):
            make_report(settings)
        champion = champions.champion()
        if champion is not None:  # no alias moves before the report is whole and logged
            (folder,) = [f for f in reports.iterdir() if f.is_dir() and f.name[0] != "."]
            assert (folder / "report.html").is_file()
            assert logged() == 1
    folder = make_report(settings)
    assert decision(folder).state == "done"
    assert champions.champion().run_id == run  # type: ignore[union-attr]
    assert logged() == 1
    assert [f.name for f in reports.iterdir() if f.is_dir()] == [folder.name]
    make_report(settings)
    assert len(MlflowClient().search_model_versions(f"name = '{champions.MODEL}'")) == 1


def test_nothing_better_than_the_start_makes_the_start_champion(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    of_one_run(monkeypatch, "0.61", **STARTED_FROM)
    folder = make_report(settings)
    now = champions.champion()
    assert now is not None
    assert champions.STARTING in MlflowClient().get_run(str(now.run_id)).data.tags
    assert "yolov8n.pt itself becomes champion" in decision(folder).headline
    assert decision(folder).outcome == "version 1"


def test_another_champion_meanwhile_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    of_one_run(monkeypatch, "0.9")
    with monkeypatch.context() as patch:
        patch.setattr(filing, "_log_to_zenml", lambda folder: (_ for _ in ()).throw(KilledError))
        with pytest.raises(KilledError):
            make_report(settings)
    other = tracked_run("other", "0.1")
    champions.promote(other, settings, "by hand")
    folder = make_report(settings)
    assert champions.champion().run_id == other.info.run_id  # type: ignore[union-attr]
    assert "another has become champion" in decision(folder).outcome


def test_an_incomplete_grid_is_not_decided_on_unless_asked(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    of_one_run(monkeypatch, "0.9", missing=("two (failed)",))
    with pytest.raises(ReportError, match=r"not finished: two \(failed\).*FORCE=1 REASON"):
        make_report(settings)
    with pytest.raises(ReportError, match="needs a reason"):
        make_report(settings, force=True)
    folder = make_report(settings, force=True, reason="the others crashed")
    assert "the others crashed" in (folder / "report.md").read_text()


def test_a_grid_that_is_running_is_not_decided_on(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    of_one_run(monkeypatch, "0.9")
    with (
        grid_record.claimed(settings, TAG),
        pytest.raises(ReportError, match="still running"),
    ):
        make_report(settings)
    assert make_report(settings).is_dir()


def test_a_repeated_report_needs_neither_zenml_nor_plots() -> None:
    """Each takes a second or more to import."""
    code = (
        "import sys, src.decision.__main__\n"
        "print({'zenml', 'matplotlib', 'scipy.stats', 'torch'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
