"""A training's summary: the figures as metadata, and a page that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from src import pages
from src.datasets.manifest import NOTICES
from src.training.scoring import SCORES


def figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a ``training_result``: scores, gain over untrained, provenance."""
    trained, untrained = result["metrics"], result["untrained"]
    values: dict[str, Any] = {score: trained[score] for score in SCORES}
    if untrained is not None:
        values |= {f"untrained_{score}": untrained[score] for score in SCORES}
        values["mAP50_gain"] = trained["mAP50"] - untrained["mAP50"]
    values["training_seconds"] = result["training_seconds"]
    values["mlflow_run_id"] = result["mlflow_run_id"]
    return values | dict(result["provenance"])


def page(result: Mapping[str, Any]) -> str:
    """Return one self-contained HTML page about a ``training_result``."""
    recipe, origin = result["recipe"], result["provenance"]
    untrained = result["untrained"] or {}
    images = ", ".join(f"{count} {split}" for split, count in result["images"].items())
    facts = {
        "Data set": f"{origin['dataset']} ({images} images), DVC {origin['dataset_md5']}",
        "Weights at the start": f"{origin['weights']}, SHA-256 {origin['weights_sha256']}",
        "Recipe": ", ".join(f"{name}={value}" for name, value in recipe.items()),
        "Training": f"{result['training_seconds']:.1f} s",
        "Git commit": origin["git_commit"],
    }
    body = pages.render(
        "summary.html",
        name=result["run_name"],
        said=_said(result),
        rows=[
            (score, _number(result["metrics"][score]), _number(untrained.get(score)))
            for score in SCORES
        ],
        classes=_classes(result),
        facts=facts,
        link=result["mlflow_url"],
    )
    return pages.page(result["run_name"], body)


def _classes(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return mAP50 by class, the best first; nothing for a single class."""
    by_class = result.get("by_class") or {}
    if len(by_class) < 2:
        return []
    return [
        (title, _number(value)) for title, value in sorted(by_class.items(), key=lambda i: -i[1])
    ]


def _said(result: Mapping[str, Any]) -> list[str]:
    notice = NOTICES.get(result["provenance"]["dataset"])
    said = [notice] if notice else []
    untrained = result["untrained"]
    if untrained is not None:
        gain = result["metrics"]["mAP50"] - untrained["mAP50"]
        said.append(f"Training changed mAP50 by {gain:+.4f} against the weights it started from.")
    return said


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.4f}"
