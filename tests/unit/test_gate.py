"""The gate's rule, on plain scores."""

import pytest

from src.decision.gate import Row, decide


def row(name: str, score: float) -> Row:
    return Row(name, dict.fromkeys(("mAP50", "mAP50-95", "precision", "recall"), score), 320)


@pytest.mark.parametrize(
    ("candidate", "others", "passed"),
    [
        (0.8, [0.7], True),
        (0.8, [0.7, 0.79], True),
        (0.8, [0.7, 0.81], False),
        (0.8, [0.81, 0.7], False),
        (0.8, [0.8], False),
        (0.1, [], True),
        (0.0, [], False),
    ],
)
def test_the_candidate_must_beat_all_others(
    candidate: float, others: list[float], passed: bool
) -> None:
    rows = [row("new", candidate), *(row(f"old {score}", score) for score in others)]
    verdict = decide(rows)
    assert verdict.passed is passed
    assert len(verdict.reasons) == max(1, len(others))
    assert ("Promoted" in verdict.headline) is passed


def test_reasons_give_the_numbers() -> None:
    (reason,) = decide([row("new", 0.75), row("yolov8n.pt, untrained", 0.8)]).reasons
    assert reason == "0.7500 is not above 0.8000 of yolov8n.pt, untrained (-0.0500)"


def test_the_champion_itself_is_not_promoted_again() -> None:
    verdict = decide([row("new", 0.75)], is_champion=True)
    assert not verdict.passed
    assert "champion already" in verdict.headline
