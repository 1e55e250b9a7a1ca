"""The gate: which run may become champion, judged on the held-out test split."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from src.champion.registry import RegistryError, champion, champion_weights, weights_of
from src.checkpoints import kept
from src.datasets import FOLDER, DatasetError
from src.datasets.versioning import require_current
from src.inputs import SCRATCH
from src.training.trainer import Metrics, score, workspace

RULE = (
    "The rule: on the held-out test split, the candidate's mAP50 must be above that of the weights "
    "it started from and above that of the current champion. Candidate and champion are scored at "
    "the image size they were trained at, the untrained weights at the candidate's."
)


@dataclass(frozen=True)
class Row:
    """One model's scores on the test split."""

    name: str
    scores: Metrics
    imgsz: int


@dataclass(frozen=True)
class Verdict:
    """What the gate found."""

    passed: bool
    headline: str
    rows: list[Row]
    reasons: list[str]
    rule: str = RULE


def judge(run: Run) -> Verdict:
    """Score a run's weights, those it started from and the champion's on the test split.

    The scores go to the run as ``test_…`` metrics.

    Raises:
        RegistryError: When the run was trained on other data, or its first weights are gone.
    """
    tags, imgsz = run.data.tags, int(run.data.params["imgsz"])
    try:
        require_current(tags["dataset_md5"])
    except DatasetError as error:
        raise RegistryError(f"{run.info.run_name} was trained on other data: {error}") from error
    untrained = None
    if tags["weights_sha256"] != SCRATCH:
        untrained = kept(tags["weights_sha256"])
        if not untrained.is_file():
            raise RegistryError(
                f"{run.info.run_name} started from {tags['weights']}, which this checkout does not "
                "hold: run make baseline with WEIGHTS set to it"
            )
    reigning = champion()
    with tempfile.TemporaryDirectory() as temporary, workspace(FOLDER) as (work, data):
        folder = Path(temporary)
        candidate = _row(
            f"{run.info.run_name} (candidate)",
            weights_of(run.info.run_id, folder / "new"),
            imgsz,
            data,
            work,
        )
        rows = [candidate]
        if untrained is not None:
            rows.append(_row(f"{tags['weights']}, untrained", untrained, imgsz, data, work))
        if reigning is not None and reigning.run_id != run.info.run_id:
            held = MlflowClient().get_run(reigning.run_id)
            rows.append(
                _row(
                    f"{held.info.run_name} (champion, version {reigning.version})",
                    champion_weights(reigning, folder / "old"),
                    int(held.data.params["imgsz"]),
                    data,
                    work,
                )
            )
    for name, value in candidate.scores.items():
        MlflowClient().log_metric(run.info.run_id, f"test_{name}", value)
    return decide(rows, is_champion=reigning is not None and reigning.run_id == run.info.run_id)


def decide(rows: list[Row], *, is_champion: bool = False) -> Verdict:
    """Apply the rule to the candidate, the first of ``rows``, and all others."""
    candidate, *others = rows
    if is_champion:
        return Verdict(False, "Nothing to promote: the best run is the champion already.", rows, [])
    mine = candidate.scores["mAP50"]
    reasons = []
    for other in others:
        theirs = other.scores["mAP50"]
        word = "above" if mine > theirs else "not above"
        reasons.append(f"{mine:.4f} is {word} {theirs:.4f} of {other.name} ({mine - theirs:+.4f})")
    passed = all(mine > other.scores["mAP50"] for other in others) and mine > 0
    if not others:
        reasons.append("There is nothing to compare with: no pretrained weights and no champion")
    headline = "Promoted to champion." if passed else "Refused: the champion stays as it is."
    return Verdict(passed, headline, rows, reasons)


def _row(name: str, weights: Path, imgsz: int, data: Path, work: Path) -> Row:
    scores = score(str(weights), data, imgsz, "test", work)
    if scores is None:
        raise RegistryError(f"{name} knows no class person")
    return Row(name, scores, imgsz)
