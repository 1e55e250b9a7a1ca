"""The Python inside: settings, bootstrap, data, training, pipelines."""

import gc
import os
from pathlib import Path

# No library may call home, write into the person's home, or chat. Set here, because some look at
# these while they are imported, before any settings are read.
OPT_OUTS = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MPLCONFIGDIR": str(Path(__file__).resolve().parents[1] / ".stack" / "matplotlib"),
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "ULTRALYTICS_SAFE_LOAD": "true",  # a checkpoint's code is not run
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "true",
    "ZENML_ANALYTICS_OPT_IN": "false",
}
os.environ.update(OPT_OUTS)

# Up to a fifth of what it takes to import PyTorch, ZenML and MLflow goes into garbage collections
# that find nothing; 700, 10, 10 is Python's own.
gc.set_threshold(50_000, 10, 10)
