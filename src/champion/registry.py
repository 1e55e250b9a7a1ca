"""The model registry: who is champion, promotion, and the way back.

MLflow's registry is the authority: the data set's model (the lab's is ``person-detector``), whose
alias ``champion`` is in use and whose alias ``previous`` was before.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from src import mlflow_pages
from src.champion import model
from src.champion.build import build, fidelity
from src.datasets import FOLDER, SET, DatasetError
from src.datasets.manifest import class_names
from src.datasets.versioning import require_current
from src.errors import UserError
from src.files import discard, private_folder, sha256, unfinished, write_private
from src.settings import Settings
from src.training.provenance import TRAINED
from src.training.tracking import EXPERIMENT
from src.training.trainer import configure_libraries, workspace

MODEL = SET.model
CHAMPION = model.CHAMPION
PREVIOUS = "previous"
WEIGHTS = "weights/best.pt"
ROLLED_BACK = "rolled_back"  # the tag of a version that a rollback took out of use
REPLACES = "replaces"  # the tag, while a rollback is at it, of the version that it brings back
STARTING = "starting_checkpoint"  # the tag of a run that is a checkpoint as it came, not a training
MOST_LOST = 0.002  # of mAP50, between a checkpoint and the model exported from it


class RegistryError(UserError):
    """A run or version can't be used; the message says what to do."""


def champion(alias: str = CHAMPION) -> ModelVersion | None:
    """Return the version under an alias, None where there is none."""
    return model.at_alias(MlflowClient(), MODEL, alias)


def find_run(name_or_id: str) -> Run:
    """Return a finished run by its id, or the latest of that name; raises ``RegistryError``."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
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
        raise RegistryError(f"RUN={name_or_id}: no finished run of that name or id in {EXPERIMENT}")
    return found[0]


def weights_of(run_id: str, folder: Path) -> Path:
    """Return a run's best weights, downloaded into ``folder`` unless they are there.

    Raises:
        RegistryError: When they are not those that the run's tag tells.
    """
    tags = MlflowClient().get_run(run_id).data.tags
    name, expected = tags.get("mlflow.runName", run_id), tags.get(TRAINED)
    if expected is None:
        raise RegistryError(
            f"{name} has no tag {TRAINED} to check its weights against: it was trained by an "
            "earlier version, or somebody has taken it away: train it again"
        )
    weights = folder / WEIGHTS
    if not weights.is_file() or sha256(weights) != expected:
        folder.mkdir(parents=True, exist_ok=True)
        fetched = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=WEIGHTS, dst_path=str(folder)
        )
        weights = Path(fetched)
    if (digest := sha256(weights)) != expected:
        weights.unlink()
        raise RegistryError(
            f"{WEIGHTS} of {name} was changed after the training: SHA-256 {digest} is not its "
            f"{TRAINED}: refused"
        )
    return weights


def champion_weights(version: ModelVersion, folder: Path) -> Path:
    """Return a registered version's weights as they were promoted; raises ``RegistryError``."""
    weights = weights_of(str(version.run_id), folder)
    promoted = version.tags.get(TRAINED)
    if promoted not in (None, sha256(weights)):
        weights.unlink()
        raise RegistryError(
            f"the weights of {MODEL} version {version.version} were changed after the promotion: "
            "refused; make rollback, or promote another run"
        )
    return weights


@dataclass(frozen=True)
class Usable:
    """A version whose files are here and are what was registered."""

    version: ModelVersion
    folder: Path  # of ``model.onnx``, ``labels.json``, ``best.pt`` and ``args.yaml``


def usable_champion(settings: Settings) -> Usable:
    """Return the champion, its files fetched and checked; raises ``UserError``.

    A version of an earlier release, which is a checkpoint alone, is made into a model here.
    """
    version = champion()
    if version is None:
        raise RegistryError(f"{MODEL} has no {CHAMPION} yet: make report, or make promote RUN=…")
    if model.recorded(version) is not None:
        return Usable(version, model.fetch(version, models_folder(settings)) / "artifacts")
    run = MlflowClient().get_run(str(version.run_id))
    return Usable(version, made_of(run, settings, version))


def models_folder(settings: Settings) -> Path:
    """Return where this checkout keeps models of the registry."""
    return settings.backend_state / "models"


def make_model(
    weights: Path, arguments: str, imgsz: int, classes: Sequence[str], settings: Settings
) -> Path:
    """Return the folder of the model that ``build`` makes of a checkpoint, made where it isn't."""
    folder = _place(sha256(weights), imgsz, classes, settings)
    if folder.is_dir():
        return folder
    private_folder(folder.parent)
    with unfinished(folder.parent) as temporary:
        work = temporary / "model"
        work.mkdir()
        build(weights, arguments, imgsz, classes, work)
        try:
            work.rename(folder)
        except OSError:
            if not folder.is_dir():  # made by another process meanwhile
                raise
    model.forget_older(folder.parent, "made-*")
    return folder


def _place(digest: str, imgsz: int, classes: Sequence[str], settings: Settings) -> Path:
    named = hashlib.sha256(json.dumps(list(classes)).encode()).hexdigest()
    return models_folder(settings) / f"made-{digest[:16]}-{imgsz}-{named[:8]}"


