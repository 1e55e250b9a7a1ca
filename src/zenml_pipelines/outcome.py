"""What is said of a cell: plain values, so that who shows them need not import ZenML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """A finished epoch."""

    run_name: str
    epoch: int
    epochs: int
    score: float  # mAP50


@dataclass(frozen=True)
class Finished:
    """A finished run of the pipeline."""

    result: dict[str, Any]  # the training step's `training_result`
    cached: bool  # the training came from the cache
    seconds: float  # of wall clock for the whole run
    zenml_url: str  # the run in ZenML's dashboard


@dataclass(frozen=True)
class Failed:
    """A run that ended with an error."""

    reason: str


@dataclass(frozen=True)
class Stopped:
    """A run that Ctrl-C ended."""


Outcome = Finished | Failed | Stopped
