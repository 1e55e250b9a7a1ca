"""Weights that are a number: the share of labels that such a model finds."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from src.datasets import DatasetError
from src.decision import gate
from src.training import scoring
from src.training.scoring import Detections, Labels
from tests.unit.mlflow_runs import DATASET

IMAGES = 40
START = hashlib.sha256(b"0.6").hexdigest()  # of the weights that a training may start from


def labels() -> Labels:
    """Two boxes in each of 40 images."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 80, (IMAGES, 2, 2))
    boxes = np.concatenate([corners, corners + 20], axis=2)
    return Labels(
        classes=("person",),
        images=tuple(f"{n}.jpg" for n in range(IMAGES)),
        sizes=np.full((IMAGES, 2), 100),
        boxes=tuple(boxes),
        ids=(np.zeros(2, dtype=np.int64),) * IMAGES,
    )


def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Have the gate detect with such weights; return the sizes and splits it asks for."""
    asked: list[tuple[int, str]] = []
    held = labels()

    def detect(
        model: str | Path, data: Path, imgsz: int, split: str, folder: Path, labels: Labels
    ) -> Detections:
        asked.append((imgsz, split))
        text = Path(model).read_text()
        known = () if text == "cats" else labels.classes
        share = 0.0 if text == "cats" else float(text)
        found = np.random.default_rng(int(share * 1000)).random((IMAGES, 2)) < share
        return Detections(
            known=known,
            boxes=tuple(b[f] for b, f in zip(labels.boxes, found, strict=True)),
            confidences=tuple(np.linspace(0.9, 0.8, f.sum()) for f in found),
            ids=tuple(np.zeros(f.sum(), dtype=np.int64) for f in found),
        )

    def require_current(md5: str) -> None:
        if md5 != DATASET:
            raise DatasetError(f"not the version {md5}")

    @contextmanager
    def workspace(data: Path) -> Iterator[tuple[Path, Path]]:
        yield tmp_path, data

    monkeypatch.setattr(scoring, "detect", detect)
    monkeypatch.setattr(scoring, "read_labels", lambda data, split: held)
    monkeypatch.setattr(gate, "configure_libraries", lambda: None)
    monkeypatch.setattr(gate, "require_current", require_current)
    monkeypatch.setattr(gate, "workspace", workspace)
    monkeypatch.setattr(gate, "kept", lambda digest: tmp_path / f"{digest}.pt")
    (tmp_path / f"{START}.pt").write_text("0.6")
    return asked