def made_of(run: Run, settings: Settings, version: ModelVersion | None = None) -> Path:
    """Return the folder of the model made of a run's weights, fetched only where it isn't made."""
    imgsz, digest = int(run.data.params["imgsz"]), run.data.tags.get(TRAINED)
    classes = class_names(FOLDER) if STARTING in run.data.tags else []  # a training's are its own
    if digest is not None and (folder := _place(digest, imgsz, classes, settings)).is_dir():
        return folder
    with tempfile.TemporaryDirectory() as temporary:
        weights = _weights(run, version, Path(temporary))
        return make_model(weights, arguments_of(run), imgsz, classes, settings)


def _weights(run: Run, version: ModelVersion | None, folder: Path) -> Path:
    """Return a run's weights, unchecked only where an earlier release kept no hash of them.

    That runs nothing: see ``src.checkpoints``.
    """
    if TRAINED in run.data.tags:
        return champion_weights(version, folder) if version else weights_of(run.info.run_id, folder)
    if version is None or TRAINED in version.tags:
        return weights_of(run.info.run_id, folder)  # which refuses it
    print(
        f"{run.info.run_name} was tracked by an earlier release, which kept no hash of its "
        "weights: they are taken as they are",
        file=sys.stderr,
    )
    return Path(
        mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id, artifact_path=WEIGHTS, dst_path=str(folder)
        )
    )


