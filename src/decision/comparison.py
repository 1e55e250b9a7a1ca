"""Whether one detector is better than another, or whether the images are too few to tell.

Both were run over the same images, so images are what is drawn again: a paired bootstrap. Its
average precision is Ultralytics' (``ap_per_class``, 101 points) at IoU 0.5, with a weight for each
image, from rows that are sorted once.

The interval is the difference ± Student's t times the bootstrap's standard error, with the factor
for small samples. Measured over thousands of simulated decisions (``make test-statistics``): of two
equally good models the better-looking one passes in 1 to 4 % at 10, 32 and 200 images, and a
difference of twice the half-width passes in 95 % or more. The plain percentiles let 4 to 6 % pass
at 10 images; a permutation test keeps the first promise, but finds only 78 to 92 % of the
differences at 10 images, and what it says can contradict the interval that is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from src.training.scoring import Matches

Floats = NDArray[np.float64]

RESAMPLES = 2000
SEED = 20
LEVEL = 0.95  # of the interval
INTERVAL = f"{LEVEL * 100:g} % interval"
# With fewer, even a model that wins on every image could have done so by chance (2 · ½⁵ > 0.05).
LEAST_IMAGES = 6
_RECALLS = np.linspace(0, 1, 101)  # where Ultralytics reads the precision
_CHUNK = 4_000_000  # numbers held at once in an array: 32 MB

Outcome = Literal["better", "worse", "not distinguishable"]


@dataclass(frozen=True)
class Comparison:
    """A difference in mAP50, how far it can be trusted, and what follows."""

    difference: float  # -1 to 1, above 0 where the first model is better
    low: float  # ends of the interval
    high: float
    outcome: Outcome  # of the first model
    images: int  # that have a label, or a box of either model
    needed: int | None  # images that such a difference would take; None for no difference at all


def compare(first: Matches, second: Matches) -> Comparison:
    """Compare two models on the same images and classes; with an answer for too few images too.

    Raises:
        ValueError: When the images or classes are not the same, or there is no label at all.
    """
    if first.classes != second.classes or not np.array_equal(first.labels, second.labels):
        raise ValueError("models are compared on the same images and classes")
    if not first.labels.any():
        raise ValueError("nothing can be compared on images without a label")
    # Images that nobody labelled and nobody found anything in say nothing.
    spoken: NDArray[np.bool_] = np.asarray(first.labels.any(axis=1))
    spoken[first.image] = True
    spoken[second.image] = True
    count = int(spoken.sum())
    weights = np.zeros((len(spoken), 1 + RESAMPLES))
    weights[:, 0] = 1
    weights[spoken, 1:] = _drawn(count)
    differences = mean_average_precision(first, weights) - mean_average_precision(second, weights)
    difference, drawn = float(differences[0]), differences[1:]
    error = float(np.std(drawn[~np.isnan(drawn)]))
    if count < LEAST_IMAGES:
        half = 2.0
    else:
        half = special.stdtrit(count - 1, (1 + LEVEL) / 2) * math.sqrt(count / (count - 1)) * error
    outcome: Outcome = "not distinguishable"
    if abs(difference) > half:
        outcome = "better" if difference > 0 else "worse"
    needed = None
    if difference:
        spread = special.ndtri((1 + LEVEL) / 2) * error * math.sqrt(count)
        needed = max(math.ceil((spread / difference) ** 2), LEAST_IMAGES)
        if outcome == "not distinguishable":
            needed = max(needed, count + 1)
    return Comparison(
        difference=difference,
        low=max(-1.0, difference - half),
        high=min(1.0, difference + half),
        outcome=outcome,
        images=count,
        needed=needed,
    )


def _drawn(count: int) -> Floats:
    """Return how often each of ``count`` images comes up in each resample, (images, RESAMPLES)."""
    chances = np.full(count, 1 / count)
    return np.random.default_rng(SEED).multinomial(count, chances, RESAMPLES).T.astype(float)


def mean_average_precision(matches: Matches, weights: Floats) -> Floats:
    """Return mAP50 for each column of ``weights`` (images, columns).

    A weight says how many times the image is there. Classes without a label in a column are left
    out of its mean, as Ultralytics does; NaN where that leaves none.
    """
    total, classes = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for number in range(len(matches.classes)):
        labels = matches.labels[:, number] @ weights
        image, hit = _rows(matches, number)
        total += _average_precision(_Curve(image, hit, len(weights)), weights, labels)
        classes += labels > 0
    with np.errstate(invalid="ignore"):
        return np.asarray(total / classes)


def _rows(matches: Matches, number: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return a class's boxes, the most confident first: their image, whether they hit."""
    chosen = np.flatnonzero(matches.ids == number)
    chosen = chosen[np.argsort(-matches.confidence[chosen], kind="stable")]
    return matches.image[chosen], matches.hits[chosen, 0]


class _Curve:
    """A class's precision-recall curve, ready for any weights of the images.

    Only hits matter: the precision envelope has its steps there, and the misses between two hits
    count together.
    """

    def __init__(self, image: NDArray[np.int64], hit: NDArray[np.bool_], images: int) -> None:
        """Take boxes sorted by falling confidence."""
        self.image = image[hit]
        before = np.cumsum(hit)[~hit]  # hits before each miss
        used = before < len(self.image)
        self.misses = sparse.csr_matrix(
            (np.ones(used.sum()), (before[used], image[~hit][used])),
            shape=(len(self.image), images),
        )


def _average_precision(curve: _Curve, weights: Floats, labels: Floats) -> Floats:
    """Return a class's average precision for each column of ``weights``, 0 without labels."""
    found = np.zeros(weights.shape[1])
    if not len(curve.image):
        return found
    for columns in _chunks(weights.shape[1], len(curve.image)):
        chosen = weights[:, columns]
        hits = np.cumsum(chosen[curve.image], axis=0)
        misses = np.cumsum(curve.misses @ chosen, axis=0)
        precision = hits / np.maximum(hits + misses, 1)
        envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        # Between two recalls the envelope is that of the next hit; after the last one it is 0.
        wanted = _reached(labels[columns]) + 1  # hits to get beyond each of the 101 recalls
        found[columns] = np.trapezoid(_at(hits, envelope, wanted), _RECALLS, axis=1)
    return np.where(labels > 0, found, 0)


def _chunks(columns: int, rows: int) -> Iterator[slice]:
    step = max(1, _CHUNK // rows)
    yield from (slice(start, start + step) for start in range(0, columns, step))


def _reached(labels: Floats) -> Floats:
    """Return the most hits whose recall is not above each of the 101 recalls, (columns, 101).

    With the same floating-point division as Ultralytics', since a recall may be equal.
    """
    total = np.maximum(labels, 1)[:, None]
    hits = np.floor(_RECALLS * total)
    hits -= hits / total > _RECALLS
    hits += (hits + 1) / total <= _RECALLS
    return np.asarray(hits)


def _at(hits: Floats, envelope: Floats, wanted: Floats) -> Floats:
    """Return the envelope where a column's hits first come to ``wanted`` (columns, 101), else 0."""
    rows, columns = hits.shape
    apart = max(hits[-1].max(), wanted.max()) + 1
    offsets = np.arange(columns)[:, None] * apart
    place = np.searchsorted((hits.T + offsets).ravel(), (wanted + offsets).ravel())
    place = place.reshape(wanted.shape) - np.arange(columns)[:, None] * rows
    padded = np.concatenate([envelope, np.zeros((1, columns))])
    return np.asarray(padded[np.minimum(place, rows), np.arange(columns)[:, None]])
