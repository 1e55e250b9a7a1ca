"""Locks of this checkout, one for each resource, freed when the process that holds one ends.

Each is the system's own lock on a folder that is always there, whatever becomes of ``.stack``,
which only notes who holds it. Standard library only: ``make setup`` needs it before ``.venv``.

``python src/locks.py DESCRIPTOR RESOURCE WHAT [--shared] [--now]`` takes one for a shell script, on
the folder that the script has opened.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTES = ROOT / ".stack" / "locks"
LIMIT = 600.0  # seconds to wait
POLL = 0.1  # seconds between two tries

FOLDERS = {
    "services": "scripts/backends",  # who changes the services
    "stack": "compose",  # who uses them (shared), or takes them away
    "data": "data",  # who uses data/ (shared), or changes it
    "environment": "scripts/lib",  # who changes .venv and .env
    "registry": "reports",  # who changes the champion
}


class Busy(Exception):
    """Somebody else holds the resource; the message says who."""


@contextmanager
def hold(resource: str, what: str, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold a resource for ``what``, such as ``make data``; who has to wait says for whom.

    Raises:
        Busy: When somebody else holds it, at once or, with ``wait``, after ``LIMIT`` seconds.
    """
    descriptor = os.open(ROOT / FOLDERS[resource], os.O_RDONLY)
    try:
        take(descriptor, resource, what, shared=shared, wait=wait)
        yield
    finally:
        _note_of(resource, os.getpid()).unlink(missing_ok=True)
        os.close(descriptor)


def take(
    descriptor: int,
    resource: str,
    what: str,
    *,
    shared: bool = False,
    wait: bool = True,
    owner: int | None = None,
) -> None:
    """Lock a resource's open folder; raises ``Busy``."""
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    owner = owner or os.getpid()
    deadline = time.monotonic() + LIMIT
    told = False
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not wait or time.monotonic() > deadline:
                raise Busy(
                    f"{_holders(resource, owner)} is at work: let it end, or end it, "
                    "then the same command again"
                ) from None
            if not told:
                print(f"waiting for {_holders(resource, owner)}", file=sys.stderr, flush=True)
                told = True
            time.sleep(POLL)
    _note(resource, owner, what, alone=not shared)


def _note(resource: str, pid: int, what: str, *, alone: bool) -> None:
    """Say who holds a resource: a file for each, so that those who share it lose nobody's."""
    if not NOTES.parent.is_dir():  # nobody has begun anything yet, or `make clean` has just ended
        return
    NOTES.mkdir(mode=0o700, exist_ok=True)
    for note in NOTES.glob(f"{resource}.*"):
        # A dead one's number may be another's by now.
        if alone or not lives(note.suffix[1:]):
            note.unlink(missing_ok=True)
    temporary = NOTES / f".{resource}.{pid}"
    temporary.write_text(what)
    temporary.replace(_note_of(resource, pid))


def _note_of(resource: str, pid: int) -> Path:
    return NOTES / f"{resource}.{pid}"


def _holders(resource: str, but: int) -> str:
    """Return who holds a resource, as far as their notes tell."""
    noted = []
    for note in sorted(NOTES.glob(f"{resource}.*")):
        pid = note.suffix[1:]
        if pid != str(but) and lives(pid):
            with suppress(FileNotFoundError):  # let go of meanwhile
                noted.append(f"{note.read_text(errors='replace')} (pid {pid})")
    return ", ".join(noted) or "another make"


def lives(pid: str) -> bool:
    """Tell whether a process runs, whoever's it is; the dead that nobody took leave of do not."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True  # another user's process has that number now
    try:  # in a container without an init nobody takes leave of the dead
        status = Path("/proc", pid, "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has just ended, or this is no Linux
        return not Path("/proc/self").exists()
    return status.rpartition(")")[2].split()[0] != "Z"


def main() -> int:
    """Run the command line described above; the calling script is the lock's owner."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("descriptor")
    parser.add_argument("resource", choices=FOLDERS)
    parser.add_argument("what", nargs="?", default="make")
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--now", action="store_true", help="don't wait")
    given = parser.parse_args()
    try:
        take(
            int(given.descriptor), given.resource, given.what,
            shared=given.shared, wait=not given.now, owner=os.getppid(),
        )  # fmt: skip
    except Busy as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
