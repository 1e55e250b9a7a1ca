"""The one ruler: how a detector's boxes are compared with a data set's labels.

Two halves that know nothing of each other. ``detect`` runs a model over a split and returns its
boxes; ``match`` and ``Matches.scores`` compare boxes with labels. Whatever else can detect, an
exported model for one, is measured by the same ruler: it only has to return ``Detections``.

Everything that moves a score is fixed here, the same for trained and untrained weights, champion
and every cell of a grid. The image size alone belongs to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.checkpoints import load

if TYPE_CHECKING:
    from ultralytics.engine.validator import BaseValidator

Floats = NDArray[np.float64]
Metrics = dict[str, float]

# The scores that people compare, everywhere in this order.
SCORES = ("mAP50", "mAP50-95", "precision", "recall")
IOU_LEVELS = np.linspace(0.5, 0.95, 10)  # what a hit is, from loose to strict

# Ultralytics' own values for validation, fixed so that no recipe and no release moves them.
CONFIDENCE = 0.001  # boxes below are left out
NMS_IOU = 0.7  # two boxes of a class that overlap more are one
MAX_DETECTIONS = 300  # in one image; more where an image holds more labels
BATCH = 8  # images; the sums in a network depend on it
NMS_SECONDS = 3600.0  # for an image: Ultralytics' 0.05 drops boxes on a busy machine


class ScoringError(ValueError):
    """Boxes and labels that can't be compared."""


@dataclass(frozen=True)
class Labels:
    """What is in a split's images, as Ultralytics' trainer reads it."""

    classes: tuple[str, ...]  # the data set's, by their number
    images: tuple[str, ...]  # paths below the data set's folder
    sizes: NDArray[np.int64]  # (images, 2): width and height, px
    boxes: tuple[Floats, ...]  # for each image (boxes, 4): left, top, right, bottom, px
    ids: tuple[NDArray[np.int64], ...]  # for each image (boxes,): the classes' numbers

    def counts(self) -> NDArray[np.int64]:
        """Return the number of boxes, (images, classes)."""
        return np.stack([np.bincount(ids, minlength=len(self.classes)) for ids in self.ids])


@dataclass(frozen=True)
class Detections:
    """A model's boxes on the images of a split, in the order of ``Labels.images``."""

    known: tuple[str, ...]  # those of the data set's classes that the model has
    boxes: tuple[Floats, ...]  # for each image (boxes, 4): left, top, right, bottom, px
    confidences: tuple[Floats, ...]  # for each image (boxes,), 0 to 1
    ids: tuple[NDArray[np.int64], ...]  # for each image (boxes,): the data set's class numbers


