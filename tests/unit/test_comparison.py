"""The paired comparison: Ultralytics' numbers, and what it says of models of known quality."""

import time

import numpy as np
import pytest

from src.decision import comparison
from src.decision.comparison import compare, mean_average_precision
from src.training.scoring import Matches

Array = np.ndarray


def simulate(
    rng: np.random.Generator, labels: Array, recall: float, misses: float = 3.0
) -> Matches:
    """A model that finds each label with a probability, and misses a few times in each image."""
    images, classes = np.nonzero(labels)
    counts = labels[images, classes]
    image, ids = np.repeat(images, counts), np.repeat(classes, counts)
    found = rng.random(len(image)) < recall
    wrong = rng.poisson(misses, labels.shape)
    wrong_image, wrong_ids = (
        np.repeat(n, wrong.ravel()) for n in np.indices(labels.shape).reshape(2, -1)
    )
    hits = np.repeat([True, False], [found.sum(), len(wrong_image)])
    confidence = np.where(hits, rng.beta(4, 2, len(hits)), rng.beta(1.3, 4, len(hits)))
    names = tuple(map(str, range(labels.shape[1])))
    return Matches(
        names,
        names,
        labels,
        np.concatenate([image[found], wrong_image]),
        np.concatenate([ids[found], wrong_ids]),
        confidence,
        hits[:, None],
    )


def scene(rng: np.random.Generator, images: int, classes: int = 1, mean: float = 3.0) -> Array:
    labels = rng.poisson(mean, (images, classes))
    labels[0] += 1
    return labels


def by_ultralytics(matches: Matches, weights: Array) -> float:
    """mAP50 of a data set in which each image really is there as often as its weight says."""
    from ultralytics.utils.metrics import ap_per_class

    rows = np.repeat(np.arange(len(matches.image)), weights[matches.image].astype(int))
    counts = (matches.labels * weights[:, None]).sum(axis=0).astype(int)
    hits = np.repeat(matches.hits[rows], 10, axis=1)
    truth = np.repeat(np.arange(len(counts)), counts)
    found = ap_per_class(hits, matches.confidence[rows], matches.ids[rows], truth)
    return float(found[5][:, 0].mean())


