"""Downloads that show progress, resume, and never leave half a file under the final name."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
from tqdm import tqdm

from src.errors import UserError
from src.files import private_folder

CONNECT_TIMEOUT = (
    5.0  # seconds; short, because `auto` settings try this on machines without network
)
READ_TIMEOUT = 60.0  # seconds between two packets
CHUNK = 1 << 16  # bytes


class DownloadError(UserError):
    """A file could not be fetched; the message names the address and the reason."""


def fetch(url: str, target: Path) -> Path:
    """Return a local file with the content of ``url``; ``file://`` addresses are used in place.

    An interrupted download goes on where it stopped when the server allows it, else it starts
    anew. A complete one is not repeated.

    Raises:
        DownloadError: When the address can't be reached, the content is truncated, or the disk
            has no room for it.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        local = Path(unquote(parts.path))
        if not local.is_file():
            raise DownloadError(f"{url}: no such file")
        return local
    if target.is_file():
        return target
    private_folder(target.parent)
    try:
        _download(url, target)
    except requests.RequestException as error:
        reason = "no connection" if isinstance(error, requests.ConnectionError) else str(error)
        raise DownloadError(f"{url}: {reason}") from error
    except OSError as error:
        raise DownloadError(f"{url}: {error.strerror}: {target.parent}") from error
    return target


def _download(url: str, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    version = target.with_name(f"{target.name}.etag")
    have = part.stat().st_size if part.is_file() and version.is_file() else 0
    # If-Range: the server sends the rest only when the file is still the one that was begun.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version.read_text()}
    with requests.get(
        url, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT)
    ) as answer:
        if answer.status_code == 416:  # the part holds more than the file: begin anew
            part.unlink()
            return _download(url, target)
        answer.raise_for_status()
        if answer.status_code != 206:
            have = 0
            part.unlink(missing_ok=True)
            version.unlink(missing_ok=True)
            if etag := answer.headers.get("ETag"):
                version.write_text(etag)
        total = have + int(answer.headers["Content-Length"]) if _sized(answer) else None
        _require_room(target.parent, (total or 0) - have)
        with (
            part.open("ab") as file,
            tqdm(
                total=total, initial=have, unit="B", unit_scale=True, desc=target.name, disable=None
            ) as bar,
        ):
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        raise DownloadError(f"{url}: {size} of {total} bytes arrived: run the same command again")
    part.replace(target)
    version.unlink(missing_ok=True)
    return None


def _sized(answer: requests.Response) -> bool:
    return answer.headers.get("Content-Length", "").isdigit()


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DownloadError(f"{size >> 20} MB are needed in {folder}, {free >> 20} are free")
