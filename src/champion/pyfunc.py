"""The registered model's own code: what ``mlflow.pyfunc.load_model`` runs.

MLflow logs it as code, with ``detector.py``. It needs mlflow-skinny, pandas, onnxruntime,
numpy and pillow, nothing of this project. The module is loaded by its path, not by its name: two
versions in one process each keep their own.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

_here = Path(__file__).parent  # MLflow puts the code of ``code_paths`` into ``code``
_file = _here / ("code/detector.py" if (_here / "code").is_dir() else "detector.py")
_spec = importlib.util.spec_from_file_location(f"{__name__}_detector", _file)
assert _spec is not None and _spec.loader is not None
detector = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = detector  # dataclasses look their module up
_spec.loader.exec_module(detector)


class DetectionModel(PythonModel):
    """Pictures in, boxes out: a column ``image`` of bytes, a row for each picture."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load ``model.onnx`` and the class names."""
        folder = Path(context.artifacts[Path(detector.MODEL_FILE).stem]).parent
        self._detector = detector.Detector.load(folder)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return ``boxes``, ``classes`` and ``confidences`` of each picture.

        Raises:
            PictureError: When a picture can't be read.
            ParameterError: When ``conf``, ``iou`` or ``max_det`` is outside its range.
        """
        thresholds = detector.Thresholds(**(params or {}))
        pictures = (detector.decode(bytes(data)) for data in model_input["image"])
        found = [self._detector.detect(pixels, thresholds) for pixels in pictures]
        return pd.DataFrame(detector.detections_table(found))


set_model(DetectionModel())
