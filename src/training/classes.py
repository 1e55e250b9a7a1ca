"""Scores by class: under which names MLflow keeps them, and how many at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

PREFIX = "mAP50/"
BATCH = 1000  # metrics that MLflow takes in one request
LENGTH = 250  # characters of a metric's name
_FOREIGN = re.compile(r"[^\w. :-]", re.ASCII)  # MLflow takes letters, digits and _ - . : space /


def metric_names(classes: Sequence[str]) -> dict[str, str]:
    """Return each class's metric, ``mAP50/<class>`` within MLflow's rules.

    What MLflow refuses becomes ``_``; names that would then be one are told apart by their number:
    "café" and "cafè" are ``mAP50/caf_`` and ``mAP50/caf__2``.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for title in classes:
        plain = _FOREIGN.sub("_", title).strip()[: LENGTH - len(PREFIX)].rstrip(". ") or "_"
        if plain.startswith("."):
            plain = f"_{plain}"
        unique, number = plain, 2
        while unique.casefold() in taken:  # MySQL's keys don't tell case apart
            unique = f"{plain}_{number}"
            number += 1
        taken.add(unique.casefold())
        names[title] = f"{PREFIX}{unique}"
    return names


def batches(metrics: Mapping[str, float]) -> Iterator[dict[str, float]]:
    """Yield the metrics in as many parts as MLflow takes at once."""
    items = list(metrics.items())
    for start in range(0, len(items), BATCH):
        yield dict(items[start : start + BATCH])
