"""The gate: which run may become champion, judged on the held-out test split."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.entities.model_registry import ModelVersion

from src.champion.registry import (
    ROLLED_BACK,
    RegistryError,
    as_yaml,
    champion,
    champion_weights,
    fidelity_of,
    made_of,
    make_model,
    starting_parameters,
    weights_of,
)
from src.checkpoints import kept, load
from src.datasets import FOLDER, DatasetError
from src.datasets.manifest import class_names
from src.datasets.versioning import require_current
from src.decision.comparison import INTERVAL, Comparison, compare
from src.inputs import SCRATCH
from src.settings import Settings
from src.training import scoring
from src.training.scoring import Detections, Labels, Metrics, Scored, ScoringError
from src.training.tracking import EXPERIMENT, whereabouts
from src.training.trainer import configure_libraries, workspace

RULE = (
    "The rule: on the held-out test split, the candidate must be better than its rival, and not "
    "worse than the weights it started from. The rival is the champion; where there is none, the "
    "starting weights, if they know every class of the data; else chance: the candidate's own "
    f"boxes against other images' labels. Better and worse are told by the {INTERVAL} of the "
    "difference in mAP50, a paired bootstrap over the test images. Candidate and champion are "
    "scored at the image size they were trained at, the starting weights at the candidate's."
)
JUDGED = "judged_on_"  # begins the tag of a run that was judged on a test split


@dataclass(frozen=True)
class Model:
    """A model measured on the test split."""

    name: str
    scored: Scored

    @property
    def imgsz(self) -> int:
        """The size it was scored at, px."""
        return self.scored.imgsz

    @property
    def scores(self) -> Metrics:
        """The four scores."""
        return self.scored.metrics


@dataclass(frozen=True)
class Row:
    """A line of the verdict's table: a model, and the candidate compared with it."""

    model: Model
    against: Comparison | None = None  # how the candidate does against it; None for itself

    @property
    def name(self) -> str:
        """What the model is."""
        return self.model.name

    @property
    def scores(self) -> Metrics:
        """The four scores."""
        return self.model.scores

    @property
    def imgsz(self) -> int:
        """The size it was scored at, px."""
        return self.model.imgsz


@dataclass(frozen=True)
class Verdict:
    """What the gate found."""

    passed: bool
    headline: str
    rows: list[Row] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    start_takes_over: bool = False  # no champion, and the starting weights are as good
    rule: str = RULE
    champion: str | None = None  # the version that it was judged against