@dataclass(frozen=True)
class Matches:
    """Which of a model's boxes hit a label, a row for each box; all that a comparison needs."""

    classes: tuple[str, ...]  # the data set's
    known: tuple[str, ...]  # those that the model has
    labels: NDArray[np.int64]  # (images, classes): how many there are to find
    image: NDArray[np.int64]  # (rows,): number of the image
    ids: NDArray[np.int64]  # (rows,): number of the class
    confidence: Floats  # (rows,), 0 to 1
    hits: NDArray[np.bool_]  # (rows, 10): at each of IOU_LEVELS; (rows, 1) once read from a file

    @property
    def missing(self) -> tuple[str, ...]:
        """The data set's classes that the model doesn't have."""
        return tuple(name for name in self.classes if name not in self.known)

    def only(self, names: Sequence[str]) -> Matches:
        """Return these matches with no other classes than ``names``."""
        kept = [number for number, name in enumerate(self.classes) if name in names]
        renumbered = np.full(len(self.classes), -1)
        renumbered[kept] = np.arange(len(kept))
        ids = renumbered[self.ids]
        rows = ids >= 0
        return replace(
            self,
            classes=tuple(self.classes[number] for number in kept),
            known=tuple(name for name in self.known if name in names),
            labels=self.labels[:, kept],
            image=self.image[rows],
            ids=ids[rows],
            confidence=self.confidence[rows],
            hits=self.hits[rows],
        )

    def scores(self) -> tuple[Metrics, Metrics]:
        """Return the four scores, and mAP50 by class, each 0 to 1, by Ultralytics' own code.

        Averages are over the classes that have labels; one that the model doesn't have counts 0.
        """
        from ultralytics.utils.metrics import ap_per_class

        truth = np.repeat(np.arange(len(self.classes)), self.labels.sum(axis=0))
        if not len(truth):
            return dict.fromkeys(SCORES, 0.0), {}
        found = ap_per_class(self.hits, self.confidence, self.ids, truth)
        precision, recall, average, present = found[2], found[3], found[5], found[6]
        values = (average[:, 0].mean(), average.mean(), precision.mean(), recall.mean())
        by_class = {self.classes[c]: float(a) for c, a in zip(present, average[:, 0], strict=True)}
        return dict(zip(SCORES, map(float, values), strict=True)), by_class

    def save(self, file: Path) -> None:
        """Write what a comparison needs, hits at IoU 0.5 alone, as a compressed NumPy file."""
        np.savez_compressed(
            file,
            classes=np.array(self.classes),
            known=np.array(self.known, dtype=str),
            labels=self.labels,
            image=self.image.astype(np.int32),
            ids=self.ids.astype(np.int16),
            confidence=self.confidence.astype(np.float32),
            hits=self.hits[:, :1],
        )

    @classmethod
    def load(cls, file: Path) -> Matches:
        """Read what ``save`` wrote; nothing in the file is executed."""
        with np.load(file, allow_pickle=False) as held:
            return cls(
                classes=tuple(map(str, held["classes"])),
                known=tuple(map(str, held["known"])),
                labels=held["labels"],
                image=held["image"].astype(np.int64),
                ids=held["ids"].astype(np.int64),
                confidence=held["confidence"].astype(np.float64),
                hits=held["hits"],
            )


@dataclass(frozen=True)
class Scored:
    """A model measured on a split at an image size."""

    metrics: Metrics  # the four SCORES
    by_class: Metrics  # mAP50 of each class that has labels
    matches: Matches
    imgsz: int  # px

    @property
    def known(self) -> tuple[str, ...]:
        """Those of the data set's classes that the model has."""
        return self.matches.known

    @property
    def missing(self) -> tuple[str, ...]:
        """The data set's classes that the model doesn't have."""
        return self.matches.missing


def score(model: str | Path, data: Path, imgsz: int, split: str, folder: Path) -> Scored:
    """Measure an Ultralytics model on a split of the data set folder ``data`` at ``imgsz`` px.

    The scores are those of Ultralytics' ``YOLO(model).val(...)`` where the classes are the same.
    It writes into ``folder``, and its label cache beside the labels.
    """
    labels = read_labels(data, split)
    return measure(detect(model, data, imgsz, split, folder, labels), labels, imgsz)


def measure(detections: Detections, labels: Labels, imgsz: int) -> Scored:
    """Score any detector's boxes."""
    matches = match(detections, labels)
    metrics, by_class = matches.scores()
    return Scored(metrics, by_class, matches, imgsz)


def common(theirs: Mapping[int, str], ours: Sequence[str]) -> dict[int, int]:
    """Match a model's classes with a data set's by name; return the model's numbers to ours.

    Exactly, else without regard to case where that leaves no choice.
    """
    pairs = {number: ours.index(name) for number, name in theirs.items() if name in ours}
    folded = [name.strip().casefold() for name in ours]
    names = [name.strip().casefold() for name in theirs.values()]
    for number, name in theirs.items():
        plain = name.strip().casefold()
        if number not in pairs and folded.count(plain) == 1 and names.count(plain) == 1:
            pairs[number] = folded.index(plain)
    return pairs


