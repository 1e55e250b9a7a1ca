"""Unpack an archive that is not trusted."""

from __future__ import annotations

import shutil
import stat
import sys
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tqdm import tqdm

from src.datasets.importing.account import ImportFault

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
RATIO_LIMIT = 200  # unpacked to packed; pictures hardly pack at all
RATIO_FREE = 1 << 30  # bytes that may be unpacked whatever the ratio
MEMBERS_LIMIT = 4_000_000
CHUNK = 1 << 20
LINK = "is a link or a device: refused: replace it by the file, or give a folder"
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError,
           NotImplementedError, ValueError)  # fmt: skip


def is_archive(path: Path) -> bool:
    """Tell an archive by its name."""
    return path.name.lower().endswith(SUFFIXES)


def stem(name: str) -> str:
    """Return an archive's name without what says that it is one."""
    lower = name.lower()
    suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if lower.endswith(s)), "")
    return name[: len(name) - len(suffix)]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into an empty folder.

    Raises:
        ImportFault: When it is damaged, encrypted or far larger than it looks, when there is no
            room, or when a member or link leaves the folder, is named twice or is a device.
    """
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder)
        elif tarfile.is_tarfile(archive):
            _unpack_tar(archive, folder)
        else:
            raise ImportFault(f"{archive}: no zip or tar archive: bring one, or a folder")
    except ImportFault:
        raise
    except DAMAGED as error:
        raise ImportFault(
            f"{archive} can't be unpacked ({str(error)[:120] or type(error).__name__}): bring it "
            "again, or unpack it yourself and give the folder"
        ) from error


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = [info for info in packed.infolist() if not info.is_dir()]
        for info in members:
            if info.flag_bits & 1:
                raise ImportFault(f"{archive} is encrypted: unpack it and give the folder")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise ImportFault(f"{archive}: {info.filename!r} {LINK}")
        names = _places(archive, [info.filename for info in members])
        _require_room(archive, folder, sum(info.file_size for info in members), len(members))
        for info, name in _progress(archive, list(zip(members, names, strict=True))):
            with packed.open(info) as source:
                _write(source, folder / name, info.file_size, archive)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as packed:
        members = []
        size = 0
        for member in packed:
            if member.isdir():
                continue
            if not member.isfile():
                raise ImportFault(f"{archive}: {member.name!r} {LINK}")
            members.append(member)
            size += member.size
            if len(members) % 10_000 == 0:
                _require_room(archive, folder, size, len(members))
        names = _places(archive, [member.name for member in members])
        _require_room(archive, folder, size, len(members))
        for member, name in _progress(archive, list(zip(members, names, strict=True))):
            source = packed.extractfile(member)
            assert source is not None
            with source:
                _write(source, folder / name, member.size, archive)


def _places(archive: Path, names: list[str]) -> list[Path]:
    """Return where the members go; refuse those that would leave the folder or meet."""
    places = []
    seen: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or "\0" in name or ":" in path.parts[0][1:2]:
            raise ImportFault(f"{archive}: {name!r} leaves the folder: refused")
        key = str(path)
        if sys.platform == "darwin":  # where names differ in more than case and Unicode form
            key = unicodedata.normalize("NFC", key).casefold()
        if key in seen:
            raise ImportFault(
                f"{archive} holds {name!r} twice: unpack it, keep the right one, give the folder"
            )
        seen[key] = name
        places.append(Path(*path.parts))
    return places


def _require_room(archive: Path, folder: Path, size: int, members: int) -> None:
    packed = max(archive.stat().st_size, 1)
    if size > max(RATIO_FREE, RATIO_LIMIT * packed) or members > MEMBERS_LIMIT:
        raise ImportFault(
            f"{archive} unpacks to {size >> 20} MB in {members} files, {size // packed} times its "
            "size: refused as a trap; if it is none, unpack it and give the folder"
        )
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ImportFault(f"{archive} needs {size >> 20} MB, {free >> 20} are free: make room")


def _progress(archive: Path, members: list[tuple[Any, Path]]) -> Iterator[tuple[Any, Path]]:
    yield from tqdm(members, desc=f"unpacking {archive.name}", unit="file", disable=None)


def _write(source: IO[bytes], target: Path, size: int, archive: Path) -> None:
    """Copy one member, and no more of it than it said."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = size
    with target.open("xb") as file:
        while chunk := source.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise ImportFault(f"{archive}: {target.name} is larger than it says: refused")
            file.write(chunk)
    if left:
        raise ImportFault(f"{archive}: {target.name} is cut off: bring the archive again")
