"""What the champion finds, and what its classes are called."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from src.champion import predict as module
from src.champion import registry as registry_module
from src.champion.detector import Detections
from src.champion.predict import Outcome, summed_up
from src.champion.registry import STARTING, promote
from src.files import sha256
from src.settings import Settings
from src.training.provenance import TRAINED
from src.training.tracking import EXPERIMENT
from tests.unit.mlflow_runs import DATASET

pytestmark = pytest.mark.usefixtures("registry")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the data set in use, which is not there yet."""
    monkeypatch.setattr(module, "PREDICTIONS", tmp_path / "predictions")
    monkeypatch.setattr(registry_module, "FOLDER", tmp_path / "data")
    return tmp_path / "data"


def describe(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir()
    (folder / "data.yaml").write_text(json.dumps({"names": list(names)}))


def checkpoint(file: Path, names: Sequence[str], sees: str) -> Path:
    """Save a YOLOv8 that sees ``sees``, and nothing else, everywhere."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    model = YOLO("yolov8n.yaml")
    model.model = DetectionModel("yolov8n.yaml", nc=len(names), verbose=False)
    model.model.names = dict(enumerate(names))
    for layers in model.model.model[-1].cv3:
        layers[-1].bias.data[:] = -20
        layers[-1].bias.data[names.index(sees)] = 20
    model.save(file)
    return file


def detect(weights: Path, settings: Settings, tmp_path: Path, **tags: str) -> dict[str, Any]:
    """Promote a run with these weights and return what it finds in a picture."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    tags = {"dataset_md5": DATASET, TRAINED: sha256(weights)} | tags
    run_id = client.create_run(experiment.experiment_id, run_name="one", tags=tags).info.run_id
    client.log_param(run_id, "imgsz", 64)
    client.log_artifact(run_id, str(weights), "weights")
    client.set_terminated(run_id)
    promote(client.get_run(run_id), settings, "a test", force=True)  # there is no test split
    picture = tmp_path / "picture.png"
    Image.new("RGB", (64, 64), "grey").save(picture)
    made = module.predict(picture, settings)
    return dict(json.loads((made / "predictions.json").read_text()))


def test_the_labs_people_are_people(folder: Path, settings: Settings, tmp_path: Path) -> None:
    describe(folder, ["person"])
    weights = checkpoint(tmp_path / "best.pt", ["person"], "person")
    found = detect(weights, settings, tmp_path)
    assert found["classes"] == ["person"]
    (picture,) = found["predictions"]
    assert picture["people"]
    assert picture["people"][0].keys() == {"confidence", "box_xyxy"}


@pytest.mark.parametrize("there", [["cat", "dog"], ["kitten", "dog"], []])
def test_a_trainings_classes_are_its_own(
    folder: Path, settings: Settings, tmp_path: Path, there: list[str]
) -> None:
    """Whatever has become of the data since: renamed, or deleted."""
    if there:
        describe(folder, there)
    weights = checkpoint(tmp_path / "best.pt", ["cat", "dog"], "cat")
    found = detect(weights, settings, tmp_path)
    assert found["classes"] == ["cat", "dog"]
    (picture,) = found["predictions"]
    assert {item["class"] for item in picture["objects"]} == {"cat"}


@pytest.mark.parametrize(("sees", "named"), [("Cat", {"cat"}), ("kite", set())])
def test_a_checkpoint_as_it_came_is_limited_to_the_datas_classes(
    folder: Path, settings: Settings, tmp_path: Path, sees: str, named: set[str]
) -> None:
    describe(folder, ["cat", "dog"])
    weights = checkpoint(tmp_path / "best.pt", ["kite", "dog", "Cat"], sees)
    found = detect(weights, settings, tmp_path, **{STARTING: "its identity"})
    assert found["classes"] == ["dog", "cat"]  # in the checkpoint's order
    (picture,) = found["predictions"]
    assert {item["class"] for item in picture["objects"]} == named


@pytest.mark.parametrize(
    ("names", "found", "said"),
    [
        (["person"], [["person"]], "1 person in 1 picture"),
        (["person"], [["person"] * 2, []], "2 people in 2 pictures"),
        (["person"], [[]], "0 people in 1 picture"),
        (["cat", "dog"], [["cat", "dog", "cat"]], "2 cat, 1 dog in 1 picture"),
        (["cat", "dog"], [[], []], "nothing in 2 pictures"),
    ],
)
def test_what_was_found_is_summed_up(names: list[str], found: list[list[str]], said: str) -> None:
    boxes, confidences = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    seen = [Detections(boxes, confidences, classes, 8, 8) for classes in found]
    assert summed_up([Outcome(Path("a.jpg"), seen=seen)], names) == said
