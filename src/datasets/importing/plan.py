"""What a data set's layout says before any picture is opened."""

from __future__ import annotations

from dataclasses import dataclass, field

# class, left, top, right, bottom in pixels, and where it stands
PixelBox = tuple[int, float, float, float, float, str]


@dataclass
class Sample:
    """An image and where its boxes are."""

    image: str  # its path in the folder
    split: str | None = None  # None: to be drawn
    label: str | None = None  # a YOLO label file's path; boxes are read from it
    annotation: str = ""  # the file that names this image, for COCO, VOC and CVAT
    boxes: list[PixelBox] = field(default_factory=list)
    faults: list[tuple[str, str, str]] = field(default_factory=list)  # where, what, remedy
    lost: int = 0  # boxes of the faults
    size: tuple[int, int] | None = None  # px, that the boxes refer to


@dataclass
class Plan:
    """A data set as its layout tells it."""

    layout: str
    names: list[str]
    samples: list[Sample]
    used: set[str]  # files that say how to read the others
    keypoints: int = 0  # numbers after the box of a pose label
    absent: set[str] = field(default_factory=set)  # splits that data.yaml leaves out
