"""Detect objects with the champion: ``python -m src.champion.predict SOURCE``.

Writes annotated pictures (or a video) and ``predictions.json`` into ``predictions/<time>/``.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path

from mlflow import MlflowClient

from src.champion.registry import (
    CHAMPION,
    MODEL,
    STARTING,
    RegistryError,
    champion,
    champion_weights,
)
from src.checkpoints import load
from src.client import use_stack
from src.datasets import CLASSES, FOLDER, sets
from src.datasets.manifest import class_names
from src.errors import run_command
from src.files import private_folder
from src.settings import ROOT, Settings, load_settings
from src.training.scoring import common

PREDICTIONS = ROOT / "predictions"


def predict(source: Path, settings: Settings) -> Path:
    """Run the champion on an image, a folder of images or a video; return the output's folder.

    Raises:
        RegistryError: When there is no champion, or nothing at ``source`` that can be read.
    """
    version = champion()
    if version is None:
        raise RegistryError(f"{MODEL} has no {CHAMPION} yet: make report, or make promote RUN=…")
    if not source.exists():
        raise RegistryError(f"SOURCE={source}: no such file or folder")
    cache = private_folder(settings.backend_state / "models" / str(version.run_id))
    weights = champion_weights(version, cache)
    run = MlflowClient().get_run(version.run_id)
    imgsz = int(run.data.params["imgsz"])

    model = load(weights)
    names = list(model.names.values())
    if STARTING in run.data.tags:  # it knows other things than the data set's, too
        names = class_names(FOLDER)
    known = common(model.names, names)
    lab = names == list(CLASSES)  # whose objects are called people
    folder = PREDICTIONS / f"{datetime.now():%Y%m%d-%H%M%S}"
    results = model.predict(
        str(source), imgsz=imgsz, stream=True, save=True, verbose=False, classes=list(known),
        project=str(PREDICTIONS), name=folder.name,
    )  # fmt: skip
    found = []
    try:
        for number, result in enumerate(results):
            kinds = [names[known[int(number)]] for number in result.boxes.cls.tolist()]
            rows = zip(kinds, result.boxes.conf.tolist(), result.boxes.xyxy.tolist(), strict=True)
            found.append(
                {
                    "source": str(result.path),
                    "number": number,  # of the picture, or of the video's frame
                    "height": result.orig_shape[0],
                    "width": result.orig_shape[1],
                    "people" if lab else "objects": [
                        ({} if lab else {"class": kind})
                        | {
                            "confidence": round(confidence, 4),
                            "box_xyxy": [round(x, 1) for x in box],
                        }
                        for kind, confidence, box in rows
                    ],
                }
            )
    except FileNotFoundError as error:
        raise RegistryError(f"SOURCE={source}: no picture or video that can be read") from error
    described = {"name": MODEL, "version": version.version, "mlflow_run_id": version.run_id}
    text = json.dumps(
        {"model": described | {"imgsz": imgsz}, "classes": names, "predictions": found}, indent=2
    )
    (folder / "predictions.json").write_text(text + "\n", encoding="utf-8")
    what = "people" if lab else "objects"
    count = sum(len(item[what]) for item in found)
    print(f"{MODEL} version {version.version}: {count} {what} in {len(found)} pictures")
    return folder


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m src.champion.predict", description=__doc__)
    parser.add_argument("source", type=Path, help="an image, a folder of images or a video")
    arguments = parser.parse_args()
    settings = load_settings()
    sets.require()
    use_stack(settings)
    folder = predict(arguments.source, settings)
    print(f"predictions: {folder.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(run_command(main))
