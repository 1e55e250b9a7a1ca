"""The arguments that the baseline's and the grid's commands share."""

import argparse
import sys
from typing import Any

import pytest

from src.training.recipes import OVERRIDES
from src.zenml_pipelines import command_line


def given(monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    """Return what a command is given, by argument."""
    seen: dict[str, Any] = {}

    def job(arguments: argparse.Namespace) -> None:
        seen.update(vars(arguments))

    monkeypatch.setattr(command_line, "_job", job)
    monkeypatch.setattr(sys, "argv", ["command", *words])
    assert command_line.run(lambda job: 0, "", for_grid=True) == 0
    return seen


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OVERRIDES:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("name", OVERRIDES)
def test_an_override_is_an_argument_or_makes_variable(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert given(monkeypatch)[name] is None
    monkeypatch.setenv(name.upper(), "")  # as `make NAME=` hands it on
    assert given(monkeypatch)[name] is None
    monkeypatch.setenv(name.upper(), "32")
    assert given(monkeypatch)[name] == 32
    assert given(monkeypatch, f"--{name}", "64")[name] == 64


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5"])
def test_jobs_are_a_whole_number_from_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], jobs: str
) -> None:
    with pytest.raises(SystemExit):
        given(monkeypatch, f"--jobs={jobs}")
    assert f"{jobs}: a whole number from 1" in capsys.readouterr().err
