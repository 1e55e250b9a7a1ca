"""COCO JSON, Pascal VOC and CVAT XML: boxes in pixels, each with the place where it stands.

``labelformat`` reads these formats too, and the tests compare the two on sound files. It is not
used here because it can't account for what it reads (0.1.17): an annotation without a box, or of an
unknown category, ends the whole file with a ``KeyError`` that names nothing; CVAT's polygons,
tracks and rotations and COCO's crowds are dropped or changed without a word; NaN passes.
"""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from src.datasets.importing.account import ImportFault
from src.datasets.importing.plan import PixelBox

BOX_REMEDY = "mend or delete the annotation"


@dataclass
class Entry:
    """What an annotation file says about one image."""

    file: str  # as written there
    size: tuple[int, int] | None = None  # width, height in px
    boxes: list[PixelBox] = field(default_factory=list)
    faults: list[tuple[str, str, str]] = field(default_factory=list)  # where, what, remedy
    lost: int = 0  # boxes of the faults
    split: str | None = None
    where: str = ""


@dataclass
class Markup:
    """An annotation file's content."""

    names: list[str]
    entries: list[Entry]
    orphans: list[tuple[str, str, str]] = field(default_factory=list)  # boxes of no image
    ignored: dict[str, int] = field(default_factory=dict)  # kinds of annotation without a box
    polygons: int = 0
    notes: list[str] = field(default_factory=list)

    def ignore(self, kind: str) -> None:
        """Count an annotation that is not a box."""
        self.ignored[kind] = self.ignored.get(kind, 0) + 1


def _finite(values: Any) -> list[float] | None:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    found = _finite((width, height))
    return (int(found[0]), int(found[1])) if found and min(found) >= 1 else None


# --- COCO ---------------------------------------------------------------------------------------


def is_coco(content: Any) -> bool:
    """Whether parsed JSON is a COCO detection file."""
    return isinstance(content, dict) and all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    )


