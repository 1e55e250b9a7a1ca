"""What a training starts from: which data set and which weights, settled once.

The two ``auto`` settings are settled together and recorded in ``.stack/inputs.json``, so that a
network that comes and goes does not swap the data under somebody's comparisons: photos only where
pretrained weights can be had too (40 photos can't teach a network from scratch), else drawn people.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from src import checkpoints
from src.download import ASSETS, DownloadError, fetch
from src.errors import UserError
from src.files import sha256, write_private
from src.settings import STATE, Settings

Choice = Literal["auto", "coco128", "synthetic"]  # of the lab's data set
Kind = Literal["coco128", "synthetic", "imported"]  # of data set

RECORD = STATE / "inputs.json"
DOWNLOADS = STATE / "downloads"
PRETRAINED_URL = f"{ASSETS}/v8.4.0/yolov8n.pt"
SCRATCH = "scratch"
SCRATCH_MODEL = "yolov8n.yaml"  # the architecture alone, with random weights


class InputsError(UserError):
    """The weights or the data can't be had or used; the message says what to do."""


class Inputs(BaseModel):
    """The settled inputs, and the settings that they were settled for."""

    settled_for: tuple[str, str, str]  # DATASET, WEIGHTS, COCO128_URL
    dataset: Kind
    weights: str  # the path of a checkpoint, or "scratch"
    weights_sha256: str  # of the checkpoint; "scratch" without one
    notices: list[str]  # what the user must know about these inputs

    @property
    def pretrained(self) -> bool:
        """Whether training starts from a checkpoint."""
        return self.weights != SCRATCH

    @property
    def model(self) -> str:
        """What Ultralytics' ``YOLO`` is made from.

        Of a checkpoint, the kept copy: Ultralytics refuses names that don't end in ``.pt`` and
        drops apostrophes from paths, and the file in ``weights`` may change meanwhile.
        """
        return str(checkpoints.kept(self.weights_sha256)) if self.pretrained else SCRATCH_MODEL

    @property
    def weights_name(self) -> str:
        """The weights' provenance in one phrase."""
        if not self.pretrained:
            return "random (from scratch)"
        path = Path(self.weights)
        return path.name.split("-", 1)[1] if path.parent == DOWNLOADS else path.name

    @property
    def recipe_suffix(self) -> str:
        """Which shipped recipe fits: for photos, drawn people (``_scratch``) or your own data."""
        if self.dataset == "imported":
            return "_custom"
        return "" if self.pretrained and self.dataset == "coco128" else "_scratch"

    def announce(self) -> None:
        """Say the notices where nobody can overlook them, once in a command."""
        if os.environ.get("NOTICES_SHOWN"):
            return
        for notice in self.notices:
            sys.stderr.write(f"*** {notice}\n")


def settle(settings: Settings, built: Kind | None = None) -> Inputs:
    """Return the inputs that the settings ask for, from the record where it still applies.

    ``built`` is the kind of the data set that is there already, which ``auto`` stays with; an
    imported one has nothing to settle but the weights.

    Raises:
        InputsError: When explicitly chosen photos or weights can't be had, or weights don't load.
    """
    imported = built == "imported"
    asked = ("imported" if imported else settings.dataset, settings.weights, settings.coco128_url)
    record = record_of(built)
    known = _recorded(record)
    if known is not None and known.settled_for == asked and _present(known):
        return known
    notices: list[str] = []
    weights = _weights(settings, notices)
    earlier = _given_before(settings, known) if weights is None else None
    if earlier is not None:
        weights = Path(earlier.weights)
    dataset = "imported" if imported else _dataset(settings, weights, built, notices)
    if dataset == "coco128" and weights is None:
        notices.append("40 photos can't teach a network from scratch: expect a score near 0")
    if settings.weights == settings.dataset == "auto" and dataset == "synthetic":
        weights = None
    if weights is None and settings.weights != SCRATCH:
        notices.append("WEIGHTS: training starts FROM SCRATCH (no pretrained weights)")
    if weights is None:
        digest = SCRATCH
    elif earlier is not None:  # whose own file may be gone
        digest = earlier.weights_sha256
        notices.append(f"WEIGHTS: staying with {earlier.weights_name}, which was given before")
    else:
        digest = _checked(weights, known)
    inputs = Inputs(
        settled_for=asked,
        dataset=dataset,
        weights=SCRATCH if weights is None else str(weights),
        weights_sha256=digest,
        notices=notices,
    )
    write_private(record, inputs.model_dump_json(indent=2) + "\n")
    return inputs


