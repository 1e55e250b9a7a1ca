"""Files as this project writes them: whole or not at all, and readable by nobody else."""

from __future__ import annotations

import glob
import hashlib
import os
from pathlib import Path


def private_folder(path: Path) -> Path:
    """Make a folder, and those above it that are missing, for nobody else (0700)."""
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():  # mkdir's own `parents` would give those above the usual mode
            folder.mkdir(mode=0o700, exist_ok=True)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace a file in one move, readable by nobody else (0600, its folder 0700).

    Git ignores the name that it has until then, and the next write removes what a killed one left.
    """
    private_folder(path.parent)
    _sweep(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def unused(path: Path) -> Path:
    """Return a path that isn't there yet: this one, or with -2, -3, … at its end."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _sweep(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.new"):
        pid = leftover.suffixes[-2].removeprefix(".")
        try:
            os.kill(int(pid), 0)
        except (ProcessLookupError, ValueError):
            leftover.unlink(missing_ok=True)
        except PermissionError:
            continue  # another user's process has that number now


def sha256(file: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