def parse_json(content: bytes, name: str) -> Any:
    """Parse JSON; raises ``ImportFault`` with its line."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ImportFault(f"{name}: not UTF-8 text: save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ImportFault(
            f"{name} line {error.lineno}: no JSON ({error.msg}): export it again"
        ) from None
    except RecursionError:
        raise ImportFault(f"{name}: nested too deep to be JSON of COCO: export it again") from None


def read_coco(content: dict[str, Any], name: str) -> Markup:
    """Read a COCO detection file; classes come in the order of their ids."""
    categories: dict[Any, str] = {}
    parents: set[str] = set()
    for number, category in enumerate(content["categories"], 1):
        if not isinstance(category, dict) or "id" not in category or "name" not in category:
            raise ImportFault(f"{name}: category {number} has no id or name: mend it")
        key = _key(category["id"])
        if key in categories:
            raise ImportFault(f"{name}: two categories have the id {key}: mend it")
        categories[key] = str(category["name"])
        parents.add(str(category.get("supercategory", "")))
    annotations = content["annotations"]
    used = {_key(a.get("category_id")) for a in annotations if isinstance(a, dict)}
    # Roboflow's first category is the project itself, and parent of all others.
    dropped = {
        key for key, title in categories.items() if title in parents and key not in used
        and len(categories) > 1
    }  # fmt: skip
    notes = [f"{name}: {categories[key]!r} has no box and is the parent of others: no class"
             for key in dropped]  # fmt: skip
    kept = sorted((key for key in categories if key not in dropped), key=_order)
    number_of = {key: number for number, key in enumerate(kept)}
    markup = Markup([categories[key] for key in kept], [], notes=notes)
    entries: dict[Any, Entry] = {}
    for number, image in enumerate(content["images"], 1):
        if not isinstance(image, dict) or "id" not in image or not image.get("file_name"):
            raise ImportFault(f"{name}: image {number} has no id or file_name: mend it")
        key = _key(image["id"])
        if key in entries:
            raise ImportFault(f"{name}: two images have the id {key}: export it again")
        entry = Entry(
            str(image["file_name"]),
            _size(image.get("width"), image.get("height")),
            where=f"image {number}",
        )
        entries[key] = entry
        markup.entries.append(entry)
    for number, annotation in enumerate(annotations, 1):
        where = f"annotation {number}"
        if not isinstance(annotation, dict):
            markup.orphans.append((where, "no object", BOX_REMEDY))
            continue
        if "id" in annotation:
            where += f" (id {annotation['id']})"
        entry_of = entries.get(_key(annotation.get("image_id")))
        if entry_of is None:
            markup.orphans.append(
                (where, f"no image has the id {annotation.get('image_id')}", BOX_REMEDY)
            )
            continue
        if annotation.get("iscrowd"):
            markup.ignore("crowds, no single box (COCO's iscrowd)")
            continue
        parsed = _coco_box(annotation, number_of, where)
        if isinstance(parsed, str):
            entry_of.faults.append((where, parsed, BOX_REMEDY))
            entry_of.lost += 1
        else:
            box, polygon = parsed
            entry_of.boxes.append(box)
            markup.polygons += polygon
    return markup


def _key(value: Any) -> Any:
    return value if isinstance(value, (int, str, float)) else str(value)


def _order(key: Any) -> tuple[bool, float, str]:
    return (isinstance(key, str), 0.0 if isinstance(key, str) else float(key), str(key))


def _coco_box(
    annotation: dict[str, Any], number_of: dict[Any, int], where: str
) -> tuple[PixelBox, bool] | str:
    kind = number_of.get(_key(annotation.get("category_id")))
    if kind is None:
        return f"no category has the id {annotation.get('category_id')}"
    if "score" in annotation:
        return "it has a score: these are predictions"
    polygon = "bbox" not in annotation or not annotation["bbox"]
    if not polygon:
        box = _finite(annotation["bbox"])
        if box is None or len(box) != 4:
            return f"bbox {str(annotation['bbox'])[:60]} is not x, y, width, height"
        x, y, w, h = box
        return (kind, x, y, x + w, y + h, where), False
    parts = annotation.get("segmentation")
    points = _finite([v for part in parts or () for v in part]) if _is_polygons(parts) else None
    if not points or len(points) < 6 or len(points) % 2:
        return "it has no bbox"
    return (
        kind,
        min(points[::2]),
        min(points[1::2]),
        max(points[::2]),
        max(points[1::2]),
        where,
    ), True


def _is_polygons(parts: Any) -> bool:
    return isinstance(parts, list) and all(isinstance(part, list) for part in parts)


# --- XML ----------------------------------------------------------------------------------------


@dataclass
class Document:
    """A parsed XML file, which knows its elements' lines."""

    root: ET.Element
    lines: dict[ET.Element, int]

    def where(self, element: ET.Element) -> str:
        """Return an element's place."""
        return f"line {self.lines[element]}"


def parse_xml(content: bytes, name: str) -> Document:
    """Parse XML that declares no entities; raises ``ImportFault`` with the line of a fault."""
    builder = ET.TreeBuilder()
    lines: dict[ET.Element, int] = {}
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        lines[builder.start(tag, attributes)] = parser.CurrentLineNumber

    def entity(*_: object) -> None:
        raise ImportFault(f"{name} declares entities: refused: export it again")

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(content, True)
        root = builder.close()
    except (expat.ExpatError, AssertionError) as error:
        line = getattr(error, "lineno", 1)
        raise ImportFault(f"{name} line {line}: no XML ({error}): export it again") from None
    return Document(root, lines)


def read_voc(document: Document, stem: str, numbers: dict[str, int]) -> tuple[Entry, Markup]:
    """Read one Pascal VOC file; new classes join ``numbers`` in the order they are met.

    Coordinates are taken as they are: the tools of today count from 0.
    """
    root = document.root
    markup = Markup([], [])
    size = root.find("size")
    entry = Entry(
        (root.findtext("filename") or "").strip() or stem,
        _size(size.findtext("width"), size.findtext("height")) if size is not None else None,
        where=document.where(root),
    )
    for item in root.findall("object"):
        where = document.where(item)
        title = (item.findtext("name") or "").strip()
        box = item.find("bndbox")
        corners = (
            _finite([box.findtext(tag) for tag in ("xmin", "ymin", "xmax", "ymax")])
            if box is not None
            else None
        )
        polygon = item.find("polygon")
        if corners is None and box is None and polygon is not None:
            points = {p.tag: p.text for p in polygon}
            across = _finite([v for tag, v in points.items() if tag.startswith("x")])
            down = _finite([v for tag, v in points.items() if tag.startswith("y")])
            if across and down:
                corners = [min(across), min(down), max(across), max(down)]
                markup.polygons += 1
        if corners is None or not title:
            what = "bndbox is not xmin, ymin, xmax, ymax" if title else "an object without name"
            entry.faults.append((where, what, BOX_REMEDY))
            entry.lost += 1
            continue
        kind = numbers.setdefault(title, len(numbers))
        entry.boxes.append((kind, *corners, where))  # type: ignore[arg-type]
    return entry, markup


