"""Checks of a data set in Ultralytics' layout, naming every fault."""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from src.datasets import CLASSES, SPLITS, DatasetError
from src.datasets.importing import pictures, yolo
from src.datasets.importing.tree import is_litter
from src.datasets.manifest import LAYOUT_FILE, images, label_of, read
from src.machine import cores

SHOWN = 50  # faults
# What a data.yaml may say; anything else could lead the trainer to other files, or run something.
ALLOWED = {*SPLITS, "names", "nc"}


def validate(folder: Path) -> dict[str, int]:
    """Return the number of images in each split.

    An image without a label file, or with an empty one, is a background and allowed. Images may lie
    in folders of a split. What programs leave behind (``.DS_Store`` and the like) doesn't count.

    Raises:
        DatasetError: With a line for each fault: ``data.yaml`` missing, leading elsewhere or about
            other classes, an empty split, one without a box, an image that the trainer would leave
            out, a label file without image, a line that is not a box, a class out of range, a box
            outside the image, the same image in two splits.
    """
    names, faults = _layout(folder)
    counts: dict[str, int] = {}
    seen: dict[str, Path] = {}
    looks = _Looks()
    for split in SPLITS:
        files = list(images(folder, split))
        counts[split] = len(files)
        if not files:
            faults.append(f"images/{split}: no image")
        looks.boxes = 0
        with ThreadPoolExecutor(cores()) as pool:
            for fault, digest, file in pool.map(
                lambda file: _image_faults(folder, file, len(names)), files
            ):
                faults += fault.texts
                looks.boxes += fault.boxes
                name = file.relative_to(folder)
                twin = seen.setdefault(digest, name) if digest else name
                if twin.parts[1] != name.parts[1]:
                    faults.append(f"{name}: the same image as {twin}")
        faults += _orphans(folder, split, files, names)
        if files and not looks.boxes and not faults:
            faults.append(f"labels/{split}: not one box: label some images")
    faults += _strangers(folder)
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults[:SHOWN])
        more = f"\n  … and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DatasetError(
            f"{folder} has faults ({len(faults)}); mend them or rebuild:\n{listed}{more}"
        )
    return counts


@dataclass
class _Looks:
    """What was found in an image's files, or in a split's."""

    texts: list[str] = field(default_factory=list)
    boxes: int = 0


def _layout(folder: Path) -> tuple[list[str], list[str]]:
    """Return the classes and the faults of ``data.yaml``."""
    try:
        layout = yaml.safe_load((folder / LAYOUT_FILE).read_text(encoding="utf-8"))
        names = layout["names"]
    except UnicodeDecodeError:
        return list(CLASSES), [f"{LAYOUT_FILE}: not UTF-8 text: save it as UTF-8"]
    except (OSError, yaml.YAMLError, TypeError, KeyError, RecursionError):
        return list(CLASSES), [f"{LAYOUT_FILE}: missing, or without names"]
    if isinstance(names, dict):
        if list(names) != list(range(len(names))):
            return list(CLASSES), [f"{LAYOUT_FILE}: names: number them from 0 without a gap"]
        names = list(names.values())
    if not isinstance(names, list) or not names:
        return list(CLASSES), [f"{LAYOUT_FILE}: names: list the classes"]
    names = list(map(str, names))
    return names, _layout_faults(folder, layout, names)


def _layout_faults(folder: Path, layout: dict[str, Any], names: list[str]) -> list[str]:
    faults = [
        f"{LAYOUT_FILE}: {key}: delete it: only the files of this folder count"
        for key in layout
        if key not in ALLOWED
    ]
    faults += [
        f"{LAYOUT_FILE}: {split}: write images/{split}: only the files of this folder count"
        for split in SPLITS
        if split in layout and layout[split] != f"images/{split}"
    ]
    if "nc" in layout and layout["nc"] != len(names):
        faults.append(f"{LAYOUT_FILE}: nc is {layout['nc']}, names has {len(names)}")
    if len(set(names)) < len(names):
        twin = Counter(names).most_common(1)[0][0]
        faults.append(f"{LAYOUT_FILE}: two classes have the name {twin!r}")
    if names != list(CLASSES) and read(folder).kind != "imported":
        faults.append(f"{LAYOUT_FILE}: classes {names}, not {list(CLASSES)}")
    return faults


def _image_faults(folder: Path, file: Path, classes: int) -> tuple[_Looks, str, Path]:
    """Return an image's and its labels' faults, and the digest of the image's content."""
    found = _Looks()
    name = file.relative_to(folder)
    content = file.read_bytes()
    picture = None
    try:
        picture = pictures.examine(content)
    except pictures.PictureFault as fault:
        found.texts.append(f"{name}: unreadable image ({fault.what})")
    if picture is not None and picture.content is not None:
        reason = "; ".join(picture.changes)
        found.texts.append(f"{name}: the trainer would change or turn it ({reason}): save it again")
    label = label_of(folder, file)
    if label.is_file():
        size = (picture.width, picture.height) if picture else (1, 1)
        found.boxes = _label_faults(folder, label, classes, size, found.texts)
    return found, hashlib.sha256(content).hexdigest(), file


def _label_faults(
    folder: Path, label: Path, classes: int, size: tuple[int, int], faults: list[str]
) -> int:
    """Add a label file's faults to ``faults``; return how many boxes it holds."""
    name = label.relative_to(folder)
    labels = yolo.read_labels(label.read_bytes(), classes)
    found = [(number, f"{what}: {remedy}") for number, what, remedy in labels.faults]
    for number, box in zip(labels.lines, labels.boxes, strict=True):
        _, x, y, w, h = box
        edges = (x - w / 2, y - h / 2, 1 - x - w / 2, 1 - y - h / 2)
        if not (w > 0 and h > 0 and min(edges) >= -yolo.SLACK):
            found.append(
                (number, f"box {x:g} {y:g} {w:g} {h:g} is empty or outside the image ({size[0]} × "
                 f"{size[1]})")
            )  # fmt: skip
    if labels.polygons:
        found.append((1, "polygons: write boxes, class x y width height"))
    faults += [f"{name} line {number}: {what}" for number, what in sorted(found)]
    return len(labels.boxes)


def _orphans(folder: Path, split: str, files: list[Path], names: list[str]) -> list[str]:
    """Return a fault for each label that belongs to no image, and its own faults."""
    home = folder / "labels" / split
    wanted = {label_of(folder, file) for file in files}
    faults: list[str] = []
    for label in sorted(home.rglob("*.txt")):
        if label in wanted or any(map(is_litter, label.relative_to(home).parts)):
            continue
        faults.append(f"{label.relative_to(folder)}: no image of that name")
        _label_faults(folder, label, len(names), (1, 1), faults)
    return faults


def _strangers(folder: Path) -> list[str]:
    """Return a fault for each folder beside the splits that holds files that are never read."""
    faults = []
    for kind, suffix in (("images", ""), ("labels", ".txt")):
        home = folder / kind
        for other in sorted(home.iterdir()) if home.is_dir() else ():
            if other.name in SPLITS or is_litter(other.name) or other.name == "classes.txt":
                continue
            held = sum(1 for file in other.rglob(f"*{suffix}") if file.is_file())
            if other.is_file() or held:
                what = "a file" if other.is_file() else f"{held} files"
                faults.append(
                    f"{kind}/{other.name}: {what} in no split: is its name misspelt? It must be "
                    f"{', '.join(SPLITS)}"
                )
    return faults
