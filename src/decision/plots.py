"""The decision report's plots, each a function from plain values to a PNG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.decision.statistics import Point, pareto_front
from src.training.recipes import RUN_PREFIX

DPI = 150
CLASSES_SHOWN = 40  # the hardest
FRONT, OTHER = "#0b5cad", "#9aa5b4"


def pareto(points: Sequence[Point], file: Path) -> None:
    """Plot score against time, the front connected."""
    front = pareto_front(points)
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.plot([p.seconds for p in front], [p.score for p in front], color=FRONT, lw=1, zorder=1)
    for number, point in enumerate(sorted(points, key=lambda p: p.seconds)):
        axes.scatter(point.seconds, point.score, color=FRONT if point in front else OTHER, zorder=2)
        axes.annotate(
            _short(point.name),
            (point.seconds, point.score),
            xytext=(6, 8 if number % 2 else -14),
            textcoords="offset points",
            fontsize=8,
        )
    axes.margins(0.15)
    _finish(figure, axes, "processor time, s", "mAP50 (validation)", file)


def curves(runs: Mapping[str, Sequence[Sequence[float]]], file: Path) -> None:
    """Plot mAP50 after each epoch, a colour for each cell and a line for each seed."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for number, (name, histories) in enumerate(runs.items()):
        for seed, values in enumerate(histories):
            axes.plot(
                range(1, len(values) + 1),
                values,
                color=f"C{number % 10}",
                marker=".",
                lw=1.3,
                label=None if seed else _short(name),
            )
    axes.legend(fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(figure, axes, "epoch", "mAP50 (validation)", file)


def heatmap(
    cells: Sequence[tuple[Mapping[str, str], float]], names: Sequence[str], file: Path
) -> None:
    """Plot the score over the first two varying arguments, the mean over any others."""
    rows, columns = (*names, "", "")[:2]
    down = _ordered({cell.get(rows, "") for cell, _ in cells})
    across = _ordered({cell.get(columns, "") for cell, _ in cells})
    grid = np.full((len(down), len(across)), np.nan)
    for i, row in enumerate(down):
        for j, column in enumerate(across):
            found = [
                score
                for cell, score in cells
                if cell.get(rows, "") == row and cell.get(columns, "") == column
            ]
            if found:
                grid[i, j] = np.mean(found)
    figure, axes = plt.subplots(figsize=(1.8 + 1.3 * len(across), 1.4 + 0.8 * len(down)))
    axes.imshow(grid, cmap="Blues", aspect="auto", vmin=np.nanmin(grid) - 0.05)
    middle = (np.nanmin(grid) - 0.05 + np.nanmax(grid)) / 2
    for (i, j), score in np.ndenumerate(grid):
        if not np.isnan(score):
            colour = "white" if score > middle else "black"
            axes.text(j, i, f"{score:.4f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    axes.set_title("mAP50 (validation)", fontsize=10)
    _finish(figure, axes, columns, rows, file, grid=False)


def interval(rows: Sequence[tuple[str, float, float, float]], file: Path) -> None:
    """Plot differences in mAP50 with their intervals: (name, low, difference, high) each."""
    figure, axes = plt.subplots(figsize=(7, 1.4 + 0.5 * len(rows)))
    for place, (_, low, middle, high) in enumerate(reversed(rows)):
        colour = OTHER if low <= 0 <= high else FRONT
        axes.plot([low, high], [place, place], color=colour, lw=2)
        axes.plot([middle], [place], color=colour, marker="o")
    axes.axvline(0, color="#1c2430", lw=0.8)
    axes.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)], fontsize=8)
    axes.margins(y=0.3)
    _finish(figure, axes, "the candidate's mAP50 beyond it (test)", "", file)


def class_heatmap(
    classes: Mapping[str, Sequence[float | None]], cells: Sequence[str], file: Path
) -> None:
    """Plot each class's mAP50 in each cell, the hardest class first; at most ``CLASSES_SHOWN``."""
    grid = np.array([[np.nan if v is None else v for v in row] for row in classes.values()])
    order = np.argsort(np.nanmean(np.where(np.isnan(grid), 0, grid), axis=1))[:CLASSES_SHOWN]
    names = [list(classes)[row] for row in order]
    grid = grid[order]
    figure, axes = plt.subplots(figsize=(3 + 1.1 * len(cells), 1.4 + 0.32 * len(names)))
    axes.imshow(grid, cmap="Blues", aspect="auto", vmin=0, vmax=1)
    for (i, j), score in np.ndenumerate(grid):
        if not np.isnan(score):
            colour = "white" if score > 0.5 else "black"
            axes.text(j, i, f"{score:.2f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(cells)), [_short(name) for name in cells], rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title("mAP50 by class (validation)", fontsize=10)
    _finish(figure, axes, "", "", file, grid=False)


def side_by_side(pictures: Mapping[str, Path], file: Path) -> None:
    """Plot pictures beside each other under their titles."""
    figure, row = plt.subplots(1, len(pictures), figsize=(5.2 * len(pictures), 5.4))
    for axes, (title, picture) in zip(np.atleast_1d(row), pictures.items(), strict=True):
        axes.imshow(plt.imread(picture))
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    figure.tight_layout()
    figure.savefig(file, dpi=DPI)
    plt.close(figure)


def _ordered(values: set[str]) -> list[str]:
    """Sort numbers by value and all else by name."""

    def key(value: str) -> tuple[bool, float, str]:
        try:
            return (False, float(value), value)
        except ValueError:
            return (True, 0.0, value)

    return sorted(values, key=key)


def _short(name: str) -> str:
    return name.removeprefix(f"{RUN_PREFIX}_")


def _finish(
    figure: Figure, axes: Axes, across: str, up: str, file: Path, *, grid: bool = True
) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    if grid:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=DPI)
    plt.close(figure)
