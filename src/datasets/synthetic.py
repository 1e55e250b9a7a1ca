"""Drawn people on textured backgrounds: a detection data set that needs no download.

Every picture is 320 x 320 px and every label is a box of class 0 (person) around the pixels of one
person that can still be seen. People differ in size, pose, clothes and light, hide behind each
other and behind clutter, and some pictures hold nobody. They are hard enough that more epochs or a
larger input show in the score, and easy enough for a YOLOv8n that starts from random weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

EDGE = 320  # px, width and height of every picture
SPLIT_COUNTS: Mapping[str, int] = {"train": 128, "val": 32, "test": 32}
MIN_VISIBLE = 0.5  # people of whom less than this share of their pixels can be seen are left out
PEOPLE_HEIGHTS = (80, 240)  # px of the whole tile, log-uniform
CLUTTER_HEIGHTS = (40, 240)  # likewise
MAX_PEOPLE = 5  # per picture
MAX_CLUTTER = 4  # per picture

_TILE = 256  # px, things are drawn this large and then scaled down, which smooths their edges
_SKINS = ((255, 219, 190), (234, 192, 154), (198, 145, 102), (141, 92, 62), (84, 54, 38))
_HAIRS = ((25, 20, 18), (74, 48, 30), (150, 110, 60), (180, 175, 170))

Colour = tuple[int, int, int]
Point = tuple[float, float]
Box = tuple[float, float, float, float]
Item = TypeVar("Item")

# Things that look a bit like a person: (shape, (left, top, right, bottom)), x in -0.5..0.5 and
# y in 0..1 of a tile, drawn in this order, each in a muted colour of its own.
_CLUTTER: Sequence[Sequence[tuple[str, Box]]] = (
    (("rectangle", (-0.03, 0.15, 0.03, 1)), ("ellipse", (-0.08, 0.02, 0.08, 0.18))),  # street lamp
    (("rectangle", (-0.06, 0.5, 0.06, 1)), ("ellipse", (-0.25, 0.02, 0.25, 0.6))),  # tree
    (("rectangle", (-0.16, 0.5, 0.16, 1)), ("rectangle", (-0.19, 0.44, 0.19, 0.52))),  # bin
    (("rectangle", (-0.03, 0.2, 0.03, 1)), ("rectangle", (-0.17, 0.05, 0.17, 0.4))),  # sign
    (("rectangle", (-0.09, 0.4, 0.09, 1)), ("ellipse", (-0.1, 0.27, 0.1, 0.5))),  # bollard
    (("rectangle", (-0.4, 0.6, 0.4, 1)),),  # crate
    (("rectangle", (-0.02, 0.1, 0.02, 1)), ("ellipse", (-0.14, 0.18, 0.14, 0.7))),  # coat stand
    (("rectangle", (-0.12, 0.3, 0.12, 1)), ("ellipse", (-0.07, 0.14, 0.07, 0.3))),  # statue
)


@dataclass(frozen=True)
class Thing:
    """A person or a piece of clutter: an RGBA sprite and the px of its upper left corner."""

    sprite: Image.Image
    left: int
    top: int
    is_person: bool

    @cached_property
    def mask(self) -> Image.Image:
        """The pixels that the sprite covers by half or more are 255, the others 0."""
        return self.sprite.getchannel("A").point(lambda alpha: 255 * (alpha >= 128))

    @property
    def area(self) -> int:
        """Number of pixels in the mask, also of those outside the picture."""
        return self.mask.histogram()[255]


def draw_synthetic(
    folder: Path, *, seed: int = 42, counts: Mapping[str, int] = SPLIT_COUNTS
) -> None:
    """Write `counts[split]` pictures per split to `folder`, in the layout that Ultralytics reads.

    Pictures go to `images/<split>/synthetic_<split>_<index>.jpg`, labels to
    `labels/<split>/<same stem>.txt` with one line `0 cx cy w h` (0..1) per person. The same seed
    gives the same bytes, and a picture doesn't depend on how many others are drawn.
    """
    for split, count in counts.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            stem = f"synthetic_{split}_{index:03d}"
            image, boxes = draw_scene(np.random.default_rng(list(f"{seed}/{stem}".encode())))
            image.save(images / f"{stem}.jpg", quality=90, subsampling=0)
            (labels / f"{stem}.txt").write_text("".join(map(_label, boxes)), encoding="utf-8")


def draw_scene(rng: Generator) -> tuple[Image.Image, list[Box]]:
    """Draw one picture; return it with the (left, top, right, bottom) px of every person in it."""
    horizon = rng.uniform(0.2, 0.6)
    image = _background(rng, horizon)
    crowd = [True] * rng.integers(MAX_PEOPLE + 1) + [False] * rng.integers(MAX_CLUTTER + 1)
    things = [_thing(rng, is_person, horizon) for is_person in crowd]
    things.sort(key=lambda thing: thing.top + thing.sprite.height)  # the far ones first
    boxes = _drop_hidden(things)
    for thing in things:
        image.paste(thing.sprite, (thing.left, thing.top), thing.sprite)
    return _photograph(rng, image), boxes


def _label(box: Box) -> str:
    left, top, right, bottom = (value / EDGE for value in box)
    centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
    return f"0 {centre_x:.6f} {centre_y:.6f} {right - left:.6f} {bottom - top:.6f}\n"


def _drop_hidden(things: list[Thing]) -> list[Box]:
    """Remove from `things`, far ones first, people who can hardly be seen; box those who stay.

    The most hidden person goes first, because that may bring others back into sight.
    """
    while True:
        owner = Image.new("L", (EDGE, EDGE))  # 0: nobody's pixel, n: a pixel of things[n - 1]
        for number, thing in enumerate(things, 1):
            owner.paste(number, (thing.left, thing.top), thing.mask)
        seen = owner.histogram()
        shares = {n: seen[n] / t.area for n, t in enumerate(things, 1) if t.is_person}
        hidden = min(shares, key=shares.__getitem__, default=0)
        if not hidden or shares[hidden] >= MIN_VISIBLE:
            return [_bounds(np.asarray(owner) == number) for number in shares]
        del things[hidden - 1]


def _bounds(mask: NDArray[np.bool_]) -> Box:
    """Return (left, top, right, bottom) of the true pixels, right and bottom exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _thing(rng: Generator, is_person: bool, horizon: float) -> Thing:
    """Draw a person or a piece of clutter that stands on the ground below the horizon (0..1)."""
    tile = _person(rng) if is_person else _clutter(rng)
    low, high = PEOPLE_HEIGHTS if is_person else CLUTTER_HEIGHTS
    height = round(low * (high / low) ** rng.uniform())
    scaled = tile.resize((height, height))
    sprite = scaled.crop(scaled.getbbox())
    left = round(rng.uniform(-0.3 * sprite.width, EDGE - 0.7 * sprite.width))
    feet = EDGE * (horizon + (1.1 - horizon) * (height / high) ** rng.uniform(0.3, 1.2))
    return Thing(sprite, left, round(feet) - sprite.height, is_person)


