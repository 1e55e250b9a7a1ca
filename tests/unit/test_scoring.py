"""The ruler: classes by name, hits as Ultralytics counts them, boxes by chance."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from src.datasets import manifest
from src.datasets.synthetic import draw_synthetic
from src.training import scoring
from src.training.scoring import Detections, Labels, Matches, ScoringError
from src.training.trainer import configure_libraries

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn pictures for each split."""
    folder = tmp_path_factory.mktemp("data set")
    draw_synthetic(folder, counts=dict.fromkeys(("train", "val", "test"), 6))
    made = manifest.Manifest(kind="synthetic", seed=42, source_sha256="0" * 64)
    manifest.write(folder, made)
    configure_libraries()
    return folder


def renamed(data: Path, folder: Path, names: list[str]) -> Path:
    """A copy of the data set with other class names."""
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns("*.cache"))
    described = yaml.safe_load((folder / "data.yaml").read_text())
    described["names"] = dict(enumerate(names))
    (folder / "data.yaml").write_text(yaml.safe_dump(described))
    return folder


def guesses(labels: Labels, ids: int = 0) -> Detections:
    """Every label found exactly."""
    return Detections(
        known=labels.classes,
        boxes=labels.boxes,
        confidences=tuple(np.linspace(0.9, 0.5, len(boxes)) for boxes in labels.boxes),
        ids=labels.ids,
    )


@pytest.mark.parametrize(
    ("theirs", "ours", "pairs"),
    [
        ({0: "person"}, ["person"], {0: 0}),
        ({0: "cat", 1: "person"}, ["person"], {1: 0}),
        ({0: "Person "}, ["person"], {0: 0}),
        ({0: "Person", 1: "person"}, ["person"], {1: 0}),
        ({0: "cat", 1: "dog", 2: "bird"}, ["bird", "horse", "cat"], {0: 2, 2: 0}),
        ({0: "cat"}, ["person"], {}),
    ],
)
def test_classes_are_matched_by_name(
    theirs: dict[int, str], ours: list[str], pairs: dict[int, int]
) -> None:
    assert scoring.common(theirs, ours) == pairs


def test_labels_are_what_the_files_say(data: Path) -> None:
    labels = scoring.read_labels(data, "test")
    assert labels.classes == ("person",)
    assert labels.images[0] == "images/test/synthetic_test_000.jpg"
    lines = sum(len(f.read_text().splitlines()) for f in (data / "labels/test").glob("*.txt"))
    assert labels.counts().sum() == lines
    assert (labels.sizes == 320).all()
    boxes = np.concatenate(labels.boxes)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes.max() <= 320.001


def test_exact_boxes_score_as_high_as_ultralytics_lets_them(data: Path) -> None:
    labels = scoring.read_labels(data, "test")
    scored = scoring.measure(guesses(labels), labels, 64)
    assert scored.metrics["mAP50-95"] == pytest.approx(0.995)
    assert scored.by_class == {"person": pytest.approx(0.995)}
    assert scored.missing == ()


def test_hits_are_ultralytics_own() -> None:
    import torch
    from ultralytics.engine.validator import BaseValidator

    class Validator(BaseValidator):
        def __init__(self) -> None:
            self.iouv = torch.linspace(0.5, 0.95, 10)

    rng = np.random.default_rng(0)
    for _ in range(50):
        corner = rng.uniform(0, 60, (9, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(20, 60, (9, 2))], axis=1)
        found = np.repeat(boxes, 3, axis=0) + rng.normal(0, 3, (27, 4))
        truth, guessed = rng.integers(0, 3, 9), rng.integers(0, 3, 27)
        confidence = rng.permutation(np.linspace(0.1, 0.9, 27))
        labels = Labels(("a", "b", "c"), ("x",), np.array([[200, 200]]), (boxes,), (truth,))
        matches = scoring.match(
            Detections(labels.classes, (found,), (confidence,), (guessed,)), labels
        )
        order = np.argsort(-confidence)
        theirs = Validator().match_predictions(
            torch.from_numpy(guessed[order]),
            torch.from_numpy(truth),
            torch.from_numpy(scoring.iou(boxes, found[order])),
        )
        assert (matches.hits == theirs.numpy()).all()


