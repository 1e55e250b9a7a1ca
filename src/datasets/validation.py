"""Checks of a data set in Ultralytics' layout, naming every fault."""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml
from PIL import Image

from src.datasets import CLASSES, SPLITS, DatasetError
from src.datasets.manifest import images

SLACK = 1e-6  # edges may leave the image by a rounding error, as a share of its size


def validate(folder: Path) -> dict[str, int]:
    """Return the number of images in each split.

    An image without a label file, or with an empty one, is a background and allowed.

    Raises:
        DatasetError: With a line for each fault: ``data.yaml`` missing or about other classes, an
            empty split, an unreadable image, a label file without image, a line that is no box, a
            class out of range, a box outside the image, the same image in two splits.
    """
    faults = _layout_faults(folder)
    counts: dict[str, int] = {}
    seen: dict[str, Path] = {}
    for split in SPLITS:
        files = list(images(folder, split))
        counts[split] = len(files)
        if not files:
            faults.append(f"images/{split}: no image")
        for file in files:
            faults += _image_faults(folder, file, seen)
        stems = {file.stem for file in files}
        for label in sorted((folder / "labels" / split).glob("*.txt")):
            if label.stem not in stems:
                faults.append(f"{label.relative_to(folder)}: no image of that name")
            faults += _label_faults(folder, label)
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise DatasetError(f"{folder} has {len(faults)} faults, mend them or rebuild:\n{listed}")
    return counts


def _layout_faults(folder: Path) -> list[str]:
    try:
        layout = yaml.safe_load((folder / "data.yaml").read_text())
        names = layout["names"]
    except (OSError, yaml.YAMLError, TypeError, KeyError):
        return ["data.yaml: missing, or without names"]
    names = list(names.values()) if isinstance(names, dict) else names
    return [] if names == list(CLASSES) else [f"data.yaml: classes {names}, not {list(CLASSES)}"]


def _image_faults(folder: Path, file: Path, seen: dict[str, Path]) -> list[str]:
    name = file.relative_to(folder)
    try:
        with Image.open(file) as image:
            image.load()
    except Exception as error:  # noqa: BLE001 - Pillow's plugins raise of all kinds for broken files
        return [f"{name}: unreadable image ({type(error).__name__})"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    twin = seen.setdefault(digest, name)
    return [f"{name}: the same image as {twin}"] if twin.parent != name.parent else []


def _label_faults(folder: Path, file: Path) -> list[str]:
    faults = []
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
        if fault := line.strip() and _box_fault(line):
            faults.append(f"{file.relative_to(folder)} line {number}: {fault}")
    return faults


def _box_fault(line: str) -> str | None:
    try:
        kind, x, y, width, height = (float(word) for word in line.split())
    except ValueError:
        return f"not a box (class x y width height): {line.strip()[:60]!r}"
    if kind not in range(len(CLASSES)):
        return f"class {kind:g} is out of range 0 to {len(CLASSES) - 1}"
    edges = (x - width / 2, y - height / 2, 1 - x - width / 2, 1 - y - height / 2)
    # Written so that NaN is a fault too.
    if not (width > 0 and height > 0 and all(edge >= -SLACK for edge in edges)):
        return f"box {x:g} {y:g} {width:g} {height:g} is empty or outside the image"
    return None