def read_labels(data: Path, split: str) -> Labels:
    """Return a split's labels as Ultralytics reads them: its images, its classes, its repairs."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    described = check_det_dataset(str(data / "data.yaml"))
    dataset = build_yolo_dataset(get_cfg(), described[split], BATCH, described, mode="val")
    sizes, boxes, ids = [], [], []
    for held in dataset.labels:
        height, width = held["shape"]
        x, y, w, h = np.asarray(held["bboxes"], dtype=np.float64).reshape(-1, 4).T
        sizes.append((width, height))
        boxes.append(
            np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
            * (width, height, width, height)
        )
        ids.append(np.asarray(held["cls"], dtype=np.int64).reshape(-1))
    names = described["names"]
    return Labels(
        classes=tuple(str(names[number]) for number in sorted(names)),
        images=tuple(_below(held["im_file"], data) for held in dataset.labels),
        sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        boxes=tuple(boxes),
        ids=tuple(ids),
    )


def detect(
    model: str | Path,
    data: Path,
    imgsz: int,
    split: str,
    folder: Path,
    labels: Labels,
    *,
    square: bool = False,
) -> Detections:
    """Run an Ultralytics model over a split, the longer edge of each image made ``imgsz`` px.

    Images get a border up to the next multiple of the stride, as in Ultralytics' validation, or
    fill up a ``square`` of ``imgsz`` px, as an exported model needs it.

    An architecture (``.yaml``) has random weights, always the same ones, and no class names: its
    classes are the data set's.
    """
    import torch

    untrained = str(model).endswith(".yaml")
    if untrained:
        torch.manual_seed(0)
    yolo = load(model)
    ours = labels.classes
    pairs = {n: n for n in range(len(ours))} if untrained else common(yolo.names, ours)
    found: dict[str, tuple[Floats, Floats, NDArray[np.int64]]] = {}
    if pairs:
        yolo.val(
            validator=partial(_recorder(), pairs, found),
            data=str(data / "data.yaml"),
            split=split,
            imgsz=imgsz,
            batch=BATCH,
            conf=CONFIDENCE,
            iou=NMS_IOU,
            max_det=MAX_DETECTIONS,
            rect=not square,
            nms=None,
            augment=False,
            single_cls=False,
            agnostic_nms=False,
            quantize=None,
            workers=0,
            plots=False,
            save_json=False,
            project=str(folder),
            name="score",
            exist_ok=True,
            verbose=False,
        )
    nothing = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64))
    by_image = {_below(file, data): boxes for file, boxes in found.items()}
    rows = [by_image.get(image, nothing) for image in labels.images]
    return Detections(
        known=tuple(name for number, name in enumerate(ours) if number in pairs.values()),
        boxes=tuple(row[0] for row in rows),
        confidences=tuple(row[1] for row in rows),
        ids=tuple(row[2] for row in rows),
    )


def match(detections: Detections, labels: Labels) -> Matches:
    """Say which boxes hit a label, image by image, as Ultralytics' validator does.

    Raises:
        ScoringError: When there are boxes for another number of images than labels.
    """
    if len(detections.boxes) != len(labels.images):
        raise ScoringError(
            f"boxes of {len(detections.boxes)} images, {len(labels.images)} labelled"
        )
    hits, image, ids, confidence = [], [], [], []
    for number, boxes in enumerate(detections.boxes):
        order = np.argsort(-detections.confidences[number], kind="stable")
        classes = detections.ids[number][order]
        overlap = iou(labels.boxes[number], boxes[order])
        overlap *= labels.ids[number][:, None] == classes
        hits.append(_hits(overlap))
        image.append(np.full(len(boxes), number))
        ids.append(classes)
        confidence.append(detections.confidences[number][order])
    return Matches(
        classes=labels.classes,
        known=detections.known,
        labels=labels.counts(),
        image=np.concatenate(image),
        ids=np.concatenate(ids),
        confidence=np.concatenate(confidence),
        hits=np.concatenate(hits),
    )


def by_chance(detections: Detections, labels: Labels, seed: int = 0) -> Detections:
    """Return each image's boxes put on another image: what they would hit by chance.

    The boxes keep their place relative to the image's edges. Images that have labels change places
    among themselves, as do the others, since to know that an image is empty is a skill too.

    Raises:
        ScoringError: When fewer than two images have labels.
    """
    labelled = np.array([len(ids) > 0 for ids in labels.ids])
    if labelled.sum() < 2:
        raise ScoringError("chance needs two images with labels")
    source = np.arange(len(labelled))
    rng = np.random.default_rng(seed)
    for group in (np.flatnonzero(labelled), np.flatnonzero(~labelled)):
        shuffled = rng.permutation(group)
        source[shuffled] = np.roll(shuffled, 1)
    ratio = np.tile(labels.sizes / labels.sizes[source], 2)
    return replace(
        detections,
        boxes=tuple(detections.boxes[s] * ratio[i] for i, s in enumerate(source)),
        confidences=tuple(detections.confidences[s] for s in source),
        ids=tuple(detections.ids[s] for s in source),
    )


def iou(first: Floats, second: Floats) -> Floats:
    """Return each pair's intersection over union, (first, second)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None] - shared + 1e-7))


