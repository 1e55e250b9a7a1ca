"""Detect objects in a picture with an exported model: no PyTorch, no Ultralytics, no OpenCV.

This file travels inside the registered model, so it imports nothing of this project. It reads a
picture as OpenCV does, fits it into the model's square as Ultralytics' ``LetterBox`` does, and
suppresses overlapping boxes as Ultralytics' ``non_max_suppression`` does, so that ``model.onnx``
gives the boxes of the ``.pt`` that it was exported from.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

CONF, IOU, MAX_DET = 0.25, 0.7, 300  # Ultralytics' own defaults for prediction
MOST_DETECTIONS = 1000
MAX_PIXELS = 50_000_000  # of one picture: 200 MB at the most while it is decoded
FORMATS = {  # how a file of each begins
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "BMP": rb"BM",
    "TIFF": rb"II\*\x00|MM\x00\*",
}
GREY = 114  # of the bars beside a picture that is not square
CLASS_OFFSET = 7680  # px between classes, which keeps their boxes from suppressing each other

MODEL_FILE, LABELS_FILE = "model.onnx", "labels.json"


class PictureError(ValueError):
    """A picture that can't be used; the message says why."""


class TooManyPixels(PictureError):
    """A picture whose pixels would take too much memory."""


class UnknownFormat(PictureError):
    """A file that is not a picture, or of a format not read here."""


class ParameterError(ValueError):
    """A confidence, IoU or number of boxes outside its range."""


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, by falling confidence."""

    boxes: NDArray[np.float32]  # (n, 4): x1, y1, x2, y2 in px of the picture as displayed
    confidences: NDArray[np.float32]  # (n,), each 0 to 1
    classes: list[str]  # n names
    height: int  # px
    width: int  # px

    def objects(self) -> list[dict[str, Any]]:
        """Return a record for JSON of each: its class, confidence, and corners in px."""
        rows = zip(self.classes, self.confidences, self.boxes, strict=True)
        return [
            {
                "class": name,
                "confidence": round(float(confidence), 4),
                "box_xyxy": [round(float(x), 1) for x in box],
            }
            for name, confidence, box in rows
        ]


@dataclass(frozen=True)
class Thresholds:
    """Which boxes count: the parameters of a detection.

    Raises:
        ParameterError: When one is outside its range.
    """

    conf: float = CONF  # a box's least confidence, 0 to 1
    iou: float = IOU  # overlap from which the less confident of two boxes is dropped, 0 to 1
    max_det: int = MAX_DET  # boxes per picture at the most

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("conf", "iou"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ParameterError(f"{name} must be a number from 0 to 1")
        most = self.max_det
        if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST_DETECTIONS:
            raise ParameterError(f"max_det must be a whole number from 1 to {MOST_DETECTIONS}")


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return a picture's file as (height, width, 3) RGB, as ``cv2.imdecode`` reads it.

    Grey becomes colour, transparency is dropped, 16 bits become 8, EXIF's orientation is applied,
    of several frames the first counts.

    Raises:
        UnknownFormat: When it is not a picture of ``FORMATS``.
        TooManyPixels: When it has more than ``max_pixels``.
        PictureError: When it is truncated, damaged, or in a colour space not read here.
    """
    try:
        with Image.open(io.BytesIO(data), formats=[_format(data)]) as image:
            _check_size(image, max_pixels)
            image.load()
            return np.ascontiguousarray(_upright(_rgb(image), _orientation(image)))
    except Image.DecompressionBombError:
        raise TooManyPixels(f"more than {max_pixels:,} pixels") from None
    except PictureError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise a dozen kinds on damaged files
        raise PictureError(f"truncated or damaged picture ({type(error).__name__})") from None


def _format(data: bytes) -> str:
    for name, beginning in FORMATS.items():
        if re.match(beginning, data, re.DOTALL):
            return name
    raise UnknownFormat(f"not a picture in a known format ({', '.join(FORMATS)})")


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise TooManyPixels(f"{image.width} x {image.height} is more than {max_pixels:,} pixels")


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips at 255
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise PictureError(f"a picture of Pillow's mode {image.mode} is not read here")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8. Not ``getexif``: it falls back on XMP, OpenCV doesn't."""
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    return int(exif.get(0x0112, 1))


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _taps(size: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int32]]:
    """Return for each of ``new`` samples its two neighbours of ``size``, and the second's weight.

    The weight is in 2048ths, as in OpenCV's ``resize`` of 8-bit pixels.
    """
    place = ((np.arange(new) + 0.5) * (size / new) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.intp)
    weight = place - first
    weight[(first < 0) | (first >= size - 1)] = 0
    first = first.clip(0, size - 1)
    return first, (first + 1).clip(0, size - 1), np.rint(weight * 2048).astype(np.int32)


