"""The tiny person-detection data set: built, validated and versioned."""

from __future__ import annotations

from src.errors import UserError
from src.settings import ROOT

FOLDER = ROOT / "data" / "tiny_person"
SPLITS = ("train", "val", "test")
CLASSES = ("person",)
IMAGE_SIZE = 320  # pixels, both edges


class DatasetError(UserError):
    """The data set, or what it is made from, is not usable; the message says what to do."""
