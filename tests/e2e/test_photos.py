"""The shipped recipes on COCO128's photos from pretrained weights, as the lab ran them."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import SHARED, Checkout
from tests.e2e.servers import EXPERIMENT, MLflow, pairs

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs COCO128 and weights in {SHARED}"),
]

LAB = {"e3_320": 0.24, "e3_416": 0.27, "e5_320": 0.26, "e5_416": 0.33}
UNTRAINED = {"320": 0.72, "416": 0.79}


@pytest.fixture(scope="module", autouse=True)
def photos(checkout: Checkout) -> None:
    checkout.variables |= {
        "COCO128_URL": f"file://{SHARED / 'coco128.zip'}",
        "WEIGHTS": str(SHARED / "yolov8n.pt"),
    }


def test_the_data_set_is_the_labs(checkout: Checkout) -> None:
    printed = checkout.make("data")
    assert "valid (40 train, 10 val, 10 test)" in printed
    assert "built (COCO128 photos)" in printed


def test_every_cell_beats_the_lab_and_keeps_what_the_weights_knew(checkout: Checkout) -> None:
    checkout.make("grid")
    runs = {run["info"]["run_name"]: run for run in MLflow(checkout).runs()[EXPERIMENT]}
    assert runs.keys() == {f"zenml_yolo_tiny_{cell}" for cell in LAB}
    for cell, published in LAB.items():
        scores = pairs(runs[f"zenml_yolo_tiny_{cell}"]["data"]["metrics"])
        untrained = UNTRAINED[cell.split("_")[1]]
        assert scores["mAP50"] > published
        assert scores["mAP50"] >= untrained - 0.05
        assert scores["untrained_mAP50"] == pytest.approx(untrained, abs=0.02)
