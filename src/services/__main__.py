"""Print the settings and the table of services for the shell, as ``NAME=value`` lines."""

from __future__ import annotations

import sys

from src.errors import run_command
from src.services.table import shell_lines
from src.settings import load_settings


def main() -> None:
    """Print them all."""
    settings = load_settings()
    for name, value in settings.model_dump().items():
        print(f"{name.upper()}={value}")
    print(f"CHECKOUT={settings.checkout}")
    print(f"LOOPBACK={str(settings.loopback).lower()}")
    print("\n".join(shell_lines(settings)))


if __name__ == "__main__":
    sys.exit(run_command(main))
