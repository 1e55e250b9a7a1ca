"""What ``auto`` means in a recipe: epochs, image size and batch by the set and the device.

A training sees about as many images whatever the set's size: few images many times, many images a
few times. On a CPU that is some minutes at 320 px: YOLOv8n takes a second or so for eight images on
one core, as the lab's recipes were measured. How well these values learn is not measured yet.
"""

from __future__ import annotations

from typing import Any

from src.datasets import FOLDER, manifest
from src.inputs import Inputs
from src.training.devices import gpus

SEEN = {"cpu": 3_000, "gpu": 60_000}  # images in all epochs together
SCRATCH = 4  # times as many from random weights
EPOCHS = {"cpu": (3, 60), "gpu": (10, 150)}  # least and most
IMGSZ = {"cpu": 320, "gpu": 640}  # px
BATCH = {"cpu": 8, "gpu": 16}


def auto(images: int, *, gpu: bool, pretrained: bool) -> dict[str, Any]:
    """Return the values that stand for ``auto``.

    Args:
        images: In the training split.
        gpu: Whether there is a GPU.
        pretrained: Whether training starts from a checkpoint.
    """
    device = "gpu" if gpu else "cpu"
    least, most = EPOCHS[device]
    factor = 1 if pretrained else SCRATCH
    epochs = round(SEEN[device] * factor / max(images, 1))
    epochs = min(max(epochs, least), most * factor)
    return {
        "epochs": epochs,
        "imgsz": IMGSZ[device],
        "batch": min(BATCH[device], max(images, 1)),
        "patience": max(3, epochs // 3),
    }


def auto_here(inputs: Inputs) -> dict[str, Any]:
    """Return the values that stand for ``auto``, for the data set in use and this machine."""
    images = sum(1 for _ in manifest.images(FOLDER, "train"))
    return auto(images, gpu=gpus() > 0, pretrained=inputs.pretrained)
