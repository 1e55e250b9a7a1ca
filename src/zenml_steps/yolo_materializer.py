"""Stores an Ultralytics model in ZenML's artifact store as a checkpoint."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from ultralytics import YOLO
from zenml.enums import ArtifactType
from zenml.io import fileio
from zenml.materializers.base_materializer import BaseMaterializer

from src.checkpoints import load

FILE = "best.pt"


class YoloMaterializer(BaseMaterializer):
    """Keeps ``best.pt``; loading gives a ``YOLO`` that predicts."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (YOLO,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def save(self, data: YOLO) -> None:
        """Write the model's checkpoint to the artifact store."""
        with tempfile.TemporaryDirectory() as folder:
            local = str(Path(folder) / FILE)
            data.save(local)
            self._copy(local, self._address)

    def load(self, data_type: type[Any]) -> YOLO:
        """Fetch the checkpoint and load it."""
        with tempfile.TemporaryDirectory() as folder:
            local = str(Path(folder) / FILE)
            self._copy(self._address, local)
            return load(local)

    @property
    def _address(self) -> str:
        return f"{self.uri}/{FILE}"

    def _copy(self, source: str, target: str) -> None:
        with fileio.open(source, "rb") as reader, fileio.open(target, "wb") as writer:
            shutil.copyfileobj(reader, writer)