def read_cvat(document: Document, name: str) -> Markup:
    """Read a "CVAT for images" file; classes come in the order of its labels."""
    root = document.root
    if root.find("track") is not None:
        raise ImportFault(
            f"{name} {document.where(root.find('track'))}: tracks of a video: export it as "  # type: ignore[arg-type]
            "'CVAT for images 1.1' with its images"
        )
    names: list[str] = []
    for label in root.iterfind("meta/*/labels/label"):
        title = (label.findtext("name") or "").strip()
        if title and title not in names:
            names.append(title)
    number_of = {title: number for number, title in enumerate(names)}
    markup = Markup(names, [])
    for image in root.findall("image"):
        entry = Entry(
            image.get("name", ""),
            _size(image.get("width"), image.get("height")),
            split=image.get("subset"),
            where=document.where(image),
        )
        markup.entries.append(entry)
        for shape in image:
            where = document.where(shape)
            outline = SHAPES.get(shape.tag)
            if outline is None:
                markup.ignore(f"CVAT's {shape.tag}, no box")
                continue
            kind = number_of.get(shape.get("label", ""))
            try:
                x, y = outline(shape)
            except (TypeError, ValueError):
                x = y = []
            if kind is None or not _finite([*x, *y]) or len(x) < 2:
                what = f"no label {shape.get('label')!r}" if kind is None else f"no {shape.tag}"
                entry.faults.append((where, what, BOX_REMEDY))
                entry.lost += 1
                continue
            entry.boxes.append((kind, min(x), min(y), max(x), max(y), where))
            markup.polygons += shape.tag != "box" or bool(float(shape.get("rotation", 0)))
    return markup


Outline = tuple[list[float], list[float]]  # x and y of the corners, in px


def _cvat_box(shape: ET.Element) -> Outline:
    left, top, right, bottom = (float(shape.attrib[k]) if k in shape.attrib else math.nan
                                for k in ("xtl", "ytl", "xbr", "ybr"))  # fmt: skip
    angle = math.radians(float(shape.get("rotation", 0)))
    if not angle:
        return [left, right], [top, bottom]
    x, y = (left + right) / 2, (top + bottom) / 2
    corners = [(a - x, b - y) for a in (left, right) for b in (top, bottom)]
    return (
        [x + a * math.cos(angle) - b * math.sin(angle) for a, b in corners],
        [y + a * math.sin(angle) + b * math.cos(angle) for a, b in corners],
    )


def _cvat_points(shape: ET.Element) -> Outline:
    points = [pair.split(",") for pair in shape.get("points", "").split(";")]
    return [float(x) for x, _ in points], [float(y) for _, y in points]


def _cvat_ellipse(shape: ET.Element) -> Outline:
    cx, cy, rx, ry = (float(shape.get(k, "nan")) for k in ("cx", "cy", "rx", "ry"))
    angle = math.radians(float(shape.get("rotation", 0)))
    across = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    down = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    return [cx - across, cx + across], [cy - down, cy + down]


def _cvat_mask(shape: ET.Element) -> Outline:
    left, top, w, h = (float(shape.get(k, "nan")) for k in ("left", "top", "width", "height"))
    return [left, left + w], [top, top + h]


SHAPES: dict[str, Callable[[ET.Element], Outline]] = {
    "box": _cvat_box,
    "polygon": _cvat_points,
    "ellipse": _cvat_ellipse,
    "mask": _cvat_mask,
}
