"""The pipeline's first step: prove that the data set is the version that was asked for."""

from __future__ import annotations

from typing import Annotated, Any

from zenml import log_metadata, step
from zenml.config.cache_policy import CachePolicy

from src.datasets import FOLDER, manifest, validation, versioning


@step(cache_policy=CachePolicy(source_dependencies=[validation]))
def prepare_tiny_coco_dataset(dataset_md5: str) -> Annotated[dict[str, Any], "dataset"]:
    """Validate ``data/tiny_person`` and return a reference to it.

    The content's hash is a parameter, so that changed data runs again and unchanged data comes
    from the cache.

    Returns:
        ``md5`` (DVC's), ``kind`` (coco128 or synthetic) and ``images`` (their number by split).

    Raises:
        DatasetError: When the folder is not that version, or not valid.
    """
    versioning.require_current(dataset_md5)
    images = validation.validate(FOLDER)
    kind = manifest.read(FOLDER).kind
    log_metadata({"dataset_md5": dataset_md5, "dataset": kind, **images})
    return {"md5": dataset_md5, "kind": kind, "images": images}
