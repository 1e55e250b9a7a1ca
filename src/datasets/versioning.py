"""The data set under DVC: its pointer, its remote on the object store, its content's hash."""

from __future__ import annotations

import configparser
import io
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from src.datasets import FOLDER, SET, DatasetError
from src.errors import shown
from src.files import private_folder, unused, write_private
from src.settings import ROOT, STATE, Settings

if TYPE_CHECKING:
    from dvc.repo import Repo

POINTER = SET.pointer
LOCAL_CONFIG = ROOT / ".dvc" / "config.local"
REMOTE = "minio"


def configure_remote(settings: Settings) -> None:
    """Write what differs between machines, and the keys, to ``.dvc/config.local`` (0600).

    ``.dvc/config`` is committed and holds neither; ``.dvc/.gitignore`` keeps this file out. What
    can't be read is kept aside.
    """
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read(LOCAL_CONFIG, encoding="utf-8")  # you may have settings of your own there
    except (configparser.Error, UnicodeDecodeError):
        aside = unused(STATE / "replaced" / "dvc-config.local")
        private_folder(aside.parent)
        LOCAL_CONFIG.replace(aside)
        print(f".dvc/config.local can't be read and is made anew; what it was is {shown(aside)}")
        config = configparser.ConfigParser(interpolation=None)
    ours = {"core": {"site_cache_dir": str(STATE / "dvc")}}
    ours[f"'remote \"{REMOTE}\"'"] = _remote(settings)
    config.read_dict(ours)
    text = io.StringIO()
    config.write(text)
    if not LOCAL_CONFIG.is_file() or LOCAL_CONFIG.read_text() != text.getvalue():
        write_private(LOCAL_CONFIG, text.getvalue())


def _remote(settings: Settings) -> dict[str, str]:
    return {
        "url": f"s3://{settings.dvc_bucket}",
        "endpointurl": settings.store_url,
        "access_key_id": settings.dvc_s3_access_key,
        "secret_access_key": settings.dvc_s3_secret_key,
    }


def bring(settings: Settings) -> None:
    """Bring the pointer's version to code that has no repository around it; no key is written."""
    from dvc.repo import Repo

    if not LOCAL_CONFIG.parent.is_dir():
        Repo.init(str(ROOT), no_scm=True)
    if not FOLDER.is_dir():
        remote = {"core": {"remote": REMOTE}, "remote": {REMOTE: _remote(settings)}}
        Repo(str(ROOT), config=remote).pull(targets=[str(POINTER)])


def pointer_md5() -> str | None:
    """Return the content hash that the data set's pointer names, None without pointer.

    DVC empties the file before it writes it: a blank one is that of a killed `make data`.
    """
    if not POINTER.is_file() or not (text := POINTER.read_bytes()).strip():
        return None
    try:
        return str(yaml.safe_load(text)["outs"][0]["md5"])
    except (yaml.YAMLError, TypeError, KeyError, IndexError):
        raise DatasetError(
            f"{POINTER.relative_to(ROOT)} is not a DVC pointer (a merge conflict?): mend or "
            "delete it"
        ) from None


def version_of(folder: Path) -> str:
    """Return the DVC hash of what a folder holds now, whether or not DVC versions it.

    Equal content has an equal hash wherever it lies, so a copy of the data set counts as it, and
    anything else can't pass for it.
    """
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs import LocalFileSystem, MemoryFileSystem

    nowhere = HashFileDB(MemoryFileSystem(), "/")
    found = build(nowhere, str(folder.resolve()), LocalFileSystem(), "md5", dry_run=True)[2]
    return str(found.hash_info.value)


@dataclass(frozen=True)
class State:
    """How the working copy, the pointer and the remote relate."""

    md5: str | None  # the pointer's content hash
    present: bool  # the working copy exists
    changed: bool  # the working copy differs from the pointer
    pushed: bool  # the remote holds the pointer's content


class _Removed(logging.Filter):
    """Sums up how many objects DVC says that it removed, and keeps that from the terminal."""

    objects = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg.startswith("Removed %d") and isinstance(record.args, tuple):
            self.objects += int(str(record.args[0]))
        return record.levelno > logging.INFO


