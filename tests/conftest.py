"""What all tests share."""

import os
import signal

OUTER_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")


def pytest_configure() -> None:
    """Take Ctrl-C, which a shell's background jobs ignore, and with them all that they start.

    Nor do the variables of ``make test ONLY=unit`` reach a make that a test starts.
    """
    for name in OUTER_MAKE:
        os.environ.pop(name, None)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