def arguments_of(run: Run) -> str:
    """Return the training's arguments as YAML, or the run's parameters where it kept no others."""
    if any(item.path == "args.yaml" for item in MlflowClient().list_artifacts(run.info.run_id)):
        return str(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/args.yaml"))
    return as_yaml(run.data.params)


def as_yaml(parameters: Mapping[str, str]) -> str:
    """Return parameters as JSON, which is YAML too."""
    return json.dumps(dict(parameters), indent=2) + "\n"


@dataclass(frozen=True)
class Fidelity:
    """The mAP50 of a checkpoint and of the model made of it, on the test split's square images."""

    checkpoint: float
    model: float

    @property
    def lost(self) -> bool:
        """Whether the model has lost more than it may."""
        return self.checkpoint - self.model > MOST_LOST

    def __str__(self) -> str:
        """Say both."""
        return (
            f"the exported model scores mAP50 {self.model:.4f} on the test split, its checkpoint "
            f"{self.checkpoint:.4f} on the same square input"
            f"{f': more than {MOST_LOST} is lost' if self.lost else ''}"
        )


def fidelity_of(folder: Path, dataset_md5: str) -> Fidelity:
    """Measure the model in ``folder`` beside its checkpoint, once for each version of the data set.

    Raises:
        DatasetError: When that version is not the one that is here.
    """
    record = folder / "fidelity.json"
    with suppress(FileNotFoundError, ValueError, KeyError):  # it may be torn
        known = json.loads(record.read_bytes())
        if known["dataset_md5"] == dataset_md5:
            return Fidelity(known["checkpoint"], known["model"])
    require_current(dataset_md5)
    configure_libraries()
    with workspace(FOLDER) as (work, data):
        found = Fidelity(*fidelity(folder, data, "test", work))
    write_private(record, json.dumps({"dataset_md5": dataset_md5} | asdict(found)) + "\n")
    return found


def is_outdated(run: Run) -> bool:
    """Tell whether the champion is this run's, as an earlier release registered it."""
    now = champion()
    return now is not None and now.run_id == run.info.run_id and model.recorded(now) is None


def _registered(run: Run) -> ModelVersion | None:
    """Return the newest version of a run's model whose files are still what was registered."""
    query = f"name = '{MODEL}' AND run_id = '{run.info.run_id}'"
    found = MlflowClient().search_model_versions(query)
    for version in sorted(found, key=lambda item: int(item.version), reverse=True):
        if model.recorded(version) is not None and model.is_intact(version):
            return version
    return None


def _register(run: Run, settings: Settings, *, force: bool) -> ModelVersion:
    """Make and register a run's model.

    Raises:
        RegistryError: When it scores worse than the checkpoint, or that can't be measured.
    """
    now = champion()
    outdated = now if now is not None and is_outdated(run) else None
    folder = made_of(run, settings, outdated)
    tags = {TRAINED: sha256(folder / model.WEIGHTS_FILE)}
    try:
        measured = fidelity_of(folder, run.data.tags["dataset_md5"])
    except DatasetError as error:
        if not force:
            raise RegistryError(
                f"the exported model can't be compared with its checkpoint: {error}"
            ) from error
    else:
        if measured.lost and not force:
            raise RegistryError(f"{measured}: not promoted")
        tags |= {"mAP50_pt": f"{measured.checkpoint:.4f}", "mAP50_onnx": f"{measured.model:.4f}"}
    uri, hashes = model.log(run, folder)
    version = MlflowClient().create_model_version(
        MODEL, uri, run.info.run_id, tags=tags | {model.FILES_TAG: json.dumps(hashes)},
        model_id=uri.rpartition("/")[2],
    )  # fmt: skip
    discard(folder)  # what is used is what was registered
    return version


def promote(run: Run, settings: Settings, reason: str, *, force: bool = False) -> ModelVersion:
    """Register a run's model and make it the champion; the old one becomes ``previous``.

    What an earlier release registered of the same run gives way to a version that anyone can load.

    Raises:
        RegistryError: When, without ``force``, the model made of the weights scores worse.
    """
    client = MlflowClient()
    if not client.search_registered_models(f"name = '{MODEL}'"):
        client.create_registered_model(MODEL, description=f"Detector trained on {SET.shown}")
    old = champion()
    version = _registered(run) or _register(run, settings, force=force)
    if old is not None and old.version == version.version:
        return version
    if old is not None and old.run_id == run.info.run_id:
        old = None  # the same weights: not what one would go back to
    tags = {"reason": reason, "zenml_run": run.data.tags.get("zenml_run", "")}
    tags["dataset_md5"] = run.data.tags["dataset_md5"]
    if TRAINED in run.data.tags:
        tags[TRAINED] = run.data.tags[TRAINED]
    for name in {ROLLED_BACK, REPLACES} & version.tags.keys():
        client.delete_model_version_tag(MODEL, version.version, name)
    for name, value in tags.items():
        client.set_model_version_tag(MODEL, version.version, name, value)
    _link(run, version, settings, reason)
    if old is not None:
        client.set_registered_model_alias(MODEL, PREVIOUS, old.version)
    # Last: of a champion nothing is left to do.
    client.set_registered_model_alias(MODEL, CHAMPION, version.version)
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
    if (replaced := now.tags.get(REPLACES)) is not None:  # a rollback was killed in between
        before, now = now, client.get_model_version(MODEL, replaced)
    client.set_model_version_tag(MODEL, before.version, REPLACES, str(now.version))
    # The gate does not promote again what was undone here; make promote FORCE=1 does.
    client.set_model_version_tag(MODEL, now.version, ROLLED_BACK, "yes")
    client.set_registered_model_alias(MODEL, CHAMPION, before.version)
    client.set_registered_model_alias(MODEL, PREVIOUS, now.version)
    if ROLLED_BACK in before.tags:
        client.delete_model_version_tag(MODEL, before.version, ROLLED_BACK)
    client.delete_model_version_tag(MODEL, before.version, REPLACES)
    return before, now


def starting_run(run: Run, weights: Path, scores: Mapping[str, float]) -> Run:
    """Return an MLflow run of the checkpoint that ``run`` started from, made where there is none.

    With it the checkpoint can be registered, used and rolled back like any training. It has the
    image size of ``run``, at which it was scored.
    """
    client = MlflowClient()
    imgsz, origin = run.data.params["imgsz"], run.data.tags
    experiment = client.get_experiment_by_name(EXPERIMENT)
    identity = f"{origin['weights_sha256'][:16]} {imgsz} {origin['dataset_md5']}"
    found = client.search_runs(
        [experiment.experiment_id],
        f"tags.{STARTING} = '{identity}'",
        max_results=1,
    )
    if found and found[0].info.status == "FINISHED":
        return found[0]
    kept = ("dataset", "dataset_md5", "weights", "weights_sha256", "git_commit")
    tags = {name: origin[name] for name in kept if name in origin}
    tags[TRAINED] = origin["weights_sha256"]  # as they came
    tags[STARTING] = identity
    made = (  # one that was begun is finished
        found[0]
        if found
        else client.create_run(
            experiment.experiment_id, run_name=f"{origin['weights']}_{imgsz}", tags=tags
        )
    )
    run_id = made.info.run_id
    for name, value in starting_parameters(run).items():
        client.log_param(run_id, name, value)
    for name, number in scores.items():
        if f"test_{name}" not in made.data.metrics:
            client.log_metric(run_id, f"test_{name}", number)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(WEIGHTS).name
        shutil.copyfile(weights, file)
        client.log_artifact(run_id, str(file), str(Path(WEIGHTS).parent))
    client.set_terminated(run_id)  # last: whoever finds it so, finds it whole
    return client.get_run(run_id)


def starting_parameters(run: Run) -> dict[str, str]:
    """Return the parameters of the run of a checkpoint as it came, which ``run`` started from."""
    imgsz, weights = run.data.params["imgsz"], run.data.tags["weights"]
    return {"imgsz": imgsz, "model": weights, "epochs": "0"}


def version_url(settings: Settings, version: ModelVersion) -> str:
    """Return a version's page in MLflow."""
    return mlflow_pages.version(settings, MODEL, version.version)


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
        (artifact,) = zenml_run.steps["train_yolo_tiny"].outputs["yolo_weights"]
        # A promotion that was killed may have done so.
        if not metadata.items() <= zenml_run.run_metadata.items():
            log_metadata(metadata=metadata, run_id_name_or_prefix=zenml_run.id)
        if not metadata.items() <= artifact.run_metadata.items():
            log_metadata(metadata=metadata, artifact_version_id=artifact.id)
