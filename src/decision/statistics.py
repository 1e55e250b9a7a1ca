"""What a grid's numbers say, and how far they can be trusted."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mlflow.entities import Run

from src.decision.plots import Point, pareto_front


@dataclass(frozen=True)
class ReportedRun:
    """One finished run of the grid."""

    tracked: Run  # in MLflow
    zenml_url: str
    mlflow_url: str

    @property
    def scores(self) -> Mapping[str, float]:
        """All logged metrics, the last value of each."""
        return dict(self.tracked.data.metrics)

    @property
    def cell(self) -> str:
        """The run's name without its seed: what is compared."""
        seed = self.tracked.data.params["seed"]
        return str(self.tracked.info.run_name).removesuffix(f"_s{seed}")


@dataclass(frozen=True)
class ReportedCell:
    """A cell of the grid: one run, or one for each seed."""

    name: str
    runs: list[ReportedRun]
    best: bool = False

    def values(self, metric: str) -> list[float]:
        """Return a metric of all runs that have it."""
        return [run.scores[metric] for run in self.runs if metric in run.scores]

    def mean(self, metric: str) -> float:
        """Return a metric's mean over the seeds."""
        return statistics.fmean(self.values(metric))

    def spread(self, metric: str) -> float:
        """Return a metric's standard deviation over the seeds, 0 with a single one."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else 0.0

    def shown(self, metric: str, digits: int = 4) -> str:
        """Return a metric as ``mean ± standard deviation``, or the value of a single run."""
        if not self.values(metric):
            return "—"
        text = f"{self.mean(metric):.{digits}f}"
        return text if len(self.runs) == 1 else f"{text} ± {self.spread(metric):.{digits}f}"

    @cached_property
    def params(self) -> Mapping[str, str]:
        """The training arguments, alike in all runs but for the seed."""
        return dict(self.runs[0].tracked.data.params)


@dataclass(frozen=True)
class Grid:
    """The latest grid, as ZenML and MLflow hold it."""

    name: str
    cells: list[ReportedCell]
    failed: list[str]

    @property
    def best(self) -> ReportedCell:
        """The cell with the highest mean mAP50."""
        return max(self.cells, key=lambda cell: cell.mean("mAP50"))

    @property
    def candidate(self) -> Run:
        """The best cell's run in the middle of its seeds: not the luckiest one."""
        runs = sorted(self.best.runs, key=lambda run: run.scores["mAP50"])
        return runs[len(runs) // 2].tracked


def analyse(grid: Grid) -> list[str]:
    """Return what the numbers say, and how far they can be trusted."""
    ranked = sorted(grid.cells, key=lambda cell: cell.mean("mAP50"), reverse=True)
    best = ranked[0]
    lines = [f"Best cell: {best.name} with mAP50 {best.shown('mAP50')}."]
    if best.values("untrained_mAP50"):
        median = statistics.median(best.values("mAP50"))
        before = best.mean("untrained_mAP50")
        lines.append(
            f"Against the untrained weights at the same image size ({before:.4f}): median "
            f"{median:.4f}, {median - before:+.4f}{_against(abs(median - before), best)}."
        )
    for other in ranked[1:2]:
        gap = best.mean("mAP50") - other.mean("mAP50")
        noisier = max(best, other, key=lambda cell: cell.spread("mAP50"))
        lines.append(f"Ahead of {other.name} by {gap:.4f}{_against(gap, noisier)}.")
    quick = min(ranked, key=lambda cell: cell.mean("training_seconds"))
    if quick is not best:
        factor = best.mean("training_seconds") / quick.mean("training_seconds")
        lost = best.mean("mAP50") - quick.mean("mAP50")
        lines.append(f"The quickest, {quick.name}, takes 1/{factor:.1f} of its time and scores "
                     f"{lost:.4f} less.")  # fmt: skip
    front = [point.name for point in pareto_front(points(grid))]
    lines.append(f"Not beaten in both score and time: {', '.join(front)}.")
    return lines


def _against(gap: float, cell: ReportedCell) -> str:
    """Compare a difference with the spread over the seeds."""
    if len(cell.runs) == 1:
        return " (one seed: whether that is more than chance is unknown; see `seeds:`)"
    spread = cell.spread("mAP50")
    inside = "within" if gap <= spread else "more than"
    return f" ({inside} the spread of {spread:.4f} over {len(cell.runs)} seeds)"


def points(grid: Grid) -> list[Point]:
    """Return the cells by training time and score, each a mean over the seeds."""
    return [
        Point(cell.name, cell.mean("training_seconds"), cell.mean("mAP50")) for cell in grid.cells
    ]


def varying(cells: Sequence[ReportedCell]) -> list[str]:
    """Return the training arguments that differ between cells, epochs and imgsz first."""
    names = [n for n in cells[0].params if len({cell.params.get(n) for cell in cells}) > 1]
    return sorted(
        (name for name in names if name != "seed"),
        key=lambda name: (name not in ("epochs", "imgsz"), name),
    )
