"""What a grid's numbers say, and how far they can be trusted."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from mlflow.entities import Run

from src.decision.comparison import Comparison

BUSY = "busy_seconds"  # what time means on the Pareto front


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
    planned: int = 0  # seeds; more than runs where some did not finish

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

    @property
    def marks(self) -> str:
        """Return what to know about the cell's runs before comparing it."""
        return f"{len(self.runs)} of {self.planned} seeds" if len(self.runs) < self.planned else ""

    @cached_property
    def params(self) -> Mapping[str, str]:
        """The training arguments, alike in all runs but for the seed."""
        return dict(self.runs[0].tracked.data.params)

    @property
    def middle(self) -> ReportedRun:
        """The run in the middle of the seeds, the lower one of two: not the luckiest one."""
        runs = sorted(self.runs, key=lambda run: run.scores["mAP50"])
        return runs[(len(runs) - 1) // 2]


@dataclass(frozen=True)
class Grid:
    """A grid, as ZenML and MLflow hold it."""

    name: str
    cells: list[ReportedCell]
    failed: list[str]  # each planned run that did not finish, and why
    tag: str = ""
    plan: Mapping[str, str] = field(default_factory=dict)  # facts of the record, to be shown

    @property
    def best(self) -> ReportedCell:
        """The cell with the highest mean mAP50."""
        return max(self.cells, key=lambda cell: cell.mean("mAP50"))

    @property
    def candidate(self) -> Run:
        """The best cell's run in the middle of its seeds."""
        return self.best.middle.tracked

    @property
    def machines(self) -> Counter[str]:
        """How many runs each kind of machine trained; times compare within one only."""
        return Counter(
            run.tracked.data.tags.get("machine", "unknown")
            for cell in self.cells
            for run in cell.runs
        )


Compare = Callable[[ReportedRun, ReportedRun], Comparison]


def analyse(grid: Grid, compare: Compare | None = None) -> list[str]:
    """Return what the numbers say, and how far they can be trusted.

    ``compare`` gives the paired comparison of two runs on the validation split.
    """
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
    if compare is not None and len(ranked) > 1:
        same = [
            cell.name
            for cell in ranked[1:]
            if compare(best.middle, cell.middle).outcome == "not distinguishable"
        ]
        images = compare(best.middle, ranked[1].middle).images
        lines.append(
            f"By the paired comparison over the {images} validation images it is better than "
            f"{len(ranked) - 1 - len(same)} of the {len(ranked) - 1} other cells"
            + (f", and not distinguishable from {', '.join(same)}." if same else ".")
        )
    if all(cell.values(BUSY) for cell in ranked):
        quick = min(ranked, key=lambda cell: cell.mean(BUSY))
        if quick is not best:
            factor = best.mean(BUSY) / quick.mean(BUSY)
            lost = best.mean("mAP50") - quick.mean("mAP50")
            lines.append(
                f"The quickest, {quick.name}, takes 1/{factor:.1f} of its time and scores "
                f"{lost:.4f} less."
            )
        front = [point.name for point in pareto_front(points(grid))]
        lines.append(f"Not beaten in both score and time: {', '.join(front)}.")
    if len(grid.machines) > 1:
        usual, _ = grid.machines.most_common(1)[0]
        odd = [
            str(run.tracked.info.run_name)
            for cell in grid.cells
            for run in cell.runs
            if run.tracked.data.tags.get("machine", "unknown") != usual
        ]
        lines.append(f"Times do not compare: {', '.join(odd)} ran on another machine.")
    return lines


def _against(gap: float, cell: ReportedCell) -> str:
    """Compare a difference with the spread over the seeds."""
    if len(cell.runs) == 1:
        return " (one seed: whether that is more than chance is unknown; see `seeds:`)"
    spread = cell.spread("mAP50")
    inside = "within" if gap <= spread else "more than"
    return f" ({inside} the spread of {spread:.4f} over {len(cell.runs)} seeds)"


@dataclass(frozen=True)
class Point:
    """A cell: training time in seconds, mAP50 from 0 to 1."""

    name: str
    seconds: float
    score: float


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both time and score, quickest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.seconds, -p.score)):
        if not front or point.score > front[-1].score:
            front.append(point)
    return front


def points(grid: Grid) -> list[Point]:
    """Return the cells by the time they kept a processor busy and score, means over the seeds."""
    return [
        Point(cell.name, cell.mean(BUSY), cell.mean("mAP50"))
        for cell in grid.cells
        if cell.values(BUSY)
    ]


def varying(cells: Sequence[ReportedCell]) -> list[str]:
    """Return the training arguments that differ between cells, epochs and imgsz first."""
    names = [n for n in cells[0].params if len({cell.params.get(n) for cell in cells}) > 1]
    return sorted(
        (name for name in names if name != "seed"),
        key=lambda name: (name not in ("epochs", "imgsz"), name),
    )
