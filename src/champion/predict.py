"""Detect objects with the champion: ``python -m src.champion.predict SOURCE``.

SOURCE is a picture, a folder (and those in it), a video, or a pattern such as ``'photos/*.jpg'``.
Writes annotated pictures and videos, ``predictions.json`` and a page to look at, ``index.html``,
into ``predictions/<time>/``, laid out as the source is.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from src.champion.detector import Detections, Detector, PictureError, Thresholds, decode
from src.client import use_stack
from src.datasets import sets
from src.errors import UserError, file_fault, run_command
from src.files import unfinished, unused
from src.machine import cores
from src.services import health
from src.settings import ROOT, Settings, load_settings

if TYPE_CHECKING:
    import cv2

    from src.champion.registry import Usable

PREDICTIONS = ROOT / "predictions"
TEMPLATES = ROOT / "reports" / "templates"
PERSON = ["person"]  # the lab's classes, whose boxes are called people
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
SHOWN = (".jpg", ".jpeg", ".png", ".webp")  # what a browser shows; others are written as .jpg
LARGEST = 512 << 20  # bytes of a picture's file
NAMED = 10  # unreadable files that are named on the terminal; the others are in the JSON
COLOURS = ("#d6246e", "#0b5cad", "#1a7f37", "#b35900", "#6f42c1", "#00797a")


class PredictError(UserError):
    """There is nothing to detect in; the message says what to give."""


@dataclass
class Outcome:
    """What one picture or video gave; ``seen`` has an entry for each picture or frame."""

    source: Path
    output: Path | None = None  # annotated, below the predictions' folder
    seen: list[Detections] = field(default_factory=list)
    fault: str = ""  # why it, or the rest of it, can't be read

    @property
    def counts(self) -> Counter[str]:
        """How often each class was found."""
        return Counter(name for item in self.seen for name in item.classes)


def find(source: str) -> tuple[Path, list[Path]]:
    """Return the files that a source means, sorted, and the folder that holds them all.

    Raises:
        PredictError: When there are none.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        if not files:
            raise PredictError(f"SOURCE={source}: the folder is empty")
        return path, sorted(files)
    named = (Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207
    files = sorted(file for file in named if file.is_file())
    if not files:
        raise PredictError(
            f"SOURCE={source}: no such file or folder: give a picture, a folder, a video or a "
            "pattern in quotes, such as SOURCE='photos/*.jpg'"
        )
    return Path(os.path.commonpath([file.parent for file in files])), files


def place(files: Iterable[Path], base: Path) -> dict[Path, Path]:
    """Return where each file's annotated copy goes: the same place and name, none twice."""
    taken: set[str] = set()
    placed = {}
    for file in files:
        name = file.relative_to(base)
        if file.suffix.lower() in VIDEOS:
            name = name.with_name(f"{name.name}.webm" if file.suffix != ".webm" else name.name)
        elif file.suffix.lower() not in SHOWN:
            name = name.with_name(f"{name.name}.jpg")
        while str(name).casefold() in taken:
            name = name.with_name(f"{name.stem}_{name.suffix}")
        taken.add(str(name).casefold())
        placed[file] = name
    return placed


def annotate(pixels: NDArray[np.uint8], found: Detections, names: list[str]) -> Image.Image:
    """Return a picture with its boxes, class names and confidences drawn."""
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    unit = max(found.width, found.height) / 400
    font = ImageFont.load_default(max(8.0, 9 * unit))
    for box, name, confidence in zip(found.boxes, found.classes, found.confidences, strict=True):
        colour = COLOURS[names.index(name) % len(COLOURS)]
        x1, y1, x2, y2 = (float(value) for value in box)
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=max(1, round(1.5 * unit)))
        text = f"{name} {confidence:.2f}"
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        width, height = right - left + 4 * unit, bottom - top + 3 * unit
        x = max(0.0, min(x1, found.width - width))
        y = y1 - height if y1 >= height else y1
        pen.rectangle((x, y, x + width, y + height), fill=colour)
        pen.text((x + 2 * unit - left, y + 1.5 * unit - top), text, fill="white", font=font)
    return image


def look(detector: Detector, thresholds: Thresholds, file: Path, output: Path) -> Outcome:
    """Detect in one picture and write its annotated copy."""
    outcome = Outcome(file)
    try:
        if file.stat().st_size > LARGEST:
            outcome.fault = f"larger than {LARGEST >> 20} MB"
            return outcome
        pixels = decode(file.read_bytes())
    except (OSError, PictureError) as error:
        outcome.fault = file_fault(error) if isinstance(error, OSError) else str(error)
        return outcome
    outcome.seen.append(detector.detect(pixels, thresholds))
    output.parent.mkdir(parents=True, exist_ok=True)
    annotate(pixels, outcome.seen[0], list(detector.names.values())).save(output, quality=90)
    outcome.output = output
    return outcome


def watch(detector: Detector, thresholds: Thresholds, file: Path, output: Path) -> Outcome:
    """Detect in every frame of a video and write its annotated copy as WebM."""
    import cv2

    outcome = Outcome(file)
    video = cv2.VideoCapture(str(file))
    writer: cv2.VideoWriter | None = None
    try:
        wanted = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        while (frame := video.read())[0]:
            pixels = np.ascontiguousarray(frame[1][:, :, ::-1], dtype=np.uint8)
            found = detector.detect(pixels, thresholds)
            if writer is None:
                output.parent.mkdir(parents=True, exist_ok=True)
                rate = video.get(cv2.CAP_PROP_FPS)
                writer = cv2.VideoWriter(
                    str(output), cv2.VideoWriter.fourcc(*"VP80"), rate if rate > 0 else 25.0,
                    (found.width, found.height),
                )  # fmt: skip
            outcome.seen.append(found)
            drawn = annotate(pixels, found, list(detector.names.values()))
            writer.write(np.asarray(drawn)[:, :, ::-1])
    finally:
        video.release()
        if writer is not None:
            writer.release()
    if not outcome.seen:
        outcome.fault = "no video that can be read"
    else:
        outcome.output = output
        if len(outcome.seen) < wanted:
            outcome.fault = f"damaged after frame {len(outcome.seen)} of {wanted}"
    return outcome


