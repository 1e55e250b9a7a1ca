"""The report's comparisons and pages, on made-up runs."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from src.decision import plots, report, statistics
from src.decision.comparison import Comparison
from src.decision.gate import Model, Row, Verdict
from src.decision.statistics import Grid, ReportedCell, ReportedRun
from src.training.scoring import SCORES, Scored

SHARED = {"batch": "8", "optimizer": "AdamW", "model": "yolov8n.pt"}
TAGS = {
    "dataset": "coco128",
    "dataset_md5": "abc.dir",
    "weights": "yolov8n.pt",
    "weights_sha256": "0" * 64,
    "git_commit": "1" * 40,
}


def finished(epochs: int, imgsz: int, seed: int, score: float, seconds: float) -> ReportedRun:
    name = f"zenml_yolo_tiny_e{epochs}_{imgsz}_s{seed}"
    metrics = {"mAP50": score, "mAP50-95": score / 2, "precision": 0.9, "recall": 0.6}
    metrics |= {"untrained_mAP50": 0.79, "training_seconds": seconds, "busy_seconds": seconds}
    params = SHARED | {"epochs": str(epochs), "imgsz": str(imgsz), "seed": str(seed)}
    data = SimpleNamespace(metrics=metrics, params=params, tags=TAGS)
    run: Any = SimpleNamespace(info=SimpleNamespace(run_name=name, run_id=name), data=data)
    return ReportedRun(run, f"http://zenml/{name}", f"http://mlflow/{name}")


def grid(scores: Mapping[tuple[int, int], list[float]]) -> Grid:
    cells = [
        ReportedCell(
            f"zenml_yolo_tiny_e{epochs}_{imgsz}",
            [
                finished(epochs, imgsz, s, score, epochs * imgsz / 10)
                for s, score in enumerate(found)
            ],
        )
        for (epochs, imgsz), found in scores.items()
    ]
    return Grid("grid", cells, [])


@pytest.fixture(autouse=True)
def _no_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up runs have no boxes to compare by."""
    same = Comparison(0.0, -0.1, 0.1, "not distinguishable", 10, None)
    monkeypatch.setattr(report, "compare_runs", lambda first, second: same)


def judged(name: str, scores: dict[str, float]) -> Verdict:
    matches: Any = SimpleNamespace(missing=())
    return Verdict(False, "Refused.", [Row(Model(name, Scored(scores, {}, matches, 416)))])


def test_runs_of_several_seeds_are_one_cell() -> None:
    assert finished(3, 320, 2, 0.5, 1).cell == "zenml_yolo_tiny_e3_320"


def test_mean_and_spread_over_seeds() -> None:
    (cell,) = grid({(3, 320): [0.7, 0.8, 0.9]}).cells
    assert cell.shown("mAP50") == "0.8000 ± 0.1000"
    assert cell.spread("mAP50") == pytest.approx(0.1)


def test_a_single_run_has_no_spread() -> None:
    (cell,) = grid({(3, 320): [0.7]}).cells
    assert cell.shown("mAP50") == "0.7000"
    assert "one seed" in statistics.analyse(grid({(3, 320): [0.7]}))[1]


def test_the_candidate_is_the_best_cells_run_in_the_middle() -> None:
    found = grid({(3, 320): [0.7, 0.7, 0.7], (5, 416): [0.80, 0.95, 0.85]})
    assert found.candidate.info.run_name == "zenml_yolo_tiny_e5_416_s2"


def test_of_an_even_number_of_seeds_the_candidate_is_not_the_luckier() -> None:
    found = grid({(5, 416): [0.80, 0.95]})
    assert found.candidate.info.run_name == "zenml_yolo_tiny_e5_416_s0"


def test_cells_with_fewer_survivors_are_marked() -> None:
    (cell,) = grid({(5, 416): [0.80, 0.95]}).cells
    assert cell.marks == ""
    assert ReportedCell(cell.name, cell.runs, planned=3).marks == "2 of 3 seeds"


def test_a_curve_ends_where_training_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    history = [
        (1, 0.5),
        (2, 0.7),
        (3, 0.6),
        (3, 0.7),
    ]  # stopped early; last, the best epoch's score

    class Client:
        def get_metric_history(self, run_id: str, key: str) -> list[SimpleNamespace]:
            return [SimpleNamespace(step=step, value=value) for step, value in history]

    monkeypatch.setattr(report, "MlflowClient", Client)
    (cell,) = grid({(100, 320): [0.7]}).cells
    assert report._curve(cell.runs[0]) == [0.5, 0.7, 0.6]


