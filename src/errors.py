"""What a command says when it fails: one line, with the remedy where there is one.

Libraries' exceptions are told by the names of their classes, so that nothing is imported for them.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from src.machine import full_disk

_ROOT = Path(__file__).resolve().parents[1]
LOG = _ROOT / ".stack" / "errors.log"
AGAIN = "then the same command again"

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_FILE_FAULTS = {
    errno.ENOENT: "no such file",
    errno.EISDIR: "a folder, where a file is wanted",
    errno.ENOTDIR: "a file, where a folder is wanted",
    errno.EACCES: "you may not read or write it",
    errno.EPERM: "you may not read or write it",
}
_NO_ANSWER = (
    "requests.exceptions.ConnectionError",
    "requests.exceptions.Timeout",
    "urllib3.exceptions.HTTPError",
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.HTTPClientError",
    "aiohttp.client_exceptions.ClientConnectionError",
    "builtins.ConnectionRefusedError",
    "builtins.ConnectionResetError",
)
_REFUSALS = (  # as servers do, too, that can't write
    "requests.exceptions.HTTPError",
    "botocore.exceptions.ClientError",
    "mlflow.exceptions.MlflowException",
)

_DVC_FILE = (  # dvc.yaml, dvc.lock or a pointer that can't be read
    "dvc.utils.serialize._common.ParseError",
    "dvc.utils.strictyaml.YAMLValidationError",
)


class UserError(Exception):
    """Something that the user can mend; the message says what and how, a line for each fault."""


def run_command(command: Callable[[], int | None]) -> int:
    """Run a command's work and return its exit status; every failure is one clear error.

    Returns:
        The work's own status (None is 0), 1 after an error, 130 after Ctrl-C.
    """
    try:
        return command() or 0
    except KeyboardInterrupt:
        print("interrupted: the same command carries on", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001 - the last one who can say what went wrong
        if (said := explain(error)) is None:
            said = f"{in_short(error)}; {keep(''.join(traceback.format_exception(error)))}"
        print(f"error: {said}", file=sys.stderr)
        if os.environ.get("DEBUG"):
            traceback.print_exception(error)
        return 1


def explain(error: BaseException) -> str | None:
    """Return what is wrong and what to do about it, None where nobody has foreseen the error."""
    if isinstance(error, UserError) or (error and _is(error, "src.locks.Busy")):
        return str(error)
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            where = f" ({shown(cause.filename)})" if cause.filename else ""
            return f"the disk is full, or your share of it{where}: make room, {AGAIN}"
        if _is(cause, *_NO_ANSWER, *_REFUSALS) and (full := full_disk()):
            return f"{full}: make room, {AGAIN}"
        if _is(cause, *_NO_ANSWER):
            return f"{_address(cause)} does not answer: make up, {AGAIN}"
    for cause in _chain(error, contexts=False):
        if explained := _explain_library(cause) or _explain_file(cause):
            return explained
    return None


def file_fault(error: OSError | UnicodeDecodeError) -> str:
    """Return in a few words why a file can't be used."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text (byte {error.start})"
    return _FILE_FAULTS.get(error.errno or 0) or error.strerror or str(error)


def keep(trace: str) -> str:
    """Append a traceback to the log, readable by nobody else (0600, its folder 0700).

    Returns:
        Where it is, as the end of a sentence; the traceback itself where it can't be kept.
    """
    try:
        LOG.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.write(f"== {datetime.now():%Y-%m-%d %H:%M:%S} {sys.argv[0]}\n{trace}\n")
    except OSError as error:
        return f"the traceback can't be kept ({error.strerror}):\n{trace}"
    return f"the traceback is in {shown(LOG)}"


def in_short(error: BaseException) -> str:
    """Return an error's class and the first line of what it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def _explain_library(error: BaseException) -> str | None:
    said = in_short(error).partition(": ")[2] or type(error).__name__
    if _is(error, "dvc.lock.LockError"):
        return f"another DVC is at work in this checkout: let it end, {AGAIN}"
    if _is(error, *_DVC_FILE):
        return f"DVC: {said}: mend the file, or take it back with git checkout"
    if _is(error, "dvc.exceptions.DvcException"):
        return f"DVC: {said}"
    if _is(error, "mlflow.exceptions.MlflowException"):
        return f"MLflow refuses: {said}"
    if _is(error, "zenml.exceptions.AuthorizationException"):
        return f"ZenML refuses this checkout's API key ({said}): make stack, {AGAIN}"
    if type(error).__module__.startswith("zenml."):
        return f"ZenML: {said}"
    if "RequestTimeTooSkewed" in said:
        return f"the clocks of this machine and the object store's differ: set them alike, {AGAIN}"
    if _is(error, "botocore.exceptions.ClientError", "botocore.exceptions.BotoCoreError"):
        return f"the object store refuses ({said}): make stack, {AGAIN}"
    if _is(error, "requests.exceptions.HTTPError"):
        return f"{_address(error)} answers with an error ({said}): see make logs"
    # PyTorch's on a CPU and OpenCV's have no class of their own.
    full = "can't allocate memory" in said or "Insufficient memory" in said
    if full or _is(error, "torch.OutOfMemoryError", "builtins.MemoryError"):
        return f"not enough memory ({said}): a smaller BATCH or IMGSZ, or for a grid fewer JOBS"
    return None


def _explain_file(error: BaseException) -> str | None:
    if isinstance(error, UnicodeDecodeError):
        return f"{_read_by(error)}: {file_fault(error)}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{shown(error.filename)}: {file_fault(error)}"
    return None


def _read_by(error: UnicodeDecodeError) -> str:
    """Return which file was being read; the error itself doesn't say."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    owners = [frame.f_locals.get("self") for frame in frames]
    paths: list[object] = [owner for owner in owners if isinstance(owner, Path)]
    held = [value for frame in frames for value in frame.f_locals.values()]
    opened = [value for value in held if isinstance(value, io.TextIOWrapper)]
    paths += [file.name for file in opened if getattr(file, "mode", "").startswith("r")]
    return shown(paths[-1]) if paths else "a file"


def shown(path: object) -> str:
    """Return a path as people know it: from the checkout's folder on, where it is in there."""
    full = Path(os.fsdecode(path)) if isinstance(path, str | bytes | Path) else Path(str(path))
    return str(full.relative_to(_ROOT) if full.is_relative_to(_ROOT) else full)


def _chain(error: BaseException | None, *, contexts: bool = True) -> Iterator[BaseException]:
    """Yield an error, then those it was raised from, and with ``contexts`` while dealing with."""
    seen: set[int] = set()
    while error and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or (error.__context__ if contexts else None)


def _is(error: BaseException, *names: str) -> bool:
    known = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__}
    return not known.isdisjoint(names)


def _address(error: BaseException) -> str:
    """Return the host and port that a failed request went to, as far as the error tells."""
    for cause in _chain(error):
        for url in (
            getattr(getattr(cause, "request", None), "url", None),
            getattr(cause, "kwargs", {}).get("endpoint_url"),
        ):
            if url:
                return str(urlsplit(url).netloc)
        if pool := getattr(cause, "conn", None) or getattr(cause, "pool", None):
            return f"{pool.host}:{pool.port}"
    return "a server"