def _colour(rng: Generator, spread: float = 60) -> Colour:
    """Return a random grey whose red, green and blue wander off by `spread` (0..255)."""
    channels = rng.uniform(40, 215) + rng.normal(0, spread, 3)
    red, green, blue = np.clip(channels, 0, 255)
    return int(red), int(green), int(blue)


def _pick(rng: Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def _clutter(rng: Generator) -> Image.Image:
    tile = Image.new("RGBA", (_TILE, _TILE))
    draw = ImageDraw.Draw(tile)
    for shape, (left, top, right, bottom) in _pick(rng, _CLUTTER):
        fill = _colour(rng, 25)
        corners = [_px((left, top)), _px((right, bottom))]
        (draw.ellipse if shape == "ellipse" else draw.rectangle)(corners, fill=fill)
    return tile


def _person(rng: Generator) -> Image.Image:
    """Draw a person in a random pose, who fills about four fifths of a tile's height."""
    tile = Image.new("RGBA", (_TILE, _TILE))
    draw = ImageDraw.Draw(tile)
    skin, shirt, trousers, shoe = _pick(rng, _SKINS), _colour(rng), _colour(rng), _colour(rng, 20)
    sleeve = shirt if rng.uniform() < 0.6 else skin
    girth = rng.uniform(0.85, 1.25)
    hips, shoulders = (0.0, 0.56), (rng.uniform(-0.06, 0.06), 0.3)
    head = (shoulders[0] + rng.uniform(-0.02, 0.02), 0.18)

    def limb(joint: Point, length: float, parts: list[tuple[float, Colour]], tip: Colour) -> None:
        for angle, fill in parts:  # radians from straight down
            end = (joint[0] + length * np.sin(angle), joint[1] + length * np.cos(angle))
            _line(draw, joint, end, 0.065 * girth, fill)
            joint = end
        _disc(draw, joint, 0.032, tip)

    def arm(side: int) -> None:
        upper = side * (rng.uniform(0, 0.7) if rng.uniform() < 0.8 else rng.uniform(0.7, 2.8))
        joint = (shoulders[0] + side * 0.075 * girth, shoulders[1])
        limb(joint, 0.14, [(upper, shirt), (upper + rng.uniform(-0.7, 0.7), sleeve)], skin)

    def leg(side: int) -> None:
        thigh = side * rng.uniform(-0.1, 0.5)
        shin = thigh * rng.uniform(-0.3, 1)
        limb((side * 0.035, hips[1]), 0.19, [(thigh, trousers), (shin, trousers)], shoe)

    arm(-1)
    leg(-1)
    leg(1)
    _line(draw, shoulders, hips, 0.15 * girth, shirt)
    _line(draw, head, shoulders, 0.05, skin)
    _disc(draw, (head[0], head[1] - 0.012), 0.066, _pick(rng, _HAIRS))
    _disc(draw, (head[0], head[1] + 0.008), 0.058, skin)
    arm(1)
    return tile


def _px(point: Point) -> Point:
    """Turn x in -0.5..0.5 and y in 0..1 into px of a tile."""
    return (point[0] + 0.5) * _TILE, point[1] * _TILE


def _disc(draw: ImageDraw.ImageDraw, centre: Point, radius: float, fill: Colour) -> None:
    x, y = centre
    draw.ellipse([_px((x - radius, y - radius)), _px((x + radius, y + radius))], fill=fill)


def _line(draw: ImageDraw.ImageDraw, a: Point, b: Point, width: float, fill: Colour) -> None:
    """Draw a line with round ends."""
    draw.line([_px(a), _px(b)], fill=fill, width=round(width * _TILE))
    for end in (a, b):
        _disc(draw, end, width / 2, fill)


def _background(rng: Generator, horizon: float) -> Image.Image:
    """Draw wall or sky above the horizon, ground below it, buildings, and stains of all sizes."""
    image = Image.new("RGB", (EDGE, EDGE), _colour(rng, 20))
    draw = ImageDraw.Draw(image)
    line = horizon * EDGE
    for _ in range(rng.integers(8)):
        left, width, height = rng.uniform(-40, EDGE), rng.uniform(15, 110), rng.uniform(0.2, 1)
        draw.rectangle([left, line * (1 - height), left + width, line], fill=_colour(rng, 30))
    draw.rectangle([0, line, EDGE, EDGE], fill=_colour(rng, 20))
    stains = np.zeros((EDGE, EDGE), np.float32)
    for cells in (5, 20, 80):
        coarse = Image.fromarray(rng.normal(0, 8, (cells, cells)).astype(np.float32))
        stains += np.asarray(coarse.resize((EDGE, EDGE), Image.Resampling.BICUBIC))
    return _to_image(np.asarray(image) + stains[:, :, None])


def _photograph(rng: Generator, image: Image.Image) -> Image.Image:
    """Add what a camera adds: uneven light, blur and noise."""
    light = np.linspace(rng.uniform(0.6, 1.2), rng.uniform(0.6, 1.2), EDGE)[None, :, None]
    blurred = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2)))
    noise = rng.normal(0, rng.uniform(1, 10), (EDGE, EDGE, 3))
    return _to_image(np.asarray(blurred) * light + noise)


def _to_image(pixels: NDArray[np.floating]) -> Image.Image:
    """Turn (height, width, 3) values, nominally 0..255, into a picture."""
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