def test_the_heat_map_stands_outside_the_table(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    for name in ("heatmap", "pareto", "curves", "predictions"):
        (tmp_path / "plots" / f"{name}.png").write_bytes(b"png")
    found = grid({(3, 320): [0.7], (5, 416): [0.8]})
    report.write(found, judged("new", dict.fromkeys(SCORES, 0.5)), tmp_path, date(2026, 11, 23))
    page = (tmp_path / "report.html").read_text()
    for table in page.split("<table>")[1:]:
        assert "<img" not in table.split("</table>")[0]
    assert page.count("<table>") == 3


def test_titles_are_escaped(tmp_path: Path) -> None:
    page = report.to_html("# Report: <script>x</script> & co\n", tmp_path)
    assert "<script>" not in page
    assert "<title>Report: &lt;script&gt;x&lt;/script&gt; &amp; co</title>" in page


def test_commits_and_machines_that_differ_are_named_by_run(tmp_path: Path) -> None:
    found = grid({(3, 320): [0.7], (5, 416): [0.8]})
    other = found.cells[1].runs[0].tracked.data
    other.tags = TAGS | {"git_commit": "2" * 40, "machine": "a fast one"}
    verdict = judged("new", dict.fromkeys(SCORES, 0.5))
    for name in ("heatmap", "pareto", "curves", "predictions"):
        (tmp_path / "plots").mkdir(exist_ok=True)
        (tmp_path / "plots" / f"{name}.png").write_bytes(b"png")
    text = report.write(found, verdict, tmp_path, date(2026, 11, 23))
    assert f"`{'2' * 40}` (zenml_yolo_tiny_e5_416_s0)" in text
    assert "Times do not compare: zenml_yolo_tiny_e5_416_s0 ran on another machine" in text


def test_differences_within_the_spread_are_called_so() -> None:
    lines = statistics.analyse(grid({(3, 320): [0.70, 0.80], (5, 416): [0.72, 0.82]}))
    assert "within the spread" in lines[2]
    lines = statistics.analyse(grid({(3, 320): [0.50, 0.51], (5, 416): [0.80, 0.81]}))
    assert "more than the spread" in lines[2]


def test_the_gain_over_the_untrained_weights_is_the_medians() -> None:
    line = statistics.analyse(grid({(5, 416): [0.796, 0.797, 0.771]}))[1]
    assert "median 0.7960, +0.0060" in line


def test_the_pareto_front() -> None:
    points = [
        statistics.Point("quick", 10, 0.5),
        statistics.Point("beaten", 12, 0.4),
        statistics.Point("slow and best", 40, 0.8),
        statistics.Point("slower, same", 50, 0.8),
    ]
    assert [p.name for p in statistics.pareto_front(points)] == ["quick", "slow and best"]


def test_varying_arguments_are_found_without_the_seed() -> None:
    assert statistics.varying(grid({(3, 320): [0.7, 0.8], (5, 416): [0.8, 0.9]}).cells) == [
        "epochs",
        "imgsz",
    ]


def test_the_page_needs_nothing_else_and_escapes(tmp_path: Path) -> None:
    found = grid({(3, 320): [0.7, 0.71], (5, 416): [0.8, 0.79]})
    for name in ("heatmap", "pareto", "curves", "predictions"):
        (tmp_path / "plots").mkdir(exist_ok=True)
        (tmp_path / "plots" / f"{name}.png").write_bytes(b"png")
    scores = dict.fromkeys(("mAP50", "mAP50-95", "precision", "recall"), 0.5)
    verdict = judged("<b>new</b>", scores)
    report.write(found, verdict, tmp_path, date(2026, 11, 23))
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert 'src="plots' not in page
    assert "<b>new</b>" not in page
    assert "<td><img" not in page
    assert "0.7950 ± 0.0071" in page
    assert "http://zenml/zenml_yolo_tiny_e5_416_s1" in page
    for section in (
        "1. Context",
        "2. Runs tested",
        "3. Analysis",
        "4. Decision",
        "5. The pipeline",
    ):
        assert section in page


def test_every_score_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A score is added in one place: where the trainer names them."""
    scores = (*SCORES, "F1")
    monkeypatch.setattr(report, "SCORES", scores)
    monkeypatch.setattr(report, "to_html", lambda text, folder: "")
    found = grid({(3, 320): [0.7], (5, 416): [0.8]})
    verdict = judged("new", dict.fromkeys(scores, 0.4321))
    report.write(found, verdict, tmp_path, date(2026, 11, 23))
    text = (tmp_path / "report.md").read_text()
    assert "mAP50, mAP50-95, precision, recall and F1 on the validation split" in text
    assert "| cell | mAP50 | mAP50-95 | precision | recall | F1 | untrained mAP50 |" in text
    assert "|---|--:|--:|--:|--:|--:|--:|--:|---|---|" in text
    assert "| on the test split | mAP50 | mAP50-95 | precision | recall | F1 | image size |" in text
    assert f"| new |{' 0.4321 |' * len(scores)} 416 |" in text


@pytest.mark.parametrize("kind", ["coco128", "synthetic"])
def test_drawn_people_are_said_as_loudly_as_in_the_summary(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "to_html", lambda text, folder: "")
    monkeypatch.setitem(TAGS, "dataset", kind)
    verdict = judged("new", dict.fromkeys(SCORES, 0.5))
    report.write(grid({(3, 320): [0.7]}), verdict, tmp_path, date(2026, 11, 23))
    text = (tmp_path / "report.md").read_text()
    assert ("> **Drawn people, not photos" in text) is (kind == "synthetic")


def test_plots_are_pictures(tmp_path: Path) -> None:
    cells = [({"epochs": "3", "imgsz": "320"}, 0.7), ({"epochs": "10", "imgsz": "416"}, 0.8)]
    plots.heatmap(cells, ["epochs", "imgsz"], tmp_path / "heatmap.png")
    plots.heatmap([({}, 0.7)], [], tmp_path / "one.png")
    plots.curves({"a": [[0.1, 0.2], [0.2]]}, tmp_path / "curves.png")
    plots.pareto([statistics.Point("a", 1, 0.5)], tmp_path / "pareto.png")
    for file in tmp_path.iterdir():
        assert file.read_bytes().startswith(b"\x89PNG")
