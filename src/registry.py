"""The model registry: the gate, promotion, and the way back.

MLflow's registry is the authority: ``person-detector``, whose alias ``champion`` is in use and
whose alias ``previous`` was before. ``python -m src.registry promote RUN`` and ``… rollback``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from src import train_cv
from src.datasets import FOLDER, DatasetError
from src.datasets.versioning import require_current
from src.inputs import SCRATCH, kept_weights
from src.settings import Settings, SettingsError, load_settings, use_stack

MODEL = "person-detector"
CHAMPION = "champion"
PREVIOUS = "previous"
WEIGHTS = "weights/best.pt"
RULE = (
    "The rule: on the held-out test split, the candidate's mAP50 must be above that of the weights "
    "it started from and above that of the current champion. Candidate and champion are scored at "
    "the image size they were trained at, the untrained weights at the candidate's."
)


class RegistryError(Exception):
    """A run or version can't be used; the message says what to do."""


@dataclass(frozen=True)
class Row:
    """One model's scores on the test split."""

    name: str
    scores: train_cv.Metrics
    imgsz: int


@dataclass(frozen=True)
class Verdict:
    """What the gate found."""

    passed: bool
    headline: str
    rows: list[Row]
    reasons: list[str]
    rule: str = RULE


def champion(alias: str = CHAMPION) -> ModelVersion | None:
    """Return the version under an alias, None where there is none."""
    try:
        return MlflowClient().get_model_version_by_alias(MODEL, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def find_run(name_or_id: str) -> Run:
    """Return a finished run by its id, or the latest of that name; raises ``RegistryError``."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name(train_cv.EXPERIMENT)
    query = f"attributes.run_name = '{name_or_id}'"
    if name_or_id.isalnum() and len(name_or_id) == 32:
        query = f"attributes.run_id = '{name_or_id}'"
    found = (
        client.search_runs(
            [experiment.experiment_id],
            f"{query} AND attributes.status = 'FINISHED'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        if experiment and "'" not in name_or_id
        else []
    )
    if not found:
        raise RegistryError(
            f"RUN={name_or_id}: no finished run of that name or id in {train_cv.EXPERIMENT}"
        )
    return found[0]


def weights_of(run_id: str, folder: Path) -> Path:
    """Download a run's best weights into ``folder``."""
    return Path(
        mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=WEIGHTS, dst_path=folder)
    )


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
        untrained = kept_weights(tags["weights_sha256"])
        if not untrained.is_file():
            raise RegistryError(
                f"{run.info.run_name} started from {tags['weights']}, which this checkout does not "
                "hold: run make baseline with WEIGHTS set to it"
            )
    name = f"{run.info.run_name} (candidate)"
    reigning = champion()
    with tempfile.TemporaryDirectory() as temporary, train_cv.workspace(FOLDER) as (work, data):
        folder = Path(temporary)
        candidate = _row(name, weights_of(run.info.run_id, folder / "new"), imgsz, data, work)
        rows = [candidate]
        if untrained is not None:
            rows.append(_row(f"{tags['weights']}, untrained", untrained, imgsz, data, work))
        if reigning is not None and reigning.run_id != run.info.run_id:
            held = MlflowClient().get_run(reigning.run_id)
            rows.append(
                _row(
                    f"{held.info.run_name} (champion, version {reigning.version})",
                    weights_of(reigning.run_id, folder / "old"),
                    int(held.data.params["imgsz"]),
                    data,
                    work,
                )
            )
    for score, value in candidate.scores.items():
        MlflowClient().log_metric(run.info.run_id, f"test_{score}", value)
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


