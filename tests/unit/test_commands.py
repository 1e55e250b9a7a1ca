"""The commands: libraries that write or call home on import must wait for the stack's settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.settings import ROOT

COMMANDS = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted((ROOT / "src").rglob("*.py"))
    if '__name__ == "__main__"' in file.read_text()
]


@pytest.mark.parametrize("module", COMMANDS)
def test_starting_a_command_leaves_the_home_folder_alone(module: str, tmp_path: Path) -> None:
    # MLflow, for one, writes an identity for its telemetry on import, unless switched off before.
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", f"import {module}"], env=environment, check=True)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []
