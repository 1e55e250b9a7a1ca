"""The tests' own Ctrl-C, also in a background shell, whose jobs ignore it."""

import subprocess
import sys

from src.settings import ROOT

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