def promote(run: Run, settings: Settings, reason: str) -> ModelVersion:
    """Register a run's weights and make them the champion; the old one becomes ``previous``."""
    client = MlflowClient()
    if not client.search_registered_models(f"name = '{MODEL}'"):
        client.create_registered_model(MODEL, description="Person detector (YOLOv8n)")
    found = client.search_model_versions(f"name = '{MODEL}' AND run_id = '{run.info.run_id}'")
    version = (
        found[0]
        if found
        else client.create_model_version(
            MODEL, f"{run.info.artifact_uri}/{Path(WEIGHTS).parent}", run.info.run_id
        )
    )
    old = champion()
    if old is not None and old.version == version.version:
        return version
    tags = {"reason": reason, "zenml_run": run.data.tags.get("zenml_run", "")}
    tags["dataset_md5"] = run.data.tags["dataset_md5"]
    for name, value in tags.items():
        client.set_model_version_tag(MODEL, version.version, name, value)
    if old is not None:
        client.set_registered_model_alias(MODEL, PREVIOUS, old.version)
    client.set_registered_model_alias(MODEL, CHAMPION, version.version)
    _link(run, version, settings, reason)
    return version


def rollback() -> tuple[ModelVersion, ModelVersion]:
    """Make the previous champion the champion again; return the new and the replaced version.

    Raises:
        RegistryError: When there is no previous one.
    """
    now, before = champion(), champion(PREVIOUS)
    if now is None or before is None:
        raise RegistryError(f"{MODEL} has no previous champion to go back to")
    client = MlflowClient()
    client.set_registered_model_alias(MODEL, CHAMPION, before.version)
    client.set_registered_model_alias(MODEL, PREVIOUS, now.version)
    return before, now


def version_url(settings: Settings, version: ModelVersion) -> str:
    """Return a version's page in MLflow."""
    return f"{settings.mlflow_url}/#/models/{MODEL}/versions/{version.version}"


def _row(name: str, weights: Path, imgsz: int, data: Path, work: Path) -> Row:
    scores = train_cv.score(str(weights), data, imgsz, "test", work)
    if scores is None:
        raise RegistryError(f"{name} knows no class person")
    return Row(name, scores, imgsz)


def _link(run: Run, version: ModelVersion, settings: Settings, reason: str) -> None:
    """Point from the ZenML run, and from its model artifact, to the registered version."""
    from zenml import log_metadata
    from zenml.client import Client

    metadata = {
        "mlflow_model": f"{MODEL} version {version.version}",
        "mlflow_model_url": version_url(settings, version),
        "mlflow_model_reason": reason,
    }
    name = run.data.tags.get("zenml_run")
    for zenml_run in Client().list_pipeline_runs(name=name) if name else ():
        log_metadata(metadata=metadata, run_id_name_or_prefix=zenml_run.id)
        (artifact,) = zenml_run.steps["train_yolo_tiny"].outputs["yolo_weights"]
        log_metadata(metadata=metadata, artifact_version_id=artifact.id)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m src.registry", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    promotion = commands.add_parser("promote", help="make a run's weights the champion")
    promotion.add_argument("run", help="an MLflow run's id or name")
    promotion.add_argument("--force", action="store_true", help="whatever the gate says")
    promotion.add_argument("--reason", default="", help="why; needed with --force")
    commands.add_parser("rollback", help="go back to the previous champion")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        use_stack(settings)
        if arguments.command == "rollback":
            now, replaced = rollback()
            print(f"{MODEL}: champion is version {now.version} again, was {replaced.version}")
            return 0
        run = find_run(arguments.run)
        if arguments.force and not arguments.reason:
            raise RegistryError("FORCE=1 needs a reason: make promote RUN=… FORCE=1 REASON='…'")
        verdict = judge(run)
        for row in verdict.rows:
            print(f"  {row.scores['mAP50']:.4f}  {row.name}, test split at {row.imgsz} px")
        for reason in verdict.reasons:
            print(f"  {reason}")
        if not verdict.passed and not arguments.force:
            print(verdict.headline)
            return 0
        why = arguments.reason or "; ".join(verdict.reasons)
        version = promote(run, settings, f"forced: {why}" if not verdict.passed else why)
        print(f"{MODEL}: champion is version {version.version}, {version_url(settings, version)}")
    except (DatasetError, RegistryError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