@pytest.mark.parametrize("seed", range(12))
def test_the_precision_of_each_resample_is_ultralytics_own(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = scene(rng, int(rng.integers(2, 60)), int(rng.integers(1, 5)), rng.uniform(0.3, 5))
    matches = simulate(rng, labels, rng.uniform(0.1, 1), rng.uniform(0, 5))
    count = len(labels)
    weights = rng.multinomial(count, np.full(count, 1 / count), 15).T.astype(float)
    weights[:, 0] = 1
    ours = mean_average_precision(matches, weights)
    checked = 0
    for column, value in enumerate(ours):
        if not np.isnan(value):
            assert value == pytest.approx(by_ultralytics(matches, weights[:, column]), abs=1e-9)
            checked += 1
    assert checked > 10


def test_a_model_that_finds_nothing_and_a_perfect_one() -> None:
    labels = np.full((8, 1), 2)
    perfect = simulate(np.random.default_rng(0), labels, 1.0, 0.0)
    nothing = simulate(np.random.default_rng(0), labels, 0.0, 0.0)
    found = compare(perfect, nothing)
    assert (found.outcome, found.difference) == ("better", pytest.approx(0.995))
    assert compare(nothing, perfect).outcome == "worse"
    same = compare(perfect, perfect)
    assert (same.outcome, same.needed, same.low, same.high) == ("not distinguishable", None, 0, 0)


@pytest.mark.parametrize(("images", "outcome"), [(5, "not distinguishable"), (6, "better")])
def test_a_handful_of_images_decides_nothing(images: int, outcome: str) -> None:
    labels = np.ones((images, 1), dtype=int)
    perfect = simulate(np.random.default_rng(0), labels, 1.0, 0.0)
    nothing = simulate(np.random.default_rng(0), labels, 0.0, 0.0)
    assert compare(perfect, nothing).outcome == outcome


def test_images_without_labels_and_boxes_change_nothing() -> None:
    rng = np.random.default_rng(3)
    labels = scene(rng, 12)
    models = [simulate(rng, labels, recall) for recall in (0.9, 0.3)]
    empty = np.concatenate([labels, np.zeros((500, 1), dtype=int)])
    padded = [Matches(m.classes, m.known, empty, m.image, m.ids, m.confidence, m.hits)
              for m in models]  # fmt: skip
    assert compare(*models) == compare(*padded)


def test_other_images_and_no_labels_are_refused() -> None:
    rng = np.random.default_rng(0)
    one, other = (simulate(rng, scene(rng, count), 0.5) for count in (7, 8))
    with pytest.raises(ValueError, match="same images"):
        compare(one, other)
    bare = simulate(rng, np.zeros((9, 1), dtype=int), 0.5)
    with pytest.raises(ValueError, match="without a label"):
        compare(bare, bare)


def test_what_is_needed_is_more_than_there_is_and_enough() -> None:
    rng = np.random.default_rng(1)
    few = scene(rng, 10)
    found = compare(simulate(rng, few, 0.75), simulate(rng, few, 0.6))
    assert found.outcome == "not distinguishable"
    assert found.needed is not None and found.needed > 10
    many = scene(rng, 4 * found.needed)
    assert compare(simulate(rng, many, 0.75), simulate(rng, many, 0.6)).outcome == "better"


def promoted(images: int, decisions: int, recalls: tuple[float, float], seed: int = 0) -> int:
    """How many of so many simulated decisions call the first model better."""
    rng = np.random.default_rng(seed)
    count = 0
    for _ in range(decisions):
        labels = scene(rng, images)
        first, second = (simulate(rng, labels, recall) for recall in recalls)
        count += compare(first, second).outcome == "better"
    return count


def half_width(images: int, recalls: tuple[float, float]) -> tuple[float, float]:
    """The mean half-width, and the mean difference, of a few simulated decisions."""
    rng = np.random.default_rng(99)
    found = []
    for _ in range(30):
        labels = scene(rng, images)
        found.append(compare(*(simulate(rng, labels, recall) for recall in recalls)))
    return (
        float(np.mean([min(f.difference - f.low, 1) for f in found])),
        float(np.mean([f.difference for f in found])),
    )


def apart(images: int, best: float = 0.95) -> tuple[float, float]:
    """Two models that differ by twice the half-width, found by bisection."""
    low, high = 0.0, best
    for _ in range(7):
        middle = (low + high) / 2
        half, difference = half_width(images, (best, middle))
        low, high = (middle, high) if difference > 2 * half else (low, middle)
    return best, low


@pytest.mark.parametrize("images", [10, 32])
def test_planted_truth(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short form; ``make test-statistics`` runs the long one."""
    monkeypatch.setattr(comparison, "RESAMPLES", 300)
    assert promoted(images, 150, (0.7, 0.7)) <= 8
    assert promoted(images, 60, apart(images)) >= 57


@pytest.mark.statistics
@pytest.mark.parametrize("images", [10, 32, 200])
def test_planted_truth_at_length(images: int) -> None:
    equal = promoted(images, 1000, (0.7, 0.7))
    different = promoted(images, 1000, apart(images), seed=1)
    print(f"{images} images: {equal} of 1000 equal, {different} of 1000 different promoted")
    assert equal <= 50
    assert different >= 950


@pytest.mark.statistics
def test_a_thousand_images_of_twenty_classes_take_twenty_seconds_at_most() -> None:
    rng = np.random.default_rng(0)
    labels = scene(rng, 1000, 20, 0.35)
    models = [simulate(rng, labels, recall, misses=14) for recall in (0.7, 0.6)]  # 300 boxes each
    started = time.monotonic()
    compare(*models)
    seconds = time.monotonic() - started
    print(f"{seconds:.1f} s")
    assert seconds <= 20
