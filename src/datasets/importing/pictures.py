"""One picture: whether the trainer takes it, made as it is displayed, and what it looks like."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from src.datasets.importing.tree import IMAGES

# Ultralytics 8.4: data/utils.py, check_image, by content.
FORMATS = IMAGES | {"jpeg2000"}
VIDEOS = frozenset("asf avi gif m4v mkv mov mp4 mpeg mpg ts wmv webm".split())
LEAST = 10  # px of either edge
LARGEST = 178_956_970  # pixels, beyond which Pillow, and so Ultralytics, refuses a picture
QUALITY = 95  # of a turned JPEG
ORIENTATION = 274  # EXIF
UPRIGHT = 1
END_OF_IMAGE = b"\xff\xd9"
BY_PILLOW = frozenset({"AVIF", "HEIF"})  # what Ultralytics does not give to OpenCV


class PictureFault(Exception):
    """The trainer can't use a picture: what is wrong and what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


@dataclass
class Picture:
    """What an import needs to know of a picture."""

    width: int  # px, as displayed
    height: int
    raw_size: tuple[int, int]  # px, as stored, before EXIF's orientation
    orientation: int  # EXIF's, 1 to 8
    digest: str  # SHA-256 of the file as it came
    look: int  # 64 bits: brighter or darker than the pixel to the left, on 9 by 8
    tiny: NDArray[np.uint8]  # (256,): 16 by 16 grey levels
    content: bytes | None = None  # in place of the file's, where it had to be changed
    suffix: str | None = None  # in place of the file's
    changes: list[str] = field(default_factory=list)


def examine(content: bytes) -> Picture:
    """Check a picture as Ultralytics does, decode it whole, and turn it as it is displayed.

    Raises:
        PictureFault: When Ultralytics would leave it out or can't decode it.
    """
    if not content:
        raise PictureFault("an empty file", "bring it again or delete it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's on large pictures and odd EXIF
        try:
            with Image.open(io.BytesIO(content)) as image:
                return _examine(image, content)
        except PictureFault:
            raise
        except Image.DecompressionBombError:
            raise PictureFault(
                f"more than {LARGEST:,} pixels, which Ultralytics refuses", "make it smaller"
            ) from None
        except (UnidentifiedImageError, ModuleNotFoundError):
            raise PictureFault(_unreadable(content), "save it as JPEG or PNG") from None
        except Exception as error:  # noqa: BLE001 - Pillow's plugins raise of all kinds
            reason = str(error) or type(error).__name__
            raise PictureFault(
                f"damaged ({reason[:80]})", "bring it again, or save it as JPEG or PNG"
            ) from None


def _examine(image: Image.Image, content: bytes) -> Picture:
    kind = image.format or ""
    if kind.lower() not in FORMATS:
        raise PictureFault(f"{kind}, which Ultralytics does not read", "save it as JPEG or PNG")
    raw_size = image.size
    if min(raw_size) < LEAST:
        raise PictureFault(
            f"{raw_size[0]} × {raw_size[1]} pixels, at least {LEAST} × {LEAST} are needed",
            "leave it out",
        )
    if kind != "JPEG":
        # What it proves of a PNG (its checksums) load() doesn't; it leaves the file unreadable.
        with Image.open(io.BytesIO(content)) as other:
            other.verify()
    orientation = image.getexif().get(ORIENTATION, UPRIGHT)
    if orientation not in range(UPRIGHT, 9):
        orientation = UPRIGHT
    changes: list[str] = []
    replaced: bytes | None = None
    suffix: str | None = None
    if kind not in ("MPO", "JPEG") and getattr(image, "n_frames", 1) > 1:
        changes.append("pictures with several frames, of which the trainer reads the first")
    if orientation != UPRIGHT:
        upright = ImageOps.exif_transpose(image)
        replaced, suffix = _save(upright, kind)
        changes.append("pictures turned as EXIF says")
        shown: Image.Image = upright
        # Pillow turns a TIFF by itself, and its size with it.
        raw_size = upright.size if orientation < 5 else upright.size[::-1]
    else:
        if kind in ("JPEG", "MPO"):
            # Reads every byte all the same, so it finds what is cut off, in half the time.
            image.draft(None, (max(raw_size[0] // 8, 32), max(raw_size[1] // 8, 32)))
        image.load()
        shown = image
        if kind == "JPEG" and content[-2:] != END_OF_IMAGE:
            # Ultralytics would rewrite such a file, in the middle of a version.
            replaced = _ended(content)
            changes.append("JPEG files given their proper end")
        elif kind not in ("JPEG", "MPO", *BY_PILLOW):
            _require_opencv(content, kind)
    width, height = raw_size if orientation < 5 else raw_size[::-1]
    look, tiny = _look(shown)
    return Picture(
        width=width,
        height=height,
        raw_size=raw_size,
        orientation=orientation,
        digest=hashlib.sha256(content).hexdigest(),
        look=look,
        tiny=tiny,
        content=replaced,
        suffix=suffix,
        changes=changes,
    )


def _save(image: Image.Image, kind: str) -> tuple[bytes, str]:
    """Return a turned picture's file and suffix; JPEG stays JPEG, all else becomes PNG."""
    file = io.BytesIO()
    if kind in ("JPEG", "MPO"):
        image.save(file, "JPEG", quality=QUALITY, subsampling=0)
        return file.getvalue(), ".jpg"
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = image.convert("RGB")
    image.save(file, "PNG")
    return file.getvalue(), ".png"


def _ended(content: bytes) -> bytes:
    """Return a JPEG that decodes without what follows its end, or with the end it lacks."""
    end = content.rfind(END_OF_IMAGE)
    if end > 0:
        cut = content[: end + 2]
        try:
            with Image.open(io.BytesIO(cut)) as image:
                image.load()
        except OSError:
            pass  # these two bytes were not the end
        else:
            return cut
    return content + END_OF_IMAGE


def _require_opencv(content: bytes, kind: str) -> None:
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise PictureFault(
            f"{kind} of a kind that OpenCV, and so Ultralytics, can't decode",
            "save it as JPEG or PNG",
        )


def _unreadable(content: bytes) -> str:
    if content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"mif1", b"hevc"):
        return "HEIC, which is not installed here"
    return "no picture, or one of an unknown format"


def _look(image: Image.Image) -> tuple[int, NDArray[np.uint8]]:
    """Return what tells near duplicates: a difference hash and 16 × 16 grey levels."""
    if image.mode.startswith("I"):  # 16 bits, which convert() would cut off at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    grey = image.convert("L")
    tiny = np.asarray(grey.resize((16, 16), Image.Resampling.BOX), dtype=np.uint8).ravel()
    edges = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (edges[:, 1:] > edges[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big"), tiny


def turn(orientation: int) -> Callable[[float, float, float, float], tuple[float, ...]]:
    """Return how a box moves when its picture is turned as EXIF says.

    Takes and gives left, top, right and bottom as shares of the width and height.
    """

    def point(x: float, y: float) -> tuple[float, float]:
        return {
            2: (1 - x, y), 3: (1 - x, 1 - y), 4: (x, 1 - y), 5: (y, x),
            6: (1 - y, x), 7: (1 - y, 1 - x), 8: (y, 1 - x),
        }.get(orientation, (x, y))  # fmt: skip

    def box(left: float, top: float, right: float, bottom: float) -> tuple[float, ...]:
        (x1, y1), (x2, y2) = point(left, top), point(right, bottom)
        return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)

    return box
