"""Data sets: imported or built here, validated and versioned."""

from __future__ import annotations

from src.datasets.sets import choose
from src.errors import UserError

SET = choose()  # the one that this process is about
FOLDER = SET.folder
SPLITS = ("train", "val", "test")
CLASSES = ("person",)  # of the lab's data set
IMAGE_SIZE = 320  # pixels, both edges, of the lab's photos


class DatasetError(UserError):
    """The data set, or what it is made from, is not usable; the message says what to do."""
