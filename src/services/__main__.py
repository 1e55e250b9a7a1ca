"""Print the settings and the table of services for the shell, as ``NAME=value`` lines."""

from __future__ import annotations

import sys

from src.services.table import shell_lines
from src.settings import SettingsError, load_settings


def main() -> int:
    """Print them all, or on stderr a line for each setting that is wrong."""
    try:
        settings = load_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    for name, value in settings.model_dump().items():
        print(f"{name.upper()}={value}")
    print(f"LOOPBACK={str(settings.loopback).lower()}")
    print("\n".join(shell_lines(settings)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
