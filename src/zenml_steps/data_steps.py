"""The pipeline's first step: prove that the data set is the version that was asked for."""

from __future__ import annotations

from typing import Annotated, Any

from zenml import log_metadata, step
from zenml.config.cache_policy import CachePolicy
from zenml.types import HTMLString

from src.datasets import FOLDER, SET, manifest, page, validation, versioning


@step(cache_policy=CachePolicy(source_dependencies=[validation]))
def prepare_tiny_coco_dataset(
    dataset_md5: str,
) -> tuple[Annotated[dict[str, Any], "dataset"], Annotated[HTMLString, "dataset_page"]]:
    """Validate the data set in use and return a reference to it.

    The content's hash is a parameter, so that changed data runs again and unchanged data comes
    from the cache.

    Returns:
        ``name``, ``md5`` (DVC's), ``kind`` (coco128, synthetic or imported), ``classes`` and
        ``images`` (their number by split); and the version's page.

    Raises:
        DatasetError: When the folder is not that version, or not valid.
    """
    versioning.require_current(dataset_md5)
    images = validation.validate(FOLDER)
    kind, names = manifest.read(FOLDER).kind, manifest.class_names(FOLDER)
    log_metadata({"dataset_md5": dataset_md5, "dataset": kind, "name": SET.name, **images})
    reference = {
        "name": SET.name,
        "md5": dataset_md5,
        "kind": kind,
        "classes": names,
        "images": images,
    }
    origin = manifest.read(FOLDER).provenance
    text = page.render(FOLDER, names, SET.name, dataset_md5, origin, page.read_account(FOLDER))
    return reference, HTMLString(text)
