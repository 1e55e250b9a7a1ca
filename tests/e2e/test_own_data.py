"""Data sets of one's own, from make baseline DATASET=… to make predict, beside the lab's.

``make test-own-data``; each test builds on those above it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import Checkout
from tests.e2e.servers import MLflow, Store, ZenML, pairs
from tests.unit.importing import cases

pytestmark = pytest.mark.e2e

SMALL = ("EPOCHS=1", "IMGSZ=64", "BATCH=4", "WEIGHTS=scratch")
CLASSES = [f"mAP50/{name}" for name in cases.NAMES]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A three-class set as Roboflow exports it, zipped, and one in COCO JSON; paths with spaces."""
    folder = tmp_path_factory.mktemp("my data sets")
    found = {}
    for name, layout in (("roboflow", cases.roboflow), ("coco", cases.coco_single)):
        (folder / name).mkdir()
        assert cases.make(folder / name, layout, [])
        found[name] = folder / name
    found["roboflow"] = Path(
        shutil.make_archive(str(folder / "My Cats.v1i.yolov8"), "zip", found["roboflow"])
    )
    return found


def test_one_command_takes_a_roboflow_export(checkout: Checkout, mine: dict[str, Path]) -> None:
    printed = checkout.make("baseline", f"DATASET={mine['roboflow']}", "NAME=cats", *SMALL)
    assert "data/cats: 14 images, 29 boxes, 3 classes (YOLO with data.yaml)" in printed
    assert "zenml_yolo_cats_baseline: trained" in printed
    (run,) = MLflow(checkout).runs()["cv_yolo_cats"]
    assert set(CLASSES) <= pairs(run["data"]["metrics"]).keys()
    assert pairs(run["data"]["tags"])["dataset"] == "imported"
    zenml = ZenML(checkout)
    (ran,) = zenml.runs()
    data_step = zenml.steps(ran["id"])["prepare_tiny_coco_dataset"]
    assert "dataset_page" in data_step["body"].get("outputs", data_step["resources"].get("outputs"))
    assert Store(checkout, "dvc").keys(checkout.settings["DVC_BUCKET"])


def test_the_choice_holds_from_grid_to_prediction(
    checkout: Checkout, mine: dict[str, Path], tmp_path: Path
) -> None:
    checkout.make("grid", *SMALL)
    printed = checkout.make("report")
    (report,) = (checkout.root / "reports").glob("*-cats-*/report.html")
    assert "traffic light" in report.read_text()
    if "Refused" in printed:  # an epoch of scratch may find nothing
        checkout.make("promote", "RUN=zenml_yolo_cats_baseline", "FORCE=1", "REASON=a test")
    found = MLflow(checkout).get("registered-models/get", name="cats-detector")
    assert found["registered_model"]["name"] == "cats-detector"
    picture = next((checkout.root / "data/cats/images/test").iterdir())
    checkout.make("predict", f"SOURCE={picture}")
    (file,) = (checkout.root / "predictions").rglob("predictions.json")
    assert json.loads(file.read_text())["model"]["name"] == "cats-detector"


def test_coco_json_lives_beside_it(checkout: Checkout, mine: dict[str, Path]) -> None:
    printed = checkout.make("baseline", f"DATASET={mine['coco']}", *SMALL)
    assert "zenml_yolo_coco_baseline: trained" in printed
    printed = checkout.make("baseline", "NAME=cats", *SMALL)
    assert "zenml_yolo_cats_baseline: from the cache" in printed


def test_the_labs_set_is_untouched_by_the_others(checkout: Checkout) -> None:
    small = ("DATASET=synthetic", *SMALL)
    assert "zenml_yolo_tiny_baseline: trained" in checkout.make("baseline", *small)
    assert "zenml_yolo_cats_baseline: from the cache" in checkout.make(
        "baseline", "NAME=cats", *SMALL
    )
    assert "zenml_yolo_tiny_baseline: from the cache" in checkout.make("baseline", *small)


def test_clean_keeps_what_was_imported(checkout: Checkout) -> None:
    checkout.make("clean", "FORCE=1")
    assert (checkout.root / "data/cats/data.yaml").is_file()
    assert not (checkout.root / "data/tiny_person").exists()
    printed = checkout.make("data", "NAME=cats")
    assert "data/cats: unchanged" in printed
    assert "DVC remote: pushed" in printed
