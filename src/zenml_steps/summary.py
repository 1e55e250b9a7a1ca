"""A training's summary: the figures as metadata, and a page that shows them."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from src.datasets.manifest import NOTICES
from src.training.trainer import SCORES

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem; max-width: 46rem; color: #1c2430; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #d9dee6; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.loud { background: #fff3cd; padding: .5rem .8rem; border-radius: .3rem; }
code { overflow-wrap: anywhere; }
"""


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
    rows = "".join(
        f"<tr><th>{score}</th><td class=n>{result['metrics'][score]:.4f}</td>"
        f"<td class=n>{_number(untrained.get(score))}</td></tr>"
        for score in SCORES
    )
    images = ", ".join(f"{count} {split}" for split, count in result["images"].items())
    facts = {
        "Data set": f"{origin['dataset']} ({images} images), DVC {origin['dataset_md5']}",
        "Weights at the start": f"{origin['weights']}, SHA-256 {origin['weights_sha256']}",
        "Recipe": ", ".join(f"{name}={value}" for name, value in recipe.items()),
        "Training": f"{result['training_seconds']:.1f} s",
        "Git commit": origin["git_commit"],
    }
    listed = "".join(
        f"<tr><th>{html.escape(name)}</th><td><code>{html.escape(value)}</code></td></tr>"
        for name, value in facts.items()
    )
    name = html.escape(result["run_name"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title>"
        f"<style>{_STYLE}</style><h1>{name}</h1>{_verdict(result)}"
        f"<table><tr><th>On the validation split</th><th>trained</th><th>untrained</th></tr>{rows}"
        f"</table><table>{listed}</table>"
        f'<p><a href="{html.escape(result["mlflow_url"])}">The run in MLflow</a></p></html>'
    )


def _verdict(result: Mapping[str, Any]) -> str:
    notice = NOTICES.get(result["provenance"]["dataset"])
    parts = [notice] if notice else []
    untrained = result["untrained"]
    if untrained is not None:
        gain = result["metrics"]["mAP50"] - untrained["mAP50"]
        parts.append(f"Training changed mAP50 by {gain:+.4f} against the weights it started from.")
    return f'<p class="loud">{" ".join(parts)}</p>' if parts else ""


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.4f}"
