"""Photos: the lab's 60 photos of people out of COCO128, 40 / 10 / 10."""

from __future__ import annotations

import io
import random
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from PIL import Image

from src.datasets import IMAGE_SIZE, DatasetError

SPLIT_COUNTS = {"train": 40, "val": 10, "test": 10}
SPLIT_SEED = 42
COCO_PERSON = "0"  # COCO's first class
UNPACKED_LIMIT = 1 << 30  # bytes; COCO128 has 7 million
JPEG_QUALITY = 95


def build_coco128(folder: Path, archive: Path) -> None:
    """Write ``images/{split}/*.jpg`` (320 × 320) and ``labels/{split}/*.txt`` into ``folder``.

    The split is the lab's, so that its numbers compare: the photos with a person, sorted by
    name, shuffled with seed 42, the first 60 of them as 40 train, 10 val and 10 test.

    Raises:
        DatasetError: When the archive is not COCO128: truncated, with paths that leave its folder,
            without images or labels, or with fewer than 60 photos of people.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            members = _members(packed, archive)
            names = [name for name in sorted(members.images) if _people(packed, members, name)]
            needed = sum(SPLIT_COUNTS.values())
            if len(names) < needed:
                raise DatasetError(
                    f"{archive.name} has {len(names)} photos with a person, {needed} are needed: "
                    "set COCO128_URL to COCO128 in its official layout"
                )
            random.Random(SPLIT_SEED).shuffle(names)
            start = 0
            for split, count in SPLIT_COUNTS.items():
                for name in names[start : start + count]:
                    _write(packed, members, name, folder, split)
                start += count
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise DatasetError(f"{archive} is damaged or no zip archive ({error})") from error


class _Members:
    """The archive's images and labels by the file's stem."""

    def __init__(self) -> None:
        self.images: dict[str, zipfile.ZipInfo] = {}
        self.labels: dict[str, zipfile.ZipInfo] = {}


def _members(packed: zipfile.ZipFile, archive: Path) -> _Members:
    found = _Members()
    unpacked = 0
    for info in packed.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]):
            raise DatasetError(
                f"{archive.name}: member {info.filename!r} leaves the folder: refused"
            )
        unpacked += info.file_size
        if path.suffix == ".jpg" and "images" in path.parts:
            found.images[path.stem] = info
        elif path.suffix == ".txt" and "labels" in path.parts:
            found.labels[path.stem] = info
    if unpacked > UNPACKED_LIMIT:
        raise DatasetError(f"{archive.name} unpacks to {unpacked >> 20} MB: refused")
    if not found.images or not found.labels:
        raise DatasetError(f"{archive.name} has no images/ and labels/ folders: is it COCO128?")
    return found


def _people(packed: zipfile.ZipFile, members: _Members, name: str) -> list[str]:
    """Return a photo's label lines of people; photos without a label file have none."""
    if name not in members.labels:
        return []
    lines = packed.read(members.labels[name]).decode().splitlines()
    return [line.strip() for line in lines if line.split()[:1] == [COCO_PERSON]]


def _write(packed: zipfile.ZipFile, members: _Members, name: str, folder: Path, split: str) -> None:
    image_file = folder / "images" / split / f"{name}.jpg"
    label_file = folder / "labels" / split / f"{name}.txt"
    for file in (image_file, label_file):
        file.parent.mkdir(parents=True, exist_ok=True)
    content = packed.read(members.images[name])
    try:
        with Image.open(io.BytesIO(content)) as photo:
            # Labels are relative to the edges, so they survive the squeeze.
            small = photo.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    except Exception as error:
        raise DatasetError(f"{name}.jpg in the archive can't be read ({error})") from error
    small.save(image_file, quality=JPEG_QUALITY)
    label_file.write_text("\n".join(_people(packed, members, name)) + "\n")
