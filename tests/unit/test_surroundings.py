"""What the tests take from their surroundings: Ctrl-C, and nothing of an outer make."""

import subprocess
import sys

import pytest

from src.settings import ROOT
from tests.conftest import OUTER_MAKE, pytest_configure

CODE = """
import signal, subprocess, sys
{configure}
asks = "import signal; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
subprocess.run([sys.executable, "-c", asks])
"""


def ignored(configure: str) -> str:
    command = ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable]
    done = subprocess.run(
        [*command, CODE.format(configure=configure)], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_what_the_tests_start_takes_it() -> None:
    assert ignored("") == "True"
    assert ignored("from tests.conftest import pytest_configure; pytest_configure()") == "False"


def test_no_variable_of_an_outer_make_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OUTER_MAKE:
        monkeypatch.setenv(name, "1" if name == "MAKELEVEL" else " -- ONLY=unit")
    pytest_configure()
    done = subprocess.run(["make", "-n", "setup"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