def _hits(overlap: Floats) -> NDArray[np.bool_]:
    """Give each label to the box of highest confidence that overlaps it enough, at each level.

    ``BaseValidator.match_predictions`` of Ultralytics 8.4.190, which needs a validator to run.
    """
    levels = range(len(IOU_LEVELS))
    hits = np.zeros((overlap.shape[1], len(IOU_LEVELS)), dtype=bool)
    taken = np.zeros((overlap.shape[0], len(IOU_LEVELS)), dtype=bool)
    for row in np.flatnonzero((overlap >= IOU_LEVELS[0]).any(axis=0)):
        free = np.where(taken, 0, overlap[:, row, None])
        best = free.argmax(axis=0)
        hits[row] = free[best, levels] >= IOU_LEVELS
        taken[best, levels] |= hits[row]
    return hits


def _below(file: str, data: Path) -> str:
    path = Path(file)
    for folder in (data, data.resolve()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.as_posix()


def _recorder() -> Callable[..., BaseValidator]:
    """Return a validator that keeps the boxes and leaves the scores to ``match``."""
    import torch
    from ultralytics.models.yolo.detect import DetectionValidator
    from ultralytics.utils.nms import non_max_suppression

    class Recorder(DetectionValidator):  # type: ignore[misc]
        def __init__(self, pairs: dict[int, int], found: dict[str, Any], **arguments: Any) -> None:
            super().__init__(**arguments)
            self.pairs, self.found = pairs, found

        def postprocess(self, preds: torch.Tensor) -> list[dict[str, torch.Tensor]]:
            kept = non_max_suppression(
                preds, self.args.conf, self.args.iou, classes=list(self.pairs), multi_label=True,
                max_det=self.args.max_det, max_time_img=NMS_SECONDS, end2end=self.end2end,
            )  # fmt: skip
            return [{"bboxes": x[:, :4], "conf": x[:, 4], "cls": x[:, 5]} for x in kept]

        def update_metrics(
            self, preds: list[dict[str, torch.Tensor]], batch: dict[str, Any]
        ) -> None:
            for number, pred in enumerate(preds):
                self.seen += 1
                (rise, stretch), (left, top) = batch["ratio_pad"][number]
                boxes = pred["bboxes"].cpu().numpy().astype(np.float64)
                boxes = (boxes - (left, top, left, top)) / (stretch, rise, stretch, rise)
                self.found[batch["im_file"][number]] = (
                    boxes,
                    pred["conf"].cpu().numpy().astype(np.float64),
                    np.array([self.pairs[int(c)] for c in pred["cls"].tolist()], dtype=np.int64),
                )

        def get_stats(self) -> dict[str, Any]:
            return {}

        def finalize_metrics(self) -> None:
            pass

        def print_results(self) -> None:
            pass

    return Recorder
