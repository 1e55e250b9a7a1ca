"""Checkpoints: kept under their hashes, and loaded without running what else they hold.

A checkpoint is a pickle, and one that was made for it runs code when it is loaded. With
``ULTRALYTICS_SAFE_LOAD`` (see ``src.OPT_OUTS``) Ultralytics builds the classes of its own models
only, and falls back to loading everything, without a word, where PyTorch is older than 2.6. So
every checkpoint is loaded here.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from src.errors import UserError
from src.files import private_folder, sha256
from src.settings import STATE

if TYPE_CHECKING:
    from ultralytics import YOLO

FOLDER = STATE / "weights"


class CheckpointError(UserError):
    """A checkpoint can't be loaded, or is not the one it should be; the message says which."""


def kept(digest: str) -> Path:
    """Return this checkout's copy of the checkpoint with that SHA-256.

    Trained models are compared with the weights they started from, long after WEIGHTS said which.
    """
    return FOLDER / f"{digest}.pt"


def keep(checkpoint: Path) -> str:
    """Keep a copy of a checkpoint under its SHA-256, which is returned."""
    digest = sha256(checkpoint)
    if not _intact(kept(digest)):
        copy = private_folder(FOLDER) / f".{digest}.{os.getpid()}.new"
        shutil.copyfile(checkpoint, copy)
        digest = sha256(copy)  # of what was copied, whatever happened to the file meanwhile
        copy.replace(kept(digest))
    return digest


def load(checkpoint: str | Path) -> YOLO:
    """Return the model of a checkpoint, or of an architecture (``.yaml``).

    Raises:
        CheckpointError: When it is damaged, holds more than a model, or is a kept one that has
            changed; when Ultralytics would run its code.
    """
    from ultralytics import YOLO
    from ultralytics.nn import tasks

    path = Path(checkpoint)
    if not tasks._SafeLoad.restricted():
        raise CheckpointError(
            "Ultralytics would run the code in checkpoints here (PyTorch is too old for its safe "
            "loading, or it was imported before src): make setup"
        )
    if path.parent == FOLDER and not _intact(path):
        path.unlink(missing_ok=True)
        raise CheckpointError(f"{path.name} in .stack/weights is missing or was changed")
    # Ultralytics drops apostrophes from paths, and takes any other ending for no checkpoint.
    if path.is_file() and (path.suffix not in (".pt", ".yaml") or "'" in str(path)):
        path = kept(keep(path))
    try:
        return YOLO(str(path))
    except Exception as error:
        if found := re.search(r"\bGLOBAL (\S+)", str(error.__cause__)):
            raise CheckpointError(
                f"holds more than a YOLO model ({found[1]}), which loading would run: refused"
            ) from error
        raise CheckpointError(
            f"does not load as a YOLO checkpoint ({type(error).__name__}): give a .pt file of "
            "Ultralytics"
        ) from error


def _intact(copy: Path) -> bool:
    return copy.is_file() and sha256(copy) == copy.stem
