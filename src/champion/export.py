"""Write the champion as a file of some format: ``python -m src.champion.export FORMAT``.

Into ``exports/<model>-<version>-<format>/``, with a model card and SHA-256 sums.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from datetime import date
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from mlflow import MlflowClient

from src.champion.detector import LABELS_FILE, MODEL_FILE, Detector
from src.champion.model import WEIGHTS_FILE, hashes_of
from src.champion.registry import Usable, usable_champion
from src.checkpoints import load
from src.client import use_stack
from src.datasets import sets
from src.errors import UserError, run_command
from src.files import unfinished
from src.services import health
from src.settings import ROOT, Settings, load_settings

EXPORTS = ROOT / "exports"
TEMPLATES = ROOT / "reports" / "templates"
CARD, SUMS = "MODEL_CARD.md", "SHA256SUMS"


class ExportError(UserError):
    """The champion can't be written in this format; the message says what to do."""


def formats() -> list[str]:
    """Return the formats that Ultralytics writes, by the word that names them."""
    from ultralytics.engine.exporter import export_formats

    return [word for word in export_formats()["Argument"] if word != "-"]


def export(form: str, settings: Settings) -> Path:
    """Write the champion in a format; return its folder, which is there whole or not at all.

    Raises:
        ExportError: When the format is unknown, can't be made here, or its package is missing.
        UserError: When there is no champion, or it can't be used.
    """
    if form != "onnx" and form not in formats():
        raise ExportError(f"FORMAT={form}: choose one of {', '.join(formats())}")
    usable = usable_champion(settings)
    name = f"{usable.version.name}-{usable.version.version}-{form}"
    EXPORTS.mkdir(exist_ok=True)
    with unfinished(EXPORTS) as temporary:
        work = temporary / name
        work.mkdir()
        size = Detector.load(usable.folder).size
        if form == "onnx":  # the very file that was scored and is served
            shutil.copy(usable.folder / MODEL_FILE, work)
        else:
            _convert(usable.folder / WEIGHTS_FILE, form, size, work)
        shutil.copy(usable.folder / LABELS_FILE, work)
        (work / CARD).write_text(card(usable, form, size), encoding="utf-8")
        sums = "".join(f"{digest}  {file}\n" for file, digest in hashes_of(work).items())
        (work / SUMS).write_text(sums, encoding="utf-8")
        folder = EXPORTS / name
        if folder.exists():
            folder.rename(temporary / "old")
        work.rename(folder)
    return folder


def _convert(weights: Path, form: str, size: int, work: Path) -> None:
    from ultralytics.utils import LOGGER

    LOGGER.setLevel("CRITICAL")  # it would say a missing package in words of its own
    copy = Path(shutil.copy(weights, work / "model.pt"))
    try:
        load(copy).export(format=form, imgsz=size, nms=None, verbose=False)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0].replace("_", "-")
        pip = f"{os.path.relpath(sys.executable, ROOT)} -m pip"
        raise ExportError(f"FORMAT={form} needs {package}: {pip} install {package}") from error
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ExportError(f"FORMAT={form} can't be made here: {first}") from error
    copy.unlink()


def card(usable: Usable, form: str, size: int) -> str:
    """Return the model card: what it is, on what it was trained, how it scored, its licence."""
    version = usable.version
    run = MlflowClient().get_run(str(version.run_id))
    labels = json.loads((usable.folder / LABELS_FILE).read_text(encoding="utf-8"))
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True,
        keep_trailing_newline=True, autoescape=False,  # noqa: S701 - Markdown
    )  # fmt: skip
    return templates.get_template("model_card.md").render(
        name=version.name,
        version=version.version,
        form=form,
        size=size,
        date=date.today().isoformat(),
        labels=labels,
        run=run.info,
        tags=run.data.tags,
        versions=version.tags,
        params=run.data.params,
        metrics=run.data.metrics,
        arguments=yaml.safe_load((usable.folder / "args.yaml").read_text(encoding="utf-8")),
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m src.champion.export", description=__doc__)
    parser.add_argument("format", help="onnx, openvino, torchscript, …")
    arguments = parser.parse_args()
    settings = load_settings()
    sets.require()
    use_stack(settings)
    health.require(settings)
    folder = export(arguments.format, settings)
    print(f"export: {folder.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(run_command(main))
