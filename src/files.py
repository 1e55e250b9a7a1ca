"""Files as this project writes them: whole or not at all, and readable by nobody else."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from src.locks import lives

UNFINISHED = ".unfinished-"  # begins the name of what `unfinished` yields


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


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder in ``folder`` for what is moved out of it once it is whole.

    It is deleted afterwards; what killed processes left of theirs, beforehand.
    """
    for leftover in folder.glob(f"{UNFINISHED}*"):
        if not lives(leftover.name.removeprefix(UNFINISHED).partition("-")[0]):
            shutil.rmtree(leftover, ignore_errors=True)  # another may be at it too
    prefix = f"{UNFINISHED}{os.getpid()}-"
    with tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as temporary:
        yield Path(temporary)


def discard(folder: Path) -> None:
    """Delete a folder that others take for whole while it is there, in one move for them."""
    with unfinished(folder.parent) as temporary, suppress(FileNotFoundError):  # another was at it
        folder.rename(temporary / folder.name)


def own_folder(base: Path, owner: int) -> Path:
    """Return the folder in ``base`` of the process ``owner``, made where it isn't there.

    Those of processes that are gone are deleted: a killed one can't do so itself.
    """
    own = base / str(owner)
    if not own.is_dir():
        private_folder(base)
        sweep_own(base)
        private_folder(own)
    return own


def sweep_own(base: Path) -> None:
    """Delete the folders that ``own_folder`` made for processes that are gone."""
    for folder in base.glob("*"):
        if folder.name.isdecimal() and not lives(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.new"):
        if not lives(leftover.suffixes[-2].removeprefix(".")):
            leftover.unlink(missing_ok=True)


def sha256(file: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
