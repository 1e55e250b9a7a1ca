"""make stack where nothing has changed."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from src.bootstrap import __main__ as module
from src.settings import Settings


@pytest.mark.parametrize("trust", ["--trust-fingerprint", None])
def test_what_a_killed_one_has_left_goes_though_nothing_is_to_be_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trust: str | None
) -> None:
    """By the record of what was done last, or, killed before it was written, by a look."""
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    (tmp_path / dead.stdout.strip()).mkdir()
    monkeypatch.setattr(module, "TEMPORARY", tmp_path)
    monkeypatch.setattr(module, "load_settings", lambda: settings)
    monkeypatch.setattr(module, "_is_known", lambda _: True)
    if trust:
        monkeypatch.setattr(module, "converge", lambda _: pytest.fail("nothing has changed"))
    else:
        monkeypatch.setattr(type(settings), "backend_state", tmp_path.with_name("state"))
        for server in ("object_store", "mlflow_server", "zenml_server"):
            monkeypatch.setattr(getattr(module, server), "converge", lambda _: None)
        monkeypatch.setattr(module, "hold", lambda *_: nullcontext())
        monkeypatch.setattr(module.zenml_state, "is_right", lambda *_: True)
    monkeypatch.setattr("sys.argv", ["bootstrap", *([trust] if trust else [])])
    assert module.main() == 0
    assert list(tmp_path.iterdir()) == []
