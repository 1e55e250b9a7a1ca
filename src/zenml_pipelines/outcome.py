"""What is said of a cell: plain values, so that who shows them need not import ZenML."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from src.errors import explain, in_short


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
    trace: str = field(default="", compare=False)  # of an error that nobody has foreseen

    @classmethod
    def from_error(cls, error: BaseException) -> Self:
        """Return what to say of an error, which may not survive the way to another process."""
        if reason := explain(error):
            return cls(reason)
        return cls(in_short(error), "".join(traceback.format_exception(error)))


@dataclass(frozen=True)
class Stopped:
    """A run that Ctrl-C ended."""


Outcome = Finished | Failed | Stopped


def outcome_of(run: Callable[[], Finished]) -> Outcome:
    """Run a cell; whatever goes wrong is its own outcome, and must not end the others."""
    try:
        return run()
    except KeyboardInterrupt:
        return Stopped()
    except Exception as error:  # noqa: BLE001
        return Failed.from_error(error)
