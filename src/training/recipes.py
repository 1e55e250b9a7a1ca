"""Training recipes and grids: read from ``configs/``, overridden, checked before anything runs.

A recipe is a flat mapping of Ultralytics' training arguments; a grid is a recipe shared by all
cells (``base``: a mapping, or the name of a recipe's file beside the grid's), for each argument
that varies its values (``grid``), and optionally ``seeds`` to train every cell with.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from src.datasets import SET
from src.errors import UserError, file_fault
from src.settings import ROOT
from src.training import arguments
from src.training.arguments import REQUIRED, UniqueKeys, safe_name

Recipe = dict[str, Any]

# What every recipe says and every command can override, with its least value.
OVERRIDES = {name: arguments.LEAST[name] for name in REQUIRED}
RUN_PREFIX = SET.run_prefix


class RecipeError(UserError):
    """A recipe or grid can't be used; one line for each fault."""


@dataclass(frozen=True)
class Cell:
    """One training of a grid."""

    run_name: str
    recipe: Recipe

    @property
    def cost(self) -> float:
        """What the training costs beside others: pixels seen, up to a factor."""
        return float(self.recipe["epochs"] * self.recipe["imgsz"] ** 2)


def read_recipe(
    path: Path, overrides: Mapping[str, Any], auto: Mapping[str, Any] = MappingProxyType({})
) -> Recipe:
    """Read a recipe, let ``overrides`` win, and prove that Ultralytics will take it.

    ``auto`` has the values of arguments that say ``auto`` (``src.training.scaling``).

    Raises:
        RecipeError: Naming each missing, unknown or refused argument and each wrong value.
    """
    recipe = _settled(_mapping(path), auto) | dict(overrides)
    _raise(arguments.faults(recipe), path)
    return recipe


def read_grid(
    path: Path, overrides: Mapping[str, Any], auto: Mapping[str, Any] = MappingProxyType({})
) -> list[Cell]:
    """Read a grid and return its checked cells in the order of its axes; raises ``RecipeError``.

    An override of an axis, or of the seed, leaves it its one value.
    """
    content = _mapping(path)
    surplus = content.keys() - {"base", "grid", "seeds"}
    axes = content.get("grid")
    base = content.get("base") or {}
    if isinstance(base, str):
        base = _base(path, base, auto)
    if surplus or not isinstance(axes, dict) or not axes or not isinstance(base, dict):
        raise RecipeError(
            f"{_shown(path)}: write `base:` (arguments, or a recipe's file) and `grid:` "
            "(argument: list)"
        )
    empty = [axis for axis, values in axes.items() if not isinstance(values, list) or not values]
    if empty:
        raise RecipeError(f"{_shown(path)}: {', '.join(empty)}: write a list of values")
    seeds = content.get("seeds", [base.get("seed")])
    if not isinstance(seeds, list) or not seeds:
        raise RecipeError(f"{_shown(path)}: seeds: write a list of whole numbers")
    axes = {axis: [overrides[axis]] if axis in overrides else v for axis, v in axes.items()}
    if "seed" in overrides:
        seeds = [overrides["seed"]]
    recipes = [
        (base | {"seed": seed} | dict(overrides) | dict(zip(axes, values, strict=True)), seed)
        for values in itertools.product(*axes.values())
        for seed in seeds
    ]
    _raise([fault for recipe, _ in recipes for fault in arguments.faults(recipe)], path)
    cells = []
    for recipe, seed in recipes:
        name = cell_name(recipe, {axis: recipe[axis] for axis in axes})
        cells.append(Cell(name + (f"_s{seed}" if len(seeds) > 1 else ""), recipe))
    names = [cell.run_name for cell in cells]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise RecipeError(f"{_shown(path)}: the same cell twice: {', '.join(twins)}")
    return cells


def cell_name(recipe: Recipe, varied: Mapping[str, Any]) -> str:
    """Return a cell's run name, the lab's ``zenml_yolo_tiny_e3_320`` where only those two vary."""
    named = {k: safe_name(v) for k, v in varied.items() if k not in ("epochs", "imgsz")}
    others = "".join(f"_{k}{v}" for k, v in named.items())
    return f"{RUN_PREFIX}_e{recipe['epochs']}_{recipe['imgsz']}{others}"


def _settled(recipe: Recipe, auto: Mapping[str, Any]) -> Recipe:
    """Return a recipe with values for those arguments that say ``auto``."""
    return {k: auto[k] if v == "auto" and k in auto else v for k, v in recipe.items()}


def as_given(text: str) -> int | str:
    """Return an override as a recipe holds it; one that isn't a number is the recipe's fault."""
    return int(text) if text.isdecimal() else text


def _base(path: Path, name: str, auto: Mapping[str, Any]) -> Recipe:
    """Read the recipe that a grid names; what it lacks may come from the grid."""
    file = path.parent / name
    try:
        base = _settled(_mapping(file), auto)
        _raise(arguments.faults(base, required=()), file)
    except RecipeError as error:
        raise RecipeError(f"{_shown(path)}: base: {error}") from None
    return base


def _raise(faults: list[str], path: Path) -> None:
    if faults:
        unique = dict.fromkeys(faults)  # the cells of a grid share most of theirs
        raise RecipeError("\n".join(f"{_shown(path)}: {fault}" for fault in unique))


def _mapping(path: Path) -> Recipe:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), UniqueKeys)  # noqa: S506 - safe
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{_shown(path)}: {file_fault(error)}") from None
    except yaml.constructor.ConstructorError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise RecipeError(f"{_shown(path)}, line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{_shown(path)} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{_shown(path)}: write `argument: value` lines")
    return content


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
