"""Data sets of one's own, from make baseline DATASET=… to make predict, beside the lab's.

``make test-own-data``; each test builds on those above it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Checkout
from tests.e2e.servers import MLflow, Store, ZenML, pairs
from tests.unit.importing import cases

pytestmark = pytest.mark.e2e

SMALL = ("EPOCHS=1", "IMGSZ=64", "BATCH=4")
SCRATCH = (*SMALL, "WEIGHTS=scratch")
CLASSES = [f"mAP50/{name}" for name in cases.NAMES]
IMAGES, BOXES = 14, sum(len(item.boxes) for item in cases.truth().values())


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


@pytest.fixture(scope="module")
def checkout(checkout: Checkout) -> Checkout:
    """The checkout, with a grid of two cells."""
    for base in ("custom", "scratch"):
        text = f"base: baseline_{base}.yaml\ngrid:\n  lr0: [0.002, 0.001]\n"
        (checkout.root / f"configs/two_{base}.yaml").write_text(text)
    return checkout


def decide(checkout: Checkout, name: str) -> Path:
    """Report on the latest grid, promote the baseline where nothing was good enough; the page."""
    printed = checkout.make("report")
    (page,) = [checkout.root / line[8:] for line in printed.splitlines() if line[:8] == "report: "]
    assert all(title in page.read_text() for title in cases.NAMES)
    if "Promoted" not in printed:  # an epoch of scratch may find nothing
        run = f"RUN=zenml_yolo_{name}_baseline"
        checkout.make("promote", run, "FORCE=1", "REASON=a test")
    mlflow = MLflow(checkout)
    version = mlflow.get("registered-models/alias", name=f"{name}-detector", alias="champion")
    run_id = version["model_version"]["run_id"]
    run = mlflow.get("runs/get", run_id=run_id)["run"]
    assert pairs(run["data"]["tags"])["dataset"] == "imported"
    return page


def predict(checkout: Checkout, name: str) -> dict[str, Any]:
    """Detect in a test image with the champion; return the JSON."""
    folder = checkout.root / "predictions"
    before = set(folder.rglob("predictions.json"))
    picture = min((checkout.root / f"data/{name}/images/test").iterdir())
    checkout.make("predict", f"SOURCE={picture}")
    (file,) = set(folder.rglob("predictions.json")) - before
    found = json.loads(file.read_text())
    assert found["model"]["name"] == f"{name}-detector"
    assert found["classes"] == cases.NAMES
    (seen,) = found["predictions"]
    assert "people" not in seen
    assert {item["class"] for item in seen["objects"]} <= set(cases.NAMES)
    return dict(found)


def check_servers(checkout: Checkout, name: str) -> None:
    """The baseline's run is in MLflow, in ZenML and its data in the store."""
    runs = MLflow(checkout).runs()[f"cv_yolo_{name}"]
    (run,) = [r for r in runs if r["info"]["run_name"] == f"zenml_yolo_{name}_baseline"]
    assert set(CLASSES) <= pairs(run["data"]["metrics"]).keys()
    assert pairs(run["data"]["tags"])["dataset"] == "imported"
    zenml = ZenML(checkout)
    ran = zenml.runs()[-1]
    data_step = zenml.steps(ran["id"])["prepare_tiny_coco_dataset"]
    assert "dataset_page" in data_step["body"].get("outputs", data_step["resources"].get("outputs"))
    md5 = pairs(run["data"]["tags"])["dataset_md5"]
    keys = Store(checkout, "dvc").keys(checkout.settings["DVC_BUCKET"])
    assert f"files/md5/{md5[:2]}/{md5[2:]}" in keys


def test_the_labs_grid_before_any_other_set(checkout: Checkout) -> None:
    checkout.make("baseline", "DATASET=synthetic", *SCRATCH)
    checkout.make("grid", "GRID=configs/two_scratch.yaml", *SCRATCH)


def test_one_command_takes_a_roboflow_export(checkout: Checkout, mine: dict[str, Path]) -> None:
    printed = checkout.make("baseline", f"DATASET={mine['roboflow']}", "NAME=cats", *SCRATCH)
    counted = f"{IMAGES} images, {BOXES} boxes, 3 classes"
    assert f"data/cats: {counted} (YOLO with data.yaml)" in printed
    assert "zenml_yolo_cats_baseline: trained" in printed
    check_servers(checkout, "cats")


def test_the_choice_holds_from_grid_to_prediction(checkout: Checkout) -> None:
    checkout.make("grid", "GRID=configs/two_custom.yaml", *SCRATCH)
    decide(checkout, "cats")
    predict(checkout, "cats")


def test_coco_json_lives_beside_it(checkout: Checkout, mine: dict[str, Path]) -> None:
    printed = checkout.make("baseline", f"DATASET={mine['coco']}", *SCRATCH)
    assert f"data/coco: {IMAGES} images, {BOXES} boxes, 3 classes (COCO JSON)" in printed
    assert "zenml_yolo_coco_baseline: trained" in printed
    check_servers(checkout, "coco")
    checkout.make("grid", "GRID=configs/two_custom.yaml", *SCRATCH)
    decide(checkout, "coco")
    predict(checkout, "coco")
    assert "zenml_yolo_cats_baseline: from the cache" in checkout.make(
        "baseline", "NAME=cats", *SCRATCH
    )


def test_a_checkpoint_whose_class_0_is_another(checkout: Checkout, tmp_path: Path) -> None:
    """The untrained row covers "cat" and "dog", which stand elsewhere in the checkpoint."""
    weights = tmp_path / "other classes.pt"
    save_checkpoint(weights, ["person", "dog", "cat", "kite"])
    own = ("NAME=cats", *SMALL, f"WEIGHTS={weights}")
    checkout.make("baseline", *own)
    printed = checkout.make("grid", "GRID=configs/two_custom.yaml", *own)
    assert "zenml_yolo_cats_e1_64_lr00.002: mAP50" in printed
    page = decide(checkout, "cats")
    assert "other classes.pt, untrained" in page.read_text()
    predict(checkout, "cats")


def save_checkpoint(file: Path, names: list[str]) -> None:
    """Save untrained weights of the smallest YOLOv8 with classes of its own."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    model = YOLO("yolov8n.yaml")
    model.model = DetectionModel("yolov8n.yaml", nc=len(names), verbose=False)
    model.model.names = dict(enumerate(names))
    model.save(file)


def test_the_labs_grid_again_comes_from_the_cache(checkout: Checkout) -> None:
    small = ("DATASET=synthetic", *SCRATCH)
    assert "zenml_yolo_tiny_baseline: from the cache" in checkout.make("baseline", *small)
    printed = checkout.make("grid", "GRID=configs/two_scratch.yaml", *small)
    assert printed.count("from the cache") == 2
    assert ": trained" not in printed


def test_clean_keeps_what_was_imported(checkout: Checkout) -> None:
    checkout.make("clean", "FORCE=1")
    assert (checkout.root / "data/cats/data.yaml").is_file()
    assert not (checkout.root / "data/tiny_person").exists()
    printed = checkout.make("data", "NAME=cats")
    assert "data/cats: unchanged" in printed
    assert "DVC remote: pushed" in printed
