"""The page of a version: what is in it, at a glance, in one HTML file that needs no network."""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image, ImageDraw, ImageOps

from src.datasets import SPLITS

TEMPLATE = Path(__file__).with_name("page.html.jinja")
SHOWN = 24  # pictures of each split
THUMBNAIL = 240  # px, longest edge
QUALITY = 78
SIZE_BINS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # box edge (root of its share of the image)
PLACES = 12  # cells of the map of centres, each way
PALETTE = (
    "#0b84f3", "#e4572e", "#2e933c", "#f2a900", "#8f3fbf", "#00a6a6", "#d81159", "#6b7a8f",
    "#7a5c2e", "#3d5a80",
)  # fmt: skip


@dataclass
class Look:
    """What the page needs to know of one image."""

    file: Path
    size: tuple[int, int]  # px, as displayed
    boxes: list[tuple[int, float, float, float, float]]  # class, centre and size as shares


@dataclass
class Survey:
    """What a version holds."""

    looks: dict[str, list[Look]] = field(default_factory=dict)  # by split
    boxes: dict[str, Counter[int]] = field(default_factory=dict)
    images: dict[str, Counter[int]] = field(default_factory=dict)  # images that show a class


def survey(folder: Path) -> Survey:
    """Read a valid version's labels and its images' sizes."""
    found = Survey()
    for split in SPLITS:
        home = folder / "images" / split
        looks = []
        boxes: Counter[int] = Counter()
        images: Counter[int] = Counter()
        for file in sorted(f for f in home.rglob("*") if f.is_file()):
            label = folder / "labels" / split / file.relative_to(home).with_suffix(".txt")
            rows = []
            if label.is_file():
                for line in label.read_text(encoding="utf-8-sig").splitlines():
                    if words := line.split():
                        kind, x, y, w, h = map(float, words[:5])
                        rows.append((int(kind), x, y, w, h))
            with Image.open(file) as image:
                size = image.size
            looks.append(Look(file, size, rows))
            boxes.update(row[0] for row in rows)
            images.update({row[0] for row in rows})
        found.looks[split], found.boxes[split], found.images[split] = looks, boxes, images
    return found


def render(
    folder: Path, names: list[str], name: str, version: str, origin: str, account: dict[str, Any]
) -> str:
    """Return the page of a version as HTML.

    Args:
        folder: The version, valid.
        names: Its classes in the order of their numbers.
        name: The data set's.
        version: DVC's content hash.
        origin: Where it comes from, in one phrase.
        account: What its import ignored, refused and changed; empty for a set that was built here.
    """
    found = survey(folder)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    every = [look for looks in found.looks.values() for look in looks]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=name,
        version=version,
        origin=origin,
        splits=SPLITS,
        names=names,
        colours=[PALETTE[number % len(PALETTE)] for number in range(len(names))],
        found=found,
        sheets={split: _sheet(looks, names) for split, looks in found.looks.items()},
        shown=SHOWN,
        sizes=_sizes(every),
        places=_places(every),
        edges=_edges(every),
        account=account,
    )


def read_account(folder: Path) -> dict[str, Any]:
    """Return what the import of a version had to say, nothing for a set that was built here."""
    file = folder / "account.json"
    if not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _sheet(looks: list[Look], names: list[str]) -> list[dict[str, str]]:
    """Return a split's contact sheet: pictures that show each class, then some from all over."""
    chosen: dict[Path, Look] = {}
    for kind in range(len(names)):
        first = next((look for look in looks if any(box[0] == kind for box in look.boxes)), None)
        if first is not None and len(chosen) < SHOWN:
            chosen[first.file] = first
    step = max(1, len(looks) // SHOWN)
    for look in looks[::step]:
        if len(chosen) < SHOWN:
            chosen[look.file] = look
    pictures = []
    for look in sorted(chosen.values(), key=lambda look: look.file):
        kinds = Counter(names[box[0]] for box in look.boxes)
        listed = ", ".join(f"{count} {title}" for title, count in kinds.most_common()) or "no box"
        pictures.append({"name": look.file.name, "boxes": listed, "data": _thumbnail(look)})
    return pictures


def _thumbnail(look: Look) -> str:
    """Return a small JPEG with the boxes on it, as a data address."""
    with Image.open(look.file) as opened:
        opened.draft("RGB", (THUMBNAIL, THUMBNAIL))
        image = ImageOps.exif_transpose(opened).convert("RGB")
        image.thumbnail((THUMBNAIL, THUMBNAIL))
    draw = ImageDraw.Draw(image)
    width, height = image.size
    for kind, x, y, w, h in look.boxes:
        corners = (
            (x - w / 2) * width,
            (y - h / 2) * height,
            (x + w / 2) * width,
            (y + h / 2) * height,
        )
        left, top, right, bottom = (round(corner) for corner in corners)
        draw.rectangle(
            (left, top, max(left, min(right, width - 1)), max(top, min(bottom, height - 1))),
            outline=PALETTE[kind % len(PALETTE)],
            width=2,
        )
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _sizes(looks: list[Look]) -> list[dict[str, Any]]:
    """Return a histogram of the boxes' edges, each the root of its share of the image."""
    counts = [0] * (len(SIZE_BINS) - 1)
    for look in looks:
        for _, _, _, w, h in look.boxes:
            edge = math.sqrt(w * h)
            counts[next((n for n, top in enumerate(SIZE_BINS[1:]) if edge <= top), -1)] += 1
    most = max([1, *counts])
    return [
        {"label": f"{100 * low:g}–{100 * high:g} %", "count": count, "share": 100 * count / most}
        for low, high, count in zip(SIZE_BINS, SIZE_BINS[1:], counts, strict=False)
    ]


def _places(looks: list[Look]) -> list[list[float]]:
    """Return how full each cell of the image is of boxes' centres, the fullest 1."""
    cells = [[0.0] * PLACES for _ in range(PLACES)]
    for look in looks:
        for _, x, y, _, _ in look.boxes:
            cells[min(PLACES - 1, int(y * PLACES))][min(PLACES - 1, int(x * PLACES))] += 1
    most = max([1.0, *(max(row) for row in cells)])
    return [[value / most for value in row] for row in cells]


def _edges(looks: list[Look]) -> list[dict[str, Any]]:
    """Return the commonest image sizes."""
    counts = Counter(look.size for look in looks)
    most = max([1, *counts.values()])
    listed = [
        {"label": f"{width} × {height}", "count": count, "share": 100 * count / most}
        for (width, height), count in counts.most_common(8)
    ]
    others = sum(counts.values()) - sum(count for _, count in counts.most_common(8))
    if others:
        label = f"{len(counts) - len(listed)} other sizes"
        listed.append({"label": label, "count": others, "share": min(100.0, 100 * others / most)})
    return listed