def test_a_class_that_the_model_lacks_counts_nothing_and_is_named(
    data: Path, tmp_path: Path
) -> None:
    labels = scoring.read_labels(renamed(data, tmp_path / "two", ["person", "cat"]), "val")
    found = guesses(labels)
    found = Detections(("person",), found.boxes, found.confidences, found.ids)
    matches = scoring.match(found, labels)
    assert matches.missing == ("cat",)
    assert matches.only(["person"]).classes == ("person",)
    assert matches.only(["cat"]).hits.shape == (0, 10)


def test_matches_survive_a_file(data: Path, tmp_path: Path) -> None:
    labels = scoring.read_labels(data, "val")
    matches = scoring.match(guesses(labels), labels)
    matches.save(tmp_path / "matches.npz")
    read = Matches.load(tmp_path / "matches.npz")
    assert (read.classes, read.known) == (matches.classes, matches.known)
    assert (read.hits == matches.hits[:, :1]).all()
    assert (read.labels == matches.labels).all()


def test_boxes_by_chance_come_from_other_images(data: Path) -> None:
    labels = scoring.read_labels(data, "val")
    found = guesses(labels)
    chance = scoring.by_chance(found, labels)
    for number, boxes in enumerate(chance.boxes):
        assert not len(labels.boxes[number]) or boxes is not found.boxes[number]
    assert sum(map(len, chance.boxes)) == sum(map(len, found.boxes))
    assert scoring.measure(chance, labels, 64).metrics["mAP50"] < 0.5
    alone = Labels(("a",), ("x",), np.array([[9, 9]]), (np.ones((1, 4)),), (np.array([0]),))
    with pytest.raises(ScoringError, match="two images"):
        scoring.by_chance(guesses(alone), alone)


def test_boxes_of_other_images_than_the_labels_are_refused(data: Path) -> None:
    labels = scoring.read_labels(data, "val")
    with pytest.raises(ScoringError):
        scoring.match(Detections((), (), (), ()), labels)


def test_an_architecture_is_scored_the_same_each_time(data: Path, tmp_path: Path) -> None:
    first = scoring.score("yolov8n.yaml", data, 64, "val", tmp_path)
    again = scoring.score("yolov8n.yaml", data, 64, "val", tmp_path)
    assert first.metrics == again.metrics
    assert first.known == ("person",)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs yolov8n.pt in {SHARED}")
def test_the_scores_are_ultralytics_own(data: Path, tmp_path: Path) -> None:
    from ultralytics import YOLO

    weights = str(SHARED / "yolov8n.pt")
    ours = scoring.score(weights, data, 160, "val", tmp_path).metrics
    theirs = YOLO(weights).val(
        data=str(data / "data.yaml"), imgsz=160, split="val", batch=8, classes=[0], workers=0,
        plots=False, verbose=False, project=str(tmp_path), name="theirs",
    ).results_dict  # fmt: skip
    assert ours["mAP50"] > 0.1
    for name, value in ours.items():
        assert value == pytest.approx(theirs[f"metrics/{name}(B)"], abs=1e-4)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs yolov8n.pt in {SHARED}")
def test_a_checkpoint_whose_class_0_is_another_is_scored_by_name(
    data: Path, tmp_path: Path
) -> None:
    weights = str(SHARED / "yolov8n.pt")
    cars = renamed(data, tmp_path / "cars", ["skateboard", "person"])
    for split in ("val",):
        for file in (cars / "labels" / split).glob("*.txt"):
            lines = [f"1{line[1:]}" for line in file.read_text().splitlines()]
            file.write_text("\n".join(lines))
    as_second = scoring.score(weights, cars, 160, "val", tmp_path)
    as_first = scoring.score(weights, data, 160, "val", tmp_path)
    assert as_second.metrics == as_first.metrics
    assert as_second.known == ("skateboard", "person")
    none = scoring.score(weights, renamed(data, tmp_path / "none", ["gnome"]), 160, "val", tmp_path)
    assert (none.known, none.metrics["mAP50"]) == ((), 0.0)
