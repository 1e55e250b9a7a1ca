"""Make a model of a checkpoint, and measure what the export has lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.champion.detector import LABELS_FILE, MODEL_FILE, Detector, Thresholds
from src.champion.model import ARGUMENTS_FILE, WEIGHTS_FILE, ModelError
from src.checkpoints import load
from src.training import scoring


def build(weights: Path, arguments: str, imgsz: int, classes: Sequence[str], folder: Path) -> None:
    """Put into ``folder`` what a model is made of; the export has a square input and no NMS in it.

    Args:
        weights: The checkpoint, ``best.pt`` in the model.
        arguments: Of the training, as YAML.
        imgsz: Of the square input, px.
        classes: That the model is limited to, by name; all of the checkpoint's where there are
            none, or it has none of them.
        folder: An empty folder.

    Raises:
        ModelError: When Ultralytics can't export it.
    """
    copy = folder / WEIGHTS_FILE
    shutil.copyfile(weights, copy)
    yolo = load(copy)
    pairs = scoring.common(yolo.names, classes)
    labels = {str(index): classes[number] for index, number in pairs.items()}
    labels = labels or {str(index): name for index, name in yolo.names.items()}
    (folder / ARGUMENTS_FILE).write_text(arguments, encoding="utf-8")
    (folder / LABELS_FILE).write_text(json.dumps(labels, indent=2) + "\n", encoding="utf-8")
    try:
        made = yolo.export(
            format="onnx", imgsz=imgsz, nms=None, simplify=True, device="cpu", verbose=False
        )
    except Exception as error:
        raise ModelError(f"the weights can't be exported to ONNX: {error}") from error
    Path(made).replace(folder / MODEL_FILE)


def fidelity(folder: Path, data: Path, split: str, work: Path) -> tuple[float, float]:
    """Return the mAP50 of ``best.pt`` and of the model itself, both on the same square input.

    The model is measured as it is used: ``model.onnx`` with our own letterbox and suppression. What
    has none of the data set's classes scores 0.
    """
    from ultralytics.utils.patches import imread  # reads every format that a data set may have

    detector = Detector.load(folder)
    labels = scoring.read_labels(data, split)
    theirs = scoring.detect(
        folder / WEIGHTS_FILE, data, detector.size, split, work, labels, square=True
    )
    if not theirs.known:
        return 0.0, 0.0
    thresholds = Thresholds(scoring.CONFIDENCE, scoring.NMS_IOU, scoring.MAX_DETECTIONS)
    pictures = (np.ascontiguousarray(imread(str(data / i))[:, :, ::-1]) for i in labels.images)
    ours = [detector.detect(pixels, thresholds, every_class=True) for pixels in pictures]
    number = {name: index for index, name in enumerate(labels.classes)}
    found = scoring.Detections(
        known=theirs.known,
        boxes=tuple(item.boxes.astype(np.float64) for item in ours),
        confidences=tuple(item.confidences.astype(np.float64) for item in ours),
        ids=tuple(np.array([number[n] for n in item.classes], dtype=np.int64) for item in ours),
    )
    before, after = (scoring.measure(boxes, labels, detector.size) for boxes in (theirs, found))
    return before.metrics["mAP50"], after.metrics["mAP50"]
