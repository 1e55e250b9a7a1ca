"""Brings the servers in line with the settings: observe, compare, act, and say what happened."""

from __future__ import annotations

import sys
from typing import Literal

from src.errors import UserError

Outcome = Literal["created", "updated", "deleted", "unchanged"]


class BootstrapError(UserError):
    """Something that you must do first; the message says what."""


def report(what: str, outcome: Outcome) -> None:
    """Say what happened to one object, on stdout."""
    sys.stdout.write(f"{what}: {outcome}\n")