def judge(run: Run, *, force: bool = False) -> Verdict:
    """Measure a run's weights, those it started from and the champion's on the test split.

    The candidate's scores go to its run as ``test_…`` metrics, and that it was judged as a tag.
    With ``force`` what can't be judged is left out and said.

    Raises:
        RegistryError: When the run was trained on other data, or its first weights are gone.
    """
    tags, imgsz, name = run.data.tags, int(run.data.params["imgsz"]), str(run.info.run_name)
    reigning, notes = _reigning()
    is_champion = reigning is not None and reigning.run_id == run.info.run_id
    held = None if reigning is None else str(reigning.version)
    try:
        require_current(tags["dataset_md5"])
    except DatasetError as error:
        fault = f"{name} was trained on other data: {error}"
        if not force:
            raise RegistryError(f"{fault}{_anyway(run)}") from error
        return Verdict(False, "Not judged.", reasons=[fault], champion=held)
    start = None
    if tags["weights_sha256"] != SCRATCH:
        start = kept(tags["weights_sha256"])
        if not start.is_file():
            fault = (
                f"{name} started from {tags['weights']}, which this checkout does not hold: run "
                "make baseline with WEIGHTS set to it"
            )
            if not force:
                raise RegistryError(f"{fault}{_anyway(run)}")
            notes.append(f"left out: {fault}")
            start = None
    configure_libraries()
    with tempfile.TemporaryDirectory() as temporary, workspace(FOLDER) as (work, data):
        folder = Path(temporary)
        labels = scoring.read_labels(data, "test")

        def measured(label: str, weights: Path, size: int) -> tuple[Model, Detections]:
            found = scoring.detect(weights, data, size, "test", work, labels)
            return Model(label, scoring.measure(found, labels, size)), found

        candidate, boxes = measured(
            f"{name} (candidate)", weights_of(run.info.run_id, folder / "new"), imgsz
        )
        if not candidate.scored.known:
            fault = f"{name} knows none of the classes {', '.join(labels.classes)}"
            if not force:
                raise RegistryError(f"{fault}{_anyway(run)}")
            return Verdict(False, "Not judged.", reasons=[*notes, fault], champion=held)
        champions = None
        if reigning is not None and not is_champion:
            owner = MlflowClient().get_run(reigning.run_id)
            label = f"{owner.info.run_name} (champion, version {reigning.version})"
            try:
                weights = champion_weights(reigning, folder / "old")
                champions, _ = measured(label, weights, int(owner.data.params["imgsz"]))
            except RegistryError as error:  # it must not keep its successor out for ever
                notes.append(f"the champion, version {reigning.version}, is left out: {error}")
        starting = None
        if start is not None:
            starting, _ = measured(f"{tags['weights']}, untrained", start, imgsz)
            if not starting.scored.known:
                notes.append(f"{tags['weights']} knows none of the data's classes: left out")
                starting = None
            elif tags.get("dataset") == "coco128" and _knows_coco(start):
                notes.append(
                    f"{tags['weights']} has seen the test images: COCO128 is part of the set that "
                    "it was trained on"
                )
        by_chance = None
        if champions is None and (starting is None or starting.scored.missing):
            by_chance = _chance(boxes, labels, imgsz, notes)
        split = _content(data)
    client = MlflowClient()
    for score, value in candidate.scores.items():
        if run.data.metrics.get(f"test_{score}") != value:  # judged before
            client.log_metric(run.info.run_id, f"test_{score}", value)
    client.set_tag(run.info.run_id, f"{JUDGED}{split}", "yes")
    notes.append(_judged_before(run, split))
    verdict = decide(
        candidate,
        champion=champions,
        start=starting,
        chance=by_chance,
        is_champion=is_champion,
        undone=_undone(run),
    )
    return Verdict(
        verdict.passed,
        verdict.headline,
        verdict.rows,
        [*verdict.reasons, *notes, *([] if verdict.passed else [_command(run)])],
        verdict.start_takes_over and reigning is None,
        champion=held,
    )


def check_export(verdict: Verdict, run: Run, settings: Settings) -> Verdict:
    """Refuse what would be promoted where the model made of it has lost too much; give the figures.

    Args:
        verdict: What ``judge`` found.
        run: The run that it judged.
        settings: Of this checkout.
    """
    if not (verdict.passed or verdict.start_takes_over):
        return verdict
    tags = run.data.tags
    if verdict.passed:
        folder = made_of(run, settings)
    else:
        folder = make_model(
            kept(tags["weights_sha256"]), as_yaml(starting_parameters(run)),
            int(run.data.params["imgsz"]), class_names(FOLDER), settings,
        )  # fmt: skip
    found = fidelity_of(folder, tags["dataset_md5"])
    said = f"{str(found)[:1].upper()}{str(found)[1:]}"
    if not found.lost:
        return replace(verdict, reasons=[*verdict.reasons, said])
    command = [_command(run)] if verdict.passed else []
    return replace(
        verdict,
        passed=False,
        start_takes_over=False,
        headline="Refused: the exported model is worse than its checkpoint.",
        reasons=[*verdict.reasons, said, *command],
    )