def resize(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize (h, w, 3) as ``cv2.resize`` does with INTER_LINEAR: two taps, no antialiasing."""
    old_height, old_width = pixels.shape[:2]
    if (old_height, old_width) == (2 * height, 2 * width):  # OpenCV takes the mean of four here
        four = pixels.reshape(height, 2, width, 2, 3).astype(np.uint16)
        mean = (four.sum(axis=(1, 3), dtype=np.uint16) + 2) >> 2
        return cast(NDArray[np.uint8], mean.astype(np.uint8))
    left, right, across = _taps(old_width, width)
    above, below, down = _taps(old_height, height)

    def row(index: NDArray[np.intp]) -> NDArray[np.int32]:
        lines = pixels.take(index, axis=0)
        first = lines.take(left, axis=1).astype(np.int32)
        second = lines.take(right, axis=1).astype(np.int32)
        second -= first
        second *= across[None, :, None]
        first <<= 11
        first += second
        first >>= 4
        return first

    upper, lower = row(above), row(below)
    upper *= (2048 - down)[:, None, None]
    upper >>= 16
    lower *= down[:, None, None]
    lower >>= 16
    upper += lower
    upper += 2
    upper >>= 2
    return cast(NDArray[np.uint8], upper.astype(np.uint8))


@dataclass(frozen=True)
class Fit:
    """How a picture of ``height`` x ``width`` px lies in a square of ``size`` px."""

    height: int
    width: int
    size: int

    @property
    def inner(self) -> tuple[int, int]:
        """The picture's width and height in the square."""
        gain = min(self.size / self.height, self.size / self.width)
        return max(round(self.width * gain), 1), max(round(self.height * gain), 1)

    @property
    def corner(self) -> tuple[int, int]:
        """Where its upper left corner lies: x, y."""
        width, height = self.inner
        return round((self.size - width) / 2 - 0.1), round((self.size - height) / 2 - 0.1)

    def back(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn (n, 4) corners in the square into corners in the picture, clipped to it."""
        gains = np.array([self.inner[0] / self.width, self.inner[1] / self.height] * 2, np.float32)
        boxes = (boxes - np.array(self.corner * 2, np.float32)) / gains
        limits = np.array([self.width, self.height] * 2, np.float32)
        return cast(NDArray[np.float32], boxes.clip(0, limits))


def letterbox(pixels: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Fit (h, w, 3) into a grey square; return it as (1, 3, size, size), each 0 to 1."""
    fit = Fit(pixels.shape[0], pixels.shape[1], size)
    width, height = fit.inner
    left, top = fit.corner
    if pixels.shape[:2] != (height, width):
        pixels = resize(pixels, width, height)
    square = np.full((1, 3, size, size), GREY / 255, np.float32)
    inner = square[0, :, top : top + height, left : left + width]
    np.divide(pixels.transpose(2, 0, 1), np.float32(255), out=inner)
    return square


def suppress(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], iou: float, most: int
) -> NDArray[np.intp]:
    """Return the indices of at most ``most`` boxes, by falling score, that overlap no better one.

    ``boxes`` is (n, 4) corners, ``scores`` (n,). As ``torchvision.ops.nms``: dropped is what
    overlaps by more than ``iou``.
    """
    order = np.argsort(-scores, kind="stable")
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1) * (y2 - y1)
    kept: list[int] = []
    while order.size and len(kept) < most:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        width = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest])
        height = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest])
        shared = width.clip(0) * height.clip(0)
        order = rest[shared <= iou * (areas[best] + areas[rest] - shared)]
    return np.array(kept, np.intp)


class Detector:
    """A model exported to ONNX without NMS, with its class names; safe to use from many threads.

    Its input is (1, 3, size, size), its output (1, 4 + classes, anchors): x, y, width, height
    and a score for each class.
    """

    def __init__(self, model: Path, names: dict[int, str], threads: int = 0) -> None:
        """Load ``model``.

        Args:
            model: The ONNX file.
            names: The classes that count and their names; the model may know others.
            threads: For one picture; 0 for as many as there are cores.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        (given,) = self._session.get_inputs()
        self._input = given.name
        self.size = int(given.shape[2])  # px
        self.names = names

    @classmethod
    def load(cls, folder: Path, threads: int = 0) -> Detector:
        """Load ``model.onnx`` and ``labels.json`` of a folder."""
        labels = json.loads((folder / LABELS_FILE).read_text(encoding="utf-8"))
        names = {int(index): str(name) for index, name in labels.items()}
        return cls(folder / MODEL_FILE, names, threads)

    def detect(
        self,
        pixels: NDArray[np.uint8],
        thresholds: Thresholds | None = None,
        *,
        every_class: bool = False,
    ) -> Detections:
        """Return what is in a picture, given as (height, width, 3) RGB.

        A box counts for its best class; with ``every_class`` for each that is likely enough, as
        Ultralytics does when it scores a model.
        """
        wanted = thresholds or Thresholds()
        height, width = pixels.shape[:2]
        (output,) = self._session.run(None, {self._input: letterbox(pixels, self.size)})
        boxes, scores, classes = self._candidates(cast(Any, output)[0], wanted.conf, every_class)
        apart = boxes + classes[:, None].astype(np.float32) * CLASS_OFFSET
        kept = suppress(apart, scores, wanted.iou, wanted.max_det)
        return Detections(
            Fit(height, width, self.size).back(boxes[kept]),
            scores[kept],
            [self.names[int(index)] for index in classes[kept]],
            height,
            width,
        )

    def _candidates(
        self, output: NDArray[np.float32], conf: float, every_class: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]:
        """Return corners, scores and classes of the boxes that are likely enough and count."""
        places, scores = output[:4], output[4:]
        if every_class:
            classes, anchors = np.nonzero(scores > conf)
        else:
            anchors = np.flatnonzero(scores.max(axis=0) > conf)
            classes = scores[:, anchors].argmax(axis=0)
        counted = np.isin(classes, list(self.names))
        classes, anchors = classes[counted], anchors[counted]
        middle, half = places[:2, anchors].T, places[2:, anchors].T / 2
        corners = np.concatenate([middle - half, middle + half], axis=1)
        return corners, scores[classes, anchors], classes


def detections_table(found: Sequence[Detections]) -> dict[str, list[Any]]:
    """Return detections as columns: ``boxes``, ``classes``, ``confidences``, one row a picture."""
    return {
        "boxes": [item.boxes.astype(float).tolist() for item in found],
        "classes": [item.classes for item in found],
        "confidences": [item.confidences.astype(float).tolist() for item in found],
    }
