"""What all tests share."""

import inspect
import os
import signal

import pytest

from tests.chromium import undisturbed

OUTER_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")


def pytest_configure() -> None:
    """Take Ctrl-C, which a shell's background jobs ignore, and with them all that they start.

    Nor do the variables of ``make test ONLY=unit`` reach a make that a test starts.
    """
    for name in OUTER_MAKE:
        os.environ.pop(name, None)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call a test that looks at ``pages`` until nothing disturbs the browser."""
    pages = pyfuncitem.funcargs.get("pages")
    if pages is None:
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    given = {name: pyfuncitem.funcargs[name] for name in names}
    undisturbed(pages, lambda: pyfuncitem.obj(**given))
    return True
