"""Run a command as a client of this checkout's stack: ``python -m src.client FOLDER COMMAND…``."""

from __future__ import annotations

import os
import sys

from src.settings import SettingsError, load_settings, use_stack


def main(folder: str, *command: str) -> int:
    """Replace this process by ``command``, run in ``folder``."""
    try:
        use_stack(load_settings())
        os.chdir(folder)
        os.execvp(command[0], command)  # noqa: S606 - the person's own command
    except (OSError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
