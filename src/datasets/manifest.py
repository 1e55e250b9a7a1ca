"""What a data set says of itself: ``manifest.json`` and Ultralytics' ``data.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from src.datasets import CLASSES, FOLDER, SPLITS, DatasetError
from src.datasets.importing.tree import is_image, is_litter
from src.datasets.sets import lab_choice
from src.inputs import Inputs, Kind, settle
from src.settings import Settings

FILE = "manifest.json"
LAYOUT_FILE = "data.yaml"
# What must be said beside every score, by the kind of the data set.
NOTICES = {
    "synthetic": "Drawn people, not photos: these scores say nothing about real pictures.",
}


class Manifest(BaseModel):
    """Where a data set comes from; equal manifests are built from equal inputs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    seed: int
    source_sha256: str = ""  # of the archive, or of the code that draws; blank for imported files
    source: str = ""  # of imported files: the layout that they came in

    @property
    def provenance(self) -> str:
        """One phrase for tags and reports."""
        if self.kind == "imported":
            return f"imported ({self.source})" if self.source else "your own files"
        return {"coco128": "COCO128 photos", "synthetic": "drawn people (synthetic)"}[self.kind]


def images(folder: Path, split: str) -> Iterator[Path]:
    """Yield the files that the trainer takes for a split's images, in the order of their names."""
    home = folder / "images" / split
    for file in sorted(home.rglob("*")):
        inside = file.relative_to(home)
        if not any(map(is_litter, inside.parts)) and is_image(file.name) and file.is_file():
            yield file


def label_of(folder: Path, image: Path) -> Path:
    """Return where the trainer looks for an image's labels."""
    return (folder / "labels" / image.relative_to(folder / "images")).with_suffix(".txt")


def write(folder: Path, manifest: Manifest, names: Sequence[str] = CLASSES) -> None:
    """Write both files; the same manifest gives the same bytes."""
    text = manifest.model_dump_json(indent=2, exclude_defaults=True)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")
    # Without `path:`, Ultralytics takes the folder of this file, wherever that is moved.
    layout: dict[str, Any] = {split: f"images/{split}" for split in SPLITS}
    layout["names"] = dict(enumerate(names))
    (folder / LAYOUT_FILE).write_text(
        yaml.safe_dump(layout, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )


def read(folder: Path) -> Manifest:
    """Read a data set's manifest; files without one are the user's own.

    Raises:
        DatasetError: When it can't be read.
    """
    try:
        return Manifest.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (folder / LAYOUT_FILE).is_file():
            return Manifest(kind="imported", seed=0)
        raise DatasetError(
            f"{folder} has no {FILE} and no {LAYOUT_FILE}: build it with make data FORCE=1"
        ) from None
    except (ValidationError, UnicodeDecodeError):
        raise DatasetError(
            f"{folder / FILE} can't be read: delete it, and the files count as your own, "
            "or make data FORCE=1"
        ) from None


def class_names(folder: Path) -> list[str]:
    """Return a valid data set's classes in the order of their numbers, the lab's where none is."""
    if not (folder / LAYOUT_FILE).is_file():
        return list(CLASSES)
    names = yaml.safe_load((folder / LAYOUT_FILE).read_text(encoding="utf-8"))["names"]
    return list(map(str, names.values() if isinstance(names, dict) else names))


def built() -> Kind | None:
    """Return the kind of the data set that is there, None before the first was built."""
    if not FOLDER.is_dir():
        return None
    try:
        return read(FOLDER).kind
    except DatasetError:
        return None


def settled(settings: Settings, *, again: bool = False) -> Inputs:
    """Return the inputs of the data set in use; for the lab's, DATASET is what was last given.

    ``again`` is for the lab's: whatever files are there now.
    """
    there = built()
    if again and there == "imported":
        there = None
    return settle(settings.model_copy(update={"dataset": lab_choice(settings.dataset)}), there)