def decide(
    candidate: Model,
    *,
    champion: Model | None = None,
    start: Model | None = None,
    chance: Model | None = None,
    is_champion: bool = False,
    undone: bool = False,
) -> Verdict:
    """Apply the rule; ``undone`` says that a rollback took this candidate out of use."""
    rows = [Row(candidate)]
    if is_champion:
        return Verdict(False, "Nothing to promote: the best run is the champion already.", rows)
    knows_all = start is not None and not start.scored.missing
    rival = champion or (start if knows_all else chance)
    reasons = []
    for model in (start, champion, chance if rival is chance else None):
        if model is not None:
            found = _compared(candidate, model)
            rows.append(Row(model, found))
            reasons.append(_sentence(candidate, model, found, is_rival=model is rival))
    outcomes = {id(row.model): row.against.outcome for row in rows if row.against}
    better = rival is not None and outcomes[id(rival)] == "better"
    not_worse = start is None or outcomes[id(start)] != "worse"
    passed = better and not_worse and not undone
    takes_over = champion is None and not passed and knows_all and not undone
    if rival is None:
        reasons.append("There is nothing to compare with: chance needs two labelled test images")
    if undone:
        reasons.append("make rollback took this run out of use")
    if passed:
        headline = "Promoted to champion."
    elif takes_over and start is not None:
        headline = f"Refused: {start.name.removesuffix(', untrained')} itself becomes champion."
    else:
        headline = "Refused: the champion stays as it is." if champion else "Refused: no champion."
    return Verdict(passed, headline, rows, reasons, takes_over)


def _compared(candidate: Model, other: Model) -> Comparison:
    """Compare on the classes that the other knows, where it is not the rival with all of them."""
    first, second = candidate.scored.matches, other.scored.matches
    if second.missing and "untrained" in other.name:
        first, second = first.only(second.known), second.only(second.known)
    return compare(first, second)


def _sentence(candidate: Model, other: Model, found: Comparison, *, is_rival: bool) -> str:
    text = (
        f"{found.outcome[:1].upper()}{found.outcome[1:]} "
        f"{'from' if found.outcome.startswith('not') else 'than'} {other.name}"
        f"{' (the rival)' if is_rival else ''}: {found.difference:+.4f} mAP50, {INTERVAL} "
        f"{found.low:+.4f} to {found.high:+.4f} over {found.images} images"
    )
    if found.outcome == "not distinguishable":
        text += (
            f"; such a difference would take about {found.needed:,} test images"
            if found.needed
            else "; there is no difference at all"
        )
    if other.scored.missing:
        text += f"; {other.name} does not know {', '.join(other.scored.missing)}"
    return text


def _reigning() -> tuple[ModelVersion | None, list[str]]:
    """Return the champion, None where there is none or its run was deleted, which is said."""
    version = champion()
    if version is None or not whereabouts(str(version.run_id)):
        return version, []
    return None, [
        f"the champion, version {version.version}, is left out: its run was deleted in MLflow"
    ]


def _undone(run: Run) -> bool:
    query = f"run_id = '{run.info.run_id}'"
    return any(ROLLED_BACK in v.tags for v in MlflowClient().search_model_versions(query))


def _chance(boxes: Detections, labels: Labels, imgsz: int, notes: list[str]) -> Model | None:
    try:
        shuffled = scoring.by_chance(boxes, labels)
    except ScoringError as error:
        notes.append(str(error))
        return None
    return Model(
        "chance (the candidate's boxes on other images)", scoring.measure(shuffled, labels, imgsz)
    )


def _judged_before(run: Run, split: str) -> str:
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    query = f"tags.{JUDGED}{split} = 'yes'"
    found = client.search_runs(
        [experiment.experiment_id], query, run_view_type=ViewType.ALL, max_results=10_000
    )
    count = len({other.info.run_id for other in found} | {run.info.run_id})
    return (
        f"{count} candidate{' has' if count == 1 else 's have'} been judged on this test split: "
        "the more are, the likelier it is that one passes by luck"
    )


def _content(data: Path) -> str:
    """Return a hash of the test split's images and labels."""
    digest = hashlib.sha256()
    for kind in ("images", "labels"):
        for file in sorted((data / kind / "test").rglob("*")):
            if file.is_file() and file.suffix != ".cache":
                digest.update(file.relative_to(data).as_posix().encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _knows_coco(weights: Path) -> bool:
    names = load(weights).names
    return len(names) == 80 and names[0] == "person" and names[79] == "toothbrush"


def _command(run: Run) -> str:
    return f"To promote it anyway: make promote RUN={run.info.run_id} FORCE=1 REASON='…'"


def _anyway(run: Run) -> str:
    return f". {_command(run)}"
