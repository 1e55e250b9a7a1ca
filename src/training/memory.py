"""One estimate of a training's memory, for the cells side by side and for the images in RAM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from src.machine import free_memory

TRAINING = 1.5e9  # bytes; a training of YOLOv8n at 416 px takes 1.1e9
SPARE = 0.8  # of what is free: other programs grow too


def fitting() -> int:
    """Return how many trainings fit side by side, their images on the disk; 1 at least."""
    return max(1, int(_free() / TRAINING))


def cached(recipe: Mapping[str, Any], images: int) -> float:
    """Return the bytes that a recipe's images take in RAM, 0 where they stay on the disk.

    Ultralytics keeps them as arrays of 8 bits and three colours, the longer edge ``imgsz`` px.
    """
    if recipe.get("cache") not in (True, "ram"):
        return 0.0
    return float(images) * int(recipe["imgsz"]) ** 2 * 3


def affordable(recipe: Mapping[str, Any], images: int, side_by_side: int = 1) -> bool:
    """Whether the images may be kept in RAM, with as many such trainings side by side."""
    return side_by_side * (TRAINING + cached(recipe, images)) <= _free()


def _free() -> float:
    return free_memory() * SPARE
