"""The gate's rule, on models of known quality."""

import numpy as np
import pytest

from src.decision.gate import Model, Verdict, decide
from src.training.scoring import Matches, Scored

IMAGES = 40


def model(name: str, recall: float, *, seed: int = 0, classes: tuple[str, ...] = ("person",),
          known: tuple[str, ...] | None = None) -> Model:  # fmt: skip
    """A model that finds its share of two labels in each image, and misses once in each."""
    rng = np.random.default_rng(seed)
    known = classes if known is None else known
    count = len(classes)
    labels = np.full((IMAGES, count), 2)
    image = np.repeat(np.arange(IMAGES), 3 * count)
    ids = np.tile(np.repeat(np.arange(count), 3), IMAGES)
    hits = (rng.random(len(image)) < recall) & (np.arange(len(image)) % 3 < 2)
    confidence = np.where(hits, 0.9, 0.2) - rng.random(len(image)) / 10
    kept = np.isin(ids, [classes.index(k) for k in known])
    matches = Matches(classes, known, labels, image[kept], ids[kept], confidence[kept],
                      np.repeat(hits[kept, None], 10, axis=1))  # fmt: skip
    metrics, by_class = matches.scores()
    return Model(name, Scored(metrics, by_class, matches, 320))


GOOD, FAIR, POOR = model("good", 0.95), model("fair", 0.6, seed=1), model("poor", 0.1, seed=2)


@pytest.mark.parametrize(
    ("candidate", "others", "passed"),
    [
        (GOOD, {"champion": FAIR}, True),
        (FAIR, {"champion": GOOD}, False),
        (FAIR, {"champion": model("as fair", 0.6, seed=9)}, False),
        (GOOD, {"start": FAIR}, True),
        (FAIR, {"start": GOOD}, False),
        (GOOD, {"champion": FAIR, "start": POOR}, True),
        (FAIR, {"champion": POOR, "start": GOOD}, False),  # worse than its own start
        (FAIR, {"champion": POOR, "start": model("as fair", 0.6, seed=9)}, True),
        (GOOD, {"chance": POOR}, True),
        (POOR, {"chance": model("as poor", 0.1, seed=9)}, False),
        (GOOD, {}, False),
        (GOOD, {"champion": FAIR, "undone": True}, False),
        (GOOD, {"is_champion": True}, False),
    ],
)
def test_promoted_is_what_is_better_than_the_rival_and_not_worse_than_its_start(
    candidate: Model, others: dict[str, Model], passed: bool
) -> None:
    verdict = decide(candidate, **others)
    assert verdict.passed is passed
    assert ("Promoted" in verdict.headline) is passed


def reasons(verdict: Verdict) -> str:
    return "\n".join(verdict.reasons)


def test_reasons_give_the_numbers_and_what_it_would_take() -> None:
    said = reasons(decide(FAIR, champion=model("as fair", 0.6, seed=9)))
    assert "Not distinguishable from as fair (the rival)" in said
    assert "95 % interval" in said
    assert f"over {IMAGES} images" in said
    assert "such a difference would take about" in said
    assert "Better than fair (the rival): +0." in reasons(decide(GOOD, champion=FAIR))


def test_the_champion_itself_is_not_promoted_again() -> None:
    verdict = decide(GOOD, is_champion=True)
    assert "champion already" in verdict.headline
    assert len(verdict.rows) == 1


def test_without_a_champion_the_starting_weights_take_over_what_they_hold() -> None:
    assert decide(FAIR, start=GOOD).start_takes_over
    assert not decide(GOOD, start=FAIR).start_takes_over
    assert not decide(FAIR, start=GOOD, champion=GOOD).start_takes_over


def test_starting_weights_that_lack_a_class_are_no_rival() -> None:
    classes = ("person", "gnome")
    candidate = model("new", 0.8, classes=classes)
    start = model("old, untrained", 0.8, seed=1, classes=classes, known=("person",))
    chance = model("chance", 0.05, seed=2, classes=classes)
    verdict = decide(candidate, start=start, chance=chance)
    assert verdict.passed
    assert not verdict.start_takes_over
    assert "chance (the rival)" in reasons(verdict)
    assert "does not know gnome" in reasons(verdict)
    worse = model("new", 0.2, classes=classes)
    assert not decide(worse, start=start, chance=chance).passed  # on the class that both know
