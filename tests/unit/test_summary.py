"""The summary of a training: its figures and its page."""

from html.parser import HTMLParser
from typing import Any

import pytest

from src.zenml_steps.summary import SCORES, figures, page

TRAINED = {"mAP50": 0.8, "mAP50-95": 0.5, "precision": 0.7, "recall": 0.6}
UNTRAINED = {"mAP50": 0.75, "mAP50-95": 0.45, "precision": 0.65, "recall": 0.55}
ORIGIN = {
    "dataset": "coco128",
    "dataset_md5": "0123abcd.dir",
    "weights": "yolov8n.pt",
    "weights_sha256": "4567ef",
    "git_commit": "89abcd",
}


def result(**changes: Any) -> dict[str, Any]:
    """Return a ``training_result`` with some of it changed."""
    return {
        "run_name": "zenml_yolo_tiny_baseline",
        "metrics": TRAINED,
        "untrained": UNTRAINED,
        "training_seconds": 12.34,
        "recipe": {"epochs": 3, "imgsz": 320},
        "provenance": ORIGIN,
        "images": {"train": 40, "val": 10},
        "mlflow_run_id": "run1",
        "mlflow_url": "http://localhost:5000/#/experiments/1/runs/run1",
    } | changes


class Tags(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_figures_hold_scores_gain_and_provenance() -> None:
    found = figures(result())
    assert {score: found[score] for score in SCORES} == TRAINED
    assert {score: found[f"untrained_{score}"] for score in SCORES} == UNTRAINED
    assert found["mAP50_gain"] == pytest.approx(0.05)
    assert found["training_seconds"] == 12.34
    assert found["mlflow_run_id"] == "run1"
    assert found.items() >= ORIGIN.items()


def test_without_an_untrained_score_there_is_no_gain() -> None:
    found = figures(result(untrained=None))
    assert not [name for name in found if name.startswith("untrained") or name == "mAP50_gain"]
    assert found.items() >= TRAINED.items()


def test_the_page_shows_what_the_numbers_are_about() -> None:
    text = Tags(page(result())).text
    for fact in (
        "zenml_yolo_tiny_baseline", "0.8000", "0.7500", "+0.0500", "40 train, 10 val",
        "0123abcd.dir", "yolov8n.pt", "4567ef", "epochs=3, imgsz=320", "12.3 s", "89abcd",
    ):  # fmt: skip
        assert fact in text, fact


def test_the_page_without_an_untrained_score_shows_dashes() -> None:
    text = Tags(page(result(untrained=None))).text
    assert text.count("—") == len(SCORES)
    assert "against" not in text


def test_a_loss_is_shown_as_one() -> None:
    assert "-0.7000" in page(result(metrics=TRAINED | {"mAP50": 0.05}))


def test_drawn_people_are_said_loudly() -> None:
    warning = "Drawn people, not photos"
    assert warning in page(result(provenance=ORIGIN | {"dataset": "synthetic"}, untrained=None))
    assert warning not in page(result())


def test_what_people_named_is_escaped() -> None:
    name = "<script>alert('&')</script>"
    hostile = result(
        run_name=name,
        provenance=dict.fromkeys(ORIGIN, name),
        recipe={name: name},
        images={name: 1},
        mlflow_url=f'http://localhost/">{name}',
    )
    found = Tags(page(hostile))
    assert "script" not in found.tags
    assert found.text.count(name) >= len(ORIGIN) + 4
