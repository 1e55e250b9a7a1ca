"""YOLO's label files, read as Ultralytics reads them, and every fault named by its line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

SLACK = 1e-6  # of the image: what six decimals lose
SHARE_LIMIT = 2.0  # what is larger is in pixels; `fit` judges the rest by the image's size
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf|infinity)", re.I)

# class, then centre, width and height (or left, top, right, bottom, where said so): shares of the
# image's width and height
Box = tuple[int, float, float, float, float]


@dataclass
class Labels:
    """What a label file holds."""

    boxes: list[Box] = field(default_factory=list)  # class, centre x, centre y, width, height
    lines: list[int] = field(default_factory=list)  # where each box stands, from 1
    polygons: int = 0  # of the boxes, were polygons
    keypoints: int = 0  # of the boxes, had keypoints
    faults: list[tuple[int, str, str]] = field(default_factory=list)  # line, what, remedy
    found: int = 0  # lines that are not blank


def read_labels(content: bytes, classes: int, keypoints: int = 0) -> Labels:
    """Parse a label file.

    Takes what Ultralytics 8.4's ``verify_image_label`` takes for a detector: UTF-8 with or without
    byte-order mark, any white space, ``class x y width height`` in shares of the image's size, or
    polygons (``class x1 y1 x2 y2 x3 y3 …``), of which the enclosing boxes are made.

    Args:
        content: The file's bytes.
        classes: How many classes there are.
        keypoints: The numbers that a pose label has after its box (``kpt_shape``'s product).

    Returns:
        The boxes, and the faults by line. A file with a fault is one that Ultralytics leaves out
        together with its image, or one with boxes that can't be meant.
    """
    labels = Labels()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        labels.found = sum(1 for line in content.splitlines() if line.strip())
        labels.faults.append((1, "not UTF-8 text", "save it as UTF-8"))
        return labels
    rows = [(n, line.split()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    labels.found = len(rows)
    if keypoints:
        labels.keypoints = sum(len(words) == 5 + keypoints for _, words in rows)
        rows = [(n, words[:5] if len(words) == 5 + keypoints else words) for n, words in rows]
    polygons = any(len(words) > 6 for _, words in rows)
    for number, words in rows:
        parsed = _row(words, classes, polygons=polygons)
        if isinstance(parsed, str):
            what, _, remedy = parsed.partition("|")
            labels.faults.append((number, what, remedy))
        else:
            labels.boxes.append(parsed)
            labels.lines.append(number)
            labels.polygons += polygons
    return labels


def _row(words: Sequence[str], classes: int, *, polygons: bool) -> Box | str:
    """Return the row's box, or what is wrong and the remedy with a bar between."""
    odd = next((word for word in words if not _NUMBER.fullmatch(word)), None)
    if odd is not None:
        return f"not a box: {odd[:40]!r} is not a number|write class x y width height"
    columns = len(words)
    if columns == 6:
        return (
            "not a box: six columns, the last perhaps a confidence|these are predictions: keep the "
            "first five columns of those that are right"
        )
    if columns < 5:
        return f"not a box: {columns} columns, five are needed|write class x y width height"
    if polygons and columns == 5:
        return "a box in a file of polygons, which Ultralytics refuses|export all as boxes"
    if columns > 5 and columns % 2 == 0:
        return f"not a box: {columns} columns, a polygon has pairs of x and y|export it again"
    values = [float(word) for word in words]
    kind, *numbers = values
    if not (math.isfinite(kind) and kind == int(kind) and 0 <= kind < classes):
        return (
            f"class {kind:g} is out of range 0 to {classes - 1}|mend the number, or add the class "
            "to names"
        )
    if not all(map(math.isfinite, numbers)):
        return "a box with a number that is not finite, outside the image|mend or delete it"
    if columns > 5:
        x, y = numbers[0::2], numbers[1::2]
        left, right, top, bottom = min(x), max(x), min(y), max(y)
        numbers = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    over = next((value for value in numbers if abs(value) > SHARE_LIMIT), None)
    if over is not None:
        return f"{over:g} is not a fraction of the image|divide pixels by its width and height"
    return (int(kind), *numbers)  # type: ignore[return-value]


def fit(box: Box, width: int, height: int) -> tuple[Box | None, bool]:
    """Clip a box that leaves the image by up to a pixel.

    Args:
        box: Class, centre x, centre y, width and height as shares.
        width: The image's, in pixels.
        height: The image's, in pixels.

    Returns:
        The box, None where it is empty or leaves the image by more, and whether it was clipped.
    """
    kind, x, y, w, h = box
    left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    reach_x, reach_y = 1 / width, 1 / height
    if not (w > 0 and h > 0) or (
        min(left, 1 - right) < -reach_x - SLACK or min(top, 1 - bottom) < -reach_y - SLACK
    ):
        return None, False
    if min(left, top, 1 - right, 1 - bottom) >= -SLACK:
        return box, False
    left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0)
    if right <= left or bottom <= top:
        return None, False
    return (kind, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top), True


def outside(box: Box, width: int, height: int) -> tuple[str, str]:
    """Say why ``fit`` took a box for none, and what to do."""
    _, x, y, w, h = box
    if not (w > 0 and h > 0):
        return "an empty box, without width or height", "delete it or draw it again"
    over = max(
        (w / 2 - x) * width, (x + w / 2 - 1) * width, (h / 2 - y) * height,
        (y + h / 2 - 1) * height,
    )  # fmt: skip
    return f"a box that leaves the image by {over:.1f} pixels", "draw it inside the image"


def write_labels(boxes: Sequence[Box]) -> str:
    """Return a label file's text, eight digits to each number: far below a pixel."""
    return "".join(f"{kind} {x:.8g} {y:.8g} {w:.8g} {h:.8g}\n" for kind, x, y, w, h in boxes)
