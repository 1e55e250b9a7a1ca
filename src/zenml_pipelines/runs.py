"""Which runs are alive: each has a folder of its own, in which its process holds a lock.

The system releases a lock when its process ends, however it ends. So a folder whose lock can be
taken belongs to a run that was killed, and everything that the run had on disk is in that folder.
``python -m src.zenml_pipelines.runs`` marks those as failed.
"""

from __future__ import annotations

import fcntl
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from src.client import use_stack
from src.errors import run_command
from src.files import private_folder
from src.settings import Settings, load_settings

LOCK = "lock"
GRID_TAG = "grid-"  # what the tags of a grid's runs begin with


def runs_folder(settings: Settings) -> Path:
    """Return the folder of the runs of this checkout's current backend."""
    return settings.backend_state / "runs"


def new_name(run_name: str) -> str:
    """Return a name for a ZenML run, which must be unique: the MLflow run's with the time."""
    return f"{run_name}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"


def run_name_of(name: str) -> str:
    """Return the run name that ``new_name`` made a ZenML run's name from."""
    return name.rsplit("-", 3)[0]


def address_of(server: str, project: str, run_id: object) -> str:
    """Return a run's address in the dashboard of the server at ``server``."""
    return f"{server}/projects/{project}/runs/{run_id}"


def new_grid_tag(grid: str) -> str:
    """Return the tag that all runs of one grid get, and that ``make report`` finds them by."""
    return f"{GRID_TAG}{grid}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def grid_of(tag: str) -> str:
    """Return the grid that ``new_grid_tag`` made a tag for."""
    return tag.removeprefix(GRID_TAG).rsplit("-", 2)[0]


@contextmanager
def claim(settings: Settings, name: str) -> Iterator[Path]:
    """Own the run ``name``: yield its folder, which takes this process's temporary files too."""
    with own(settings, name) as folder:
        elsewhere, tempfile.tempdir = tempfile.tempdir, str(folder)
        try:
            yield folder
        finally:
            tempfile.tempdir = elsewhere


@contextmanager
def own(settings: Settings, name: str) -> Iterator[Path]:
    """Own the run ``name``, which may run in another process or on another machine."""
    base = runs_folder(settings)
    private_folder(base)
    # Locked before it gets its name, so that nobody ever finds it without its owner.
    fresh = Path(tempfile.mkdtemp(prefix=".", dir=base))
    folder = base / name
    with (fresh / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh.rename(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


@contextmanager
def abandoned(settings: Settings) -> Iterator[list[str]]:
    """Yield the names of runs whose process is gone; their folders are deleted afterwards."""
    found: list[Path] = []
    base = runs_folder(settings)
    for folder in sorted(base.iterdir()) if base.is_dir() else []:
        if folder.name.startswith("."):
            continue  # being claimed
        try:
            with (folder / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(folder)
        except BlockingIOError:
            continue  # its owner lives
        except FileNotFoundError:
            continue  # it has just ended
    yield [folder.name for folder in found]
    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)


def mark_abandoned(settings: Settings) -> None:
    """Mark runs whose process is gone as failed in ZenML and MLflow, a line for each."""
    if not any(runs_folder(settings).glob("*")):  # else nothing is worth importing ZenML for
        return
    use_stack(settings)
    from src.zenml_pipelines.recovery import recover

    for name in recover(settings):
        print(f"{name}: its process was killed; marked as failed", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_command(lambda: mark_abandoned(load_settings())))
