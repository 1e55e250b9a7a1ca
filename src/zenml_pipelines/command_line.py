"""What the baseline's and the grid's commands share: arguments and checks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from src.client import use_stack
from src.datasets import SET, DatasetError, manifest, sets
from src.datasets.versioning import Versions
from src.errors import UserError, run_command
from src.inputs import Inputs
from src.locks import hold
from src.services import health
from src.settings import Settings, load_settings
from src.training.recipes import OVERRIDES, as_given
from src.zenml_pipelines.runs import mark_abandoned


class NotReady(UserError):
    """Something must run or be made first; the message says what."""


@dataclass(frozen=True)
class Job:
    """What to train with, checked."""

    settings: Settings
    inputs: Inputs
    dataset_md5: str
    overrides: dict[str, Any]
    force: bool
    grid: str | None = None  # a grid's file in place of the shipped one
    jobs: int | None = None  # cells side by side
    ray_address: str | None = None  # of the cluster to run on, host:port


def run(command: Callable[[Job], int], description: str, *, for_grid: bool = False) -> int:
    """Parse the arguments, prove that servers and data are ready, and run ``command``.

    An override comes as an argument, or as make hands it on: as a variable of the environment.
    """
    parser = argparse.ArgumentParser(description=description)
    for name in OVERRIDES:
        parser.add_argument(
            f"--{name}",
            type=as_given,
            default=os.environ.get(name.upper()) or None,
            help=f"in place of the recipe's {name}",
        )
    parser.add_argument("--force", action="store_true", help="train again, without the cache")
    if for_grid:
        parser.add_argument("--grid", help="a grid's file in place of the shipped one")
        parser.add_argument("--jobs", type=_positive, help="cells to run side by side")
    arguments = parser.parse_args()
    what = f"make {'grid' if for_grid else 'baseline'}"

    def work() -> int:
        with hold("stack", what, shared=True), hold("data", what, shared=True):
            return command(_job(arguments))

    return run_command(work)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1")
    return int(text)


def _job(arguments: argparse.Namespace) -> Job:
    given = {name: getattr(arguments, name) for name in OVERRIDES}
    settings = load_settings()
    sets.require()
    use_stack(settings)
    health.require(settings)
    if not settings.api_key:
        raise NotReady("the ZenML stack is not registered: make stack")
    inputs = manifest.settled(settings)
    inputs.announce()
    state = Versions().state(remote=False)
    if state.md5 is None or not state.present or state.changed:
        raise DatasetError(f"{SET.shown} is missing or has changed: make data")
    mark_abandoned(settings)
    return Job(
        settings=settings,
        inputs=inputs,
        dataset_md5=state.md5,
        overrides={name: value for name, value in given.items() if value is not None},
        force=arguments.force,
        grid=getattr(arguments, "grid", None),
        jobs=getattr(arguments, "jobs", None),
        ray_address=os.environ.get("RAY_ADDRESS"),
    )