def _mend_rwlock(repo: Repo) -> None:
    """Delete DVC's note of who reads and writes what where a kill has cut it short.

    DVC refuses it then. It is written under DVC's own lock, which nobody else holds here.
    """
    note = Path(str(repo.tmp_dir)) / "rwlock"
    if _is_torn(note):
        with repo.lock:
            if _is_torn(note):
                note.unlink()


def _is_torn(note: Path) -> bool:
    try:
        json.loads(note.read_bytes())
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return False


def _sweep_cache(repo: Repo) -> None:
    """Delete the temporary files of killed processes in DVC's cache; live ones hold its lock."""
    cache = Path(str(repo.cache.local.path))
    if any(cache.glob("*/*.tmp")):
        with repo.lock:
            for leftover in cache.glob("*/*.tmp"):
                leftover.unlink()


class Versions:
    """DVC's view of the data set."""

    @cached_property
    def _repo(self) -> Repo:
        from dvc.repo import Repo  # half a second, paid by those who need it
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread for progress bars that nobody sees: a grid forks
        for own in ("dvc", "dvc_data"):  # hints on what to commit, a line for each file that goes
            logging.getLogger(own).setLevel(logging.WARNING)
        repo = Repo(str(ROOT), _wait_for_lock=True)  # another DVC's lock is waited for
        _mend_rwlock(repo)
        _sweep_cache(repo)
        return repo

    def state(self, *, remote: bool = True) -> State:
        """Look at the working copy and, with ``remote``, at the object store."""
        md5 = pointer_md5()
        present = FOLDER.is_dir()
        if md5 is None:
            return State(None, present, changed=present, pushed=False)
        target = [str(POINTER)]
        changed = present and bool(self._repo.status(targets=target))
        pushed = remote and not self._repo.status(targets=target, cloud=True)
        return State(md5, present, changed, pushed)

    def add(self) -> str:
        """Make the working copy the current version and return its content hash."""
        if pointer_md5() is None:
            POINTER.unlink(missing_ok=True)  # a blank one, which DVC refuses
        self._repo.add(str(FOLDER))
        md5 = pointer_md5()
        assert md5 is not None
        return md5

    def push(self) -> None:
        """Send the current version to the remote."""
        self._repo.push(targets=[str(POINTER)])

    def unused(self) -> int:
        """Return how many files no commit and no pointer refers to, here and in the remote."""
        return self._remove_unused(dry=True)

    def remove_unused(self) -> None:
        """Delete them."""
        self._remove_unused(dry=False)

    def _remove_unused(self, *, dry: bool) -> int:
        """Run DVC's garbage collection; only its log tells how many objects it removed."""
        logger = logging.getLogger("dvc.repo.gc")
        counted = _Removed()
        logger.addFilter(counted)
        logger.setLevel(logging.INFO)
        try:
            self._repo.gc(all_commits=True, workspace=True, cloud=True, force=True, dry=dry)
        finally:
            logger.removeFilter(counted)
            logger.setLevel(logging.NOTSET)
        return counted.objects

    def fetch(self, *, over: bool = False) -> bool:
        """Bring the pointer's version from the cache or the remote; False where neither has it.

        ``over`` replaces a working copy that holds another version.
        """
        from dvc.exceptions import CheckoutError, DvcException

        try:
            self._repo.pull(targets=[str(POINTER)], force=over)
        except CheckoutError:
            return False
        except DvcException as error:
            if "failed to fetch" in str(error).lower() or "missing" in str(error).lower():
                return False
            raise
        return FOLDER.is_dir()

    def content_md5(self) -> str:
        """Return the content hash of the working copy, whatever the pointer names."""
        (stage,) = self._repo.stage.load_file(str(POINTER))
        return str(stage.outs[0].get_hash().value)

    def holds(self, md5: str) -> bool:
        """Whether the cache has that version: a working copy of it was not edited."""
        return bool(self._repo.cache.local.exists(md5))


def require_current(md5: str, folder: Path = FOLDER) -> None:
    """Prove that the working copy is the version ``md5``.

    Raises:
        DatasetError: When it is missing or has changed since `make data`.
    """
    state = Versions().state(remote=False)
    if not folder.is_dir() or state.md5 != md5 or state.changed:
        raise DatasetError(f"{SET.shown} is not the version {md5} that DVC knows: make data")