def run(detector: Detector, placed: dict[Path, Path], folder: Path) -> Iterator[Outcome]:
    """Yield what each file gives, in their order; pictures side by side, one on each core."""
    thresholds = Thresholds()
    with ThreadPoolExecutor(cores()) as pool:
        waiting: list[Future[Outcome]] = []
        try:
            for file, name in placed.items():
                task = watch if file.suffix.lower() in VIDEOS else look
                waiting.append(pool.submit(task, detector, thresholds, file, folder / name))
            for done in waiting:
                yield done.result()
        finally:
            for task_left in waiting:
                task_left.cancel()


def record(usable: Usable, detector: Detector, outcomes: list[Outcome]) -> dict[str, Any]:
    """Return what ``predictions.json`` holds."""
    names = list(detector.names.values())
    lab = names == PERSON

    def objects(found: Detections) -> list[dict[str, Any]]:
        items = found.objects()
        for item in items if lab else ():
            del item["class"]
        return items

    version = usable.version
    return {
        "model": {
            "name": version.name,
            "version": version.version,
            "mlflow_run_id": version.run_id,
            "imgsz": detector.size,
        },
        "classes": names,
        "predictions": [
            {
                "source": str(outcome.source),
                "number": number,  # of the picture, or of the video's frame
                "height": found.height,
                "width": found.width,
                "people" if lab else "objects": objects(found),
            }
            for outcome in outcomes
            for number, found in enumerate(outcome.seen)
        ],
        "unreadable": [
            {"source": str(outcome.source), "reason": outcome.fault}
            for outcome in outcomes
            if outcome.fault
        ],
    }


def write_page(usable: Usable, outcomes: list[Outcome], folder: Path) -> None:
    """Write ``index.html``: every annotated picture, and what could not be read."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=True,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    shown = [
        {
            "name": str(outcome.source),
            "file": outcome.output.relative_to(folder).as_posix(),
            "video": outcome.output.suffix == ".webm",
            "found": ", ".join(f"{n} {name}" for name, n in outcome.counts.most_common())
            or "nothing",
        }
        for outcome in outcomes
        if outcome.output
    ]
    text = templates.get_template("predictions.html").render(
        model=f"{usable.version.name} version {usable.version.version}",
        shown=shown,
        unreadable=[outcome for outcome in outcomes if outcome.fault],
    )
    (folder / "index.html").write_text(text, encoding="utf-8")


def predict(source: str, settings: Settings) -> Path:
    """Run the champion on a source; return the output's folder, which is there whole or not at all.

    Raises:
        PredictError: When nothing at ``source`` can be read.
        UserError: When there is no champion, or it can't be used.
    """
    from src.champion.registry import usable_champion  # after use_stack: see there

    base, files = find(source)
    usable = usable_champion(settings)
    detector = Detector.load(usable.folder, threads=1 if len(files) > 1 else 0)
    PREDICTIONS.mkdir(exist_ok=True)
    with unfinished(PREDICTIONS) as temporary:
        work = temporary / "predictions"
        work.mkdir()
        outcomes = list(run(detector, place(files, base), work))
        unread = [outcome for outcome in outcomes if outcome.fault]
        for outcome in unread[:NAMED]:
            print(f"can't read {outcome.source}: {outcome.fault}", file=sys.stderr)
        if len(unread) > NAMED:
            print(f"and {len(unread) - NAMED} more files: see the page", file=sys.stderr)
        if not any(outcome.seen for outcome in outcomes):
            raise PredictError(f"SOURCE={source}: no picture or video that can be read")
        text = json.dumps(record(usable, detector, outcomes), indent=2)
        (work / "predictions.json").write_text(text + "\n", encoding="utf-8")
        write_page(usable, outcomes, work)
        folder = unused(PREDICTIONS / f"{datetime.now():%Y%m%d-%H%M%S}")
        work.rename(folder)
    found = summed_up(outcomes, list(detector.names.values()))
    print(f"{usable.version.name} version {usable.version.version}: {found}")
    return folder


def summed_up(outcomes: Iterable[Outcome], names: list[str]) -> str:
    """Return what was found of the classes ``names``, such as ``3 cat, 1 dog in 2 pictures``."""
    outcomes = list(outcomes)
    pictures = sum(len(outcome.seen) for outcome in outcomes)
    total = sum((outcome.counts for outcome in outcomes), Counter[str]())
    found = ", ".join(f"{n} {name}" for name, n in total.most_common()) or "nothing"
    if names == PERSON and total["person"] != 1:
        found = f"{total['person']} people"
    return f"{found} in {pictures} picture{'s' * (pictures != 1)}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m src.champion.predict", description=__doc__)
    parser.add_argument("source", help="a picture, a folder, a video, or a pattern in quotes")
    arguments = parser.parse_args()
    settings = load_settings()
    sets.require()
    use_stack(settings)
    health.require(settings)
    folder = predict(arguments.source, settings)
    print(f"page: {folder.relative_to(ROOT)}/index.html")
    print(f"predictions: {folder.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(run_command(main))
