"""What ``auto`` means in a recipe: epochs, image size and batch by the set and the device.

A training sees about as many images whatever the set's size: few images many times, many images a
few times. On a CPU that is some minutes at 320 px: YOLOv8n takes a second or so for eight images on
one core, as the lab's recipes were measured.

Measured with YOLOv8n at 320 px on two sets made of COCO128, at the recipe's rate of 0.001. Three
classes under names that COCO hasn't got (77 images): mAP50 0.37 in epoch 6, 0.35 in epoch 23, 0.33
in the last of 30. Eight vehicles under COCO's own names (29 images, 15 to train): 0.74 after the
first epoch, which warms up, 0.15 after six (at a rate of 0.0003, 0.62 after eight), and no better
in the twenty that patience gave. The best epoch's weights are kept, so that 30, 60 or 120 epochs
came to the same; a grid over smaller rates is worth its time where COCO knows the classes.
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
