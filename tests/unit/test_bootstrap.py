"""make stack where nothing has changed."""

import subprocess
import sys
from pathlib import Path

import pytest

from src.bootstrap import __main__ as module
from src.settings import Settings


def test_what_a_killed_one_has_left_goes_though_nothing_is_to_be_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    (tmp_path / dead.stdout.strip()).mkdir()
    monkeypatch.setattr(module, "TEMPORARY", tmp_path)
    monkeypatch.setattr(module, "load_settings", lambda: settings)
    monkeypatch.setattr(module, "_is_known", lambda _: True)
    monkeypatch.setattr(module, "converge", lambda _: pytest.fail("nothing has changed"))
    monkeypatch.setattr("sys.argv", ["bootstrap", "--trust-fingerprint"])
    assert module.main() == 0
    assert list(tmp_path.iterdir()) == []
