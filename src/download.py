"""Downloads that show progress, resume, and never leave half a file under the final name."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
from tqdm import tqdm

from src.errors import UserError
from src.files import private_folder, sha256, write_private

CONNECT_TIMEOUT = (
    5.0  # seconds; short, because `auto` settings try this on machines without network
)
READ_TIMEOUT = 60.0  # seconds between two packets
CHUNK = 1 << 16  # bytes
# What the addresses that this project names itself hold, as many have published it independently.
ASSETS = "https://github.com/ultralytics/assets/releases/download"
PINNED = {
    f"{ASSETS}/v8.4.0/yolov8n.pt": (
        "f59b3d833e2ff32e194b5bb8e08d211dc7c5bdf144b90d2c8412c47ccfc83b36"
    ),
    f"{ASSETS}/v0.0.0/coco128.zip": (
        "61e5e3028863d8ffc3b81d6a514603954889f0edd5e4b44c4ce60b2da99aeb8e"
    ),
}


class DownloadError(UserError):
    """A file could not be fetched; the message names the address and the reason."""


def fetch(url: str, target: Path) -> Path:
    """Return a local file with the content of ``url``; ``file://`` addresses are used in place.

    An interrupted download goes on where it stopped when the server allows it, else it starts
    again. A complete one is not repeated. Of an address without a pinned SHA-256 the first one's is
    recorded, and said when it changes.

    Raises:
        DownloadError: When the address can't be reached, the content is truncated or not what is
            pinned, or the disk has no room for it.
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
        if answer.status_code == 416:  # the part holds more than the file: begin again
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
    version.unlink(missing_ok=True)
    _check(url, part, target.with_name(f"{target.name}.sha256"))
    part.replace(target)
    return None


def _check(url: str, part: Path, record: Path) -> None:
    """Compare a complete download with what is pinned, or with the first from that address."""
    digest = sha256(part)
    pinned = PINNED.get(url)
    if pinned and digest != pinned:
        part.unlink()
        raise DownloadError(f"{url}: not the published file, its SHA-256 is {digest}: refused")
    if pinned:
        return
    if not record.is_file():
        write_private(record, f"{digest}\n")
    elif (first := record.read_text().strip()) != digest:
        sys.stderr.write(f"*** {url} has changed: SHA-256 {digest}, at first {first}\n")


def _sized(answer: requests.Response) -> bool:
    return answer.headers.get("Content-Length", "").isdigit()


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DownloadError(f"{size >> 20} MB are needed in {folder}, {free >> 20} are free")
