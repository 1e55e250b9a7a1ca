"""What a built data set says of itself: ``manifest.json`` and Ultralytics' ``data.yaml``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from src.datasets import CLASSES, FOLDER, SPLITS, DatasetError
from src.inputs import Kind

FILE = "manifest.json"
# What must be said beside every score, by the kind of the data set.
NOTICES = {
    "synthetic": "Drawn people, not photos: these scores say nothing about real pictures.",
}


class Manifest(BaseModel):
    """Where a data set comes from; equal manifests are built from equal inputs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    seed: int
    source_sha256: str  # of the archive, or of the code that draws

    @property
    def provenance(self) -> str:
        """One phrase for tags and reports."""
        return {"coco128": "COCO128 photos", "synthetic": "drawn people (synthetic)"}[self.kind]


def images(folder: Path, split: str) -> Iterator[Path]:
    """Yield a split's image files in the order of their names."""
    yield from sorted(file for file in (folder / "images" / split).glob("*") if file.is_file())


def write(folder: Path, manifest: Manifest) -> None:
    """Write both files; the same manifest gives the same bytes."""
    (folder / FILE).write_text(manifest.model_dump_json(indent=2) + "\n")
    # Without `path:`, Ultralytics takes the folder of this file, wherever that is moved.
    layout = {split: f"images/{split}" for split in SPLITS}
    names = {"names": dict(enumerate(CLASSES))}
    (folder / "data.yaml").write_text(yaml.safe_dump(layout | names, sort_keys=False))


def read(folder: Path) -> Manifest:
    """Read a data set's manifest.

    Raises:
        DatasetError: When there is none, or it can't be read.
    """
    try:
        return Manifest.model_validate_json((folder / FILE).read_text())
    except FileNotFoundError:
        raise DatasetError(f"{folder} has no {FILE}: build it with make data FORCE=1") from None
    except ValidationError as error:
        raise DatasetError(
            f"{folder / FILE} can't be read ({error.error_count()} faults): make data FORCE=1"
        ) from None


def built() -> Kind | None:
    """Return the kind of the data set that is there, None before the first was built."""
    try:
        return read(FOLDER).kind
    except DatasetError:
        return None