def record_of(kind: Kind | None) -> Path:
    """Return where the inputs of a kind of data set are recorded: your own don't undo ``auto``."""
    return RECORD.with_stem(f"{RECORD.stem}-imported") if kind == "imported" else RECORD


def photos(settings: Settings) -> Path:
    """Return COCO128's archive, downloaded where it isn't yet; raises ``DownloadError``."""
    return fetch(settings.coco128_url, _place(settings.coco128_url))


def _place(url: str) -> Path:
    """Return where a download is kept; another address is another file."""
    name = Path(urlsplit(url).path).name
    return DOWNLOADS / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name}"


def _recorded(record: Path) -> Inputs | None:
    try:
        return Inputs.model_validate_json(record.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _present(inputs: Inputs) -> bool:
    """Tell whether the recorded checkpoint is still the one that was checked."""
    return not inputs.pretrained or (_is_copy(Path(inputs.weights), inputs) and _kept(inputs))


def _kept(inputs: Inputs) -> bool:
    """Tell whether the kept copy of a recorded checkpoint is there, and whole."""
    return inputs.pretrained and _is_copy(Path(inputs.model), inputs)


def _given_before(settings: Settings, known: Inputs | None) -> Inputs | None:
    """Return the record whose weights ``auto`` stays with where yolov8n.pt can't be had."""
    stays = settings.weights == "auto" and known is not None and _kept(known)
    return known if stays else None


def _is_copy(file: Path, inputs: Inputs) -> bool:
    return file.is_file() and sha256(file) == inputs.weights_sha256


def _weights(settings: Settings, notices: list[str]) -> Path | None:
    """Return the checkpoint to start from, or None for random weights."""
    asked = settings.weights
    if asked == SCRATCH:
        return None
    if asked == "auto":
        try:
            return fetch(PRETRAINED_URL, _place(PRETRAINED_URL))
        except DownloadError as error:
            notices.append(f"yolov8n.pt can't be had ({error}): set WEIGHTS to a file to use one")
            return None
    if "://" in asked:
        try:
            return fetch(asked, _place(asked)).resolve()
        except DownloadError as error:
            raise InputsError(f"WEIGHTS: {error}") from error
    path = Path(asked).expanduser().resolve()
    if not path.is_file():
        raise InputsError(f"WEIGHTS={asked}: no such file: give a path, a URL, scratch or auto")
    return path


def _dataset(
    settings: Settings, weights: Path | None, built: Kind | None, notices: list[str]
) -> Kind:
    if settings.dataset in get_args(Kind):
        return cast(Kind, settings.dataset)
    drawn = "DATASET: SYNTHETIC data, drawn people, no photos"
    if weights is None:
        notices.append(f"{drawn} (photos need pretrained weights)")
        return "synthetic"
    if built == "coco128":
        return "coco128"
    try:
        photos(settings)
    except DownloadError as error:
        notices.append(f"{drawn} (COCO128 can't be had: {error})")
        return "synthetic"
    return "coco128"


def _checked(weights: Path, known: Inputs | None) -> str:
    """Keep the checkpoint and return its SHA-256 after proving that it loads as a detector."""
    digest = checkpoints.keep(weights)
    if known is not None and known.weights_sha256 == digest:
        return digest
    try:
        task = checkpoints.load(checkpoints.kept(digest)).task
    except checkpoints.CheckpointError as error:
        checkpoints.kept(digest).unlink(missing_ok=True)
        if weights.parent == DOWNLOADS:
            weights.unlink()  # so that the next try downloads it again
        raise InputsError(f"WEIGHTS: {weights} {error}") from error
    if task != "detect":
        raise InputsError(f"WEIGHTS: {weights} is a model for {task}, not for detect")
    return digest
