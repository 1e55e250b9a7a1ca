"""Stores a trained checkpoint in ZenML's artifact store.

Without Ultralytics and PyTorch until a model is loaded: a pipeline that is served from the cache
needs neither.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zenml.enums import ArtifactType
from zenml.io import fileio
from zenml.materializers.base_materializer import BaseMaterializer

from src.checkpoints import load

if TYPE_CHECKING:
    from ultralytics import YOLO

FILE = "best.pt"


@dataclass(frozen=True)
class Checkpoint:
    """The bytes of a checkpoint file."""

    content: bytes


class YoloMaterializer(BaseMaterializer):
    """Keeps a ``Checkpoint`` as ``best.pt``; loading gives a ``YOLO`` that predicts."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Checkpoint,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def save(self, data: Checkpoint) -> None:
        """Write the checkpoint to the artifact store."""
        with fileio.open(self._address, "wb") as writer:
            writer.write(data.content)

    def load(self, data_type: type[Any]) -> YOLO:
        """Fetch the checkpoint and load it."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / FILE
            with fileio.open(self._address, "rb") as reader, local.open("wb") as writer:
                shutil.copyfileobj(reader, writer)
            return load(local)

    @property
    def _address(self) -> str:
        return f"{self.uri}/{FILE}"
