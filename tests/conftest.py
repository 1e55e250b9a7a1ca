"""What all tests share."""

import signal


def pytest_configure() -> None:
    """Take Ctrl-C, which a shell's background jobs ignore, and with them all that they start."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
