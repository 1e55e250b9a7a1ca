"""The champion as an MLflow model: made, registered with its files' hashes, fetched, checked.

The model runs anywhere without PyTorch and Ultralytics (``pyfunc.py``, ``detector.py``). What comes
back from the artifact store is trusted only as far as the hashes on the registered version reach,
and no code that comes from there is run here: ``predict`` and ``serve`` use the checkout's own
``detector.py`` over ``model.onnx``.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from src.champion.detector import CONF, IOU, LABELS_FILE, MAX_DET, MODEL_FILE, Detector
from src.errors import UserError
from src.files import discard, private_folder, sha256, unfinished, write_private

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

WEIGHTS_FILE, ARGUMENTS_FILE = "best.pt", "args.yaml"
REQUIREMENTS = ("mlflow-skinny", "pandas", "onnxruntime", "numpy", "pillow")
NAME = "detector"  # of the logged model, in MLflow's page
FILES_TAG = "files_sha256"
ADDED = "registered_model_meta"  # MLflow's client adds it to what it downloads
CODE = Path(__file__).parent
CHAMPION = "champion"  # the alias of the version in use
KEPT = 3  # versions that stay in a cache: the champion, the one before, and a candidate


class ModelError(UserError):
    """A registered model can't be made or used; the message says what to do."""


class ChangedError(ModelError):
    """A file of a registered model is not what was registered."""


def signature() -> ModelSignature:
    """Return what the model takes and gives: one column of pictures, never paths or addresses."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, DataType

    numbers = Array(DataType.double)
    return ModelSignature(
        Schema([ColSpec("binary", "image")]),
        Schema(
            [
                ColSpec(Array(numbers), "boxes"),
                ColSpec(Array(DataType.string), "classes"),
                ColSpec(numbers, "confidences"),
            ]
        ),
        ParamSchema(
            [
                ParamSpec("conf", "double", CONF),
                ParamSpec("iou", "double", IOU),
                ParamSpec("max_det", "long", MAX_DET),
            ]
        ),
    )


def log(run: Run, folder: Path) -> tuple[str, dict[str, str]]:
    """Log ``folder``, as ``build`` made it, as the run's model; return its URI and files' SHA-256.

    What a killed one has begun is finished: MLflow's own ``log_model`` would begin another.

    Raises:
        ModelError: When the artifact store gives back other bytes than it was given.
    """
    import pandas as pd
    from mlflow.models import Model

    given = {Path(name).stem: name for name in (MODEL_FILE, LABELS_FILE, ARGUMENTS_FILE)}
    given["weights"] = WEIGHTS_FILE
    client = MlflowClient()
    logged = _begin(run)
    told = {"run_id": run.info.run_id, "model_uuid": logged.model_id, "model_id": logged.model_id}
    with tempfile.TemporaryDirectory() as temporary:
        made, back = Path(temporary) / "made", Path(temporary) / "back"
        back.mkdir()
        mlflow.pyfunc.save_model(
            path=str(made),
            mlflow_model=Model(artifact_path=logged.artifact_location, **told),
            python_model=str(CODE / "pyfunc.py"),
            code_paths=[str(CODE / "detector.py")],
            artifacts={name: str(folder / file) for name, file in given.items()},
            pip_requirements=[
                f"{name}=={importlib.metadata.version(name)}" for name in REQUIREMENTS
            ],
            signature=signature(),
            input_example=pd.DataFrame({"image": [_example()]}),
        )
        client.log_model_artifacts(logged.model_id, str(made))
        client.finalize_logged_model(logged.model_id, "READY")
        held = mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=str(back))
        hashes = hashes_of(Path(held))
        ours = [folder / file for file in given.values()]
        ours += [CODE / "pyfunc.py", CODE / "detector.py"]
        stored = {Path(name).name: digest for name, digest in hashes.items()}
        for file in ours:
            if stored.get(file.name) != sha256(file):
                raise ModelError(f"the artifact store gave back another {file.name}: try again")
    return str(logged.model_uri), hashes


def _begin(run: Run) -> LoggedModel:
    """Return the run's logged model, the one that was begun or a new one, with its last scores."""
    client, run_id = MlflowClient(), run.info.run_id
    if left := begun(run):
        logged, *others = left
        for other in others:  # of earlier releases
            client.delete_logged_model(other.model_id)
    else:
        logged = client.create_logged_model(
            run.info.experiment_id, name=NAME, source_run_id=run_id, params=run.data.params
        )
    step = int(run.data.params.get("epochs", 0))
    outputs = client.get_run(run_id).outputs
    linked = {item.model_id for item in outputs.model_outputs} if outputs else set()
    if logged.model_id not in linked:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step)])
    last = [
        Metric(m.key, m.value, m.timestamp, m.step, model_id=logged.model_id, run_id=run_id)
        for name in run.data.metrics
        for m in client.get_metric_history(run_id, name)
        if m.step == step and m.model_id is None
    ]
    client.log_batch(run_id, metrics=last)
    return logged


def begun(run: Run) -> list[LoggedModel]:
    """Return models of the run that were logged, or begun, and never registered: of a kill."""
    client = MlflowClient()
    versions = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    registered = {version.source for version in versions}
    found = client.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run.info.run_id}' AND name = '{NAME}'"
    )
    return [item for item in found if item.model_uri not in registered]


def hashes_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a model by its path in ``folder``."""
    return {
        file.relative_to(folder).as_posix(): sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ADDED
    }


def at_alias(client: MlflowClient, name: str, alias: str = CHAMPION) -> ModelVersion | None:
    """Return the version under a registered model's alias, None where there is none."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def recorded(version: ModelVersion) -> dict[str, str] | None:
    """Return the hashes on a registered version; None for one of an earlier release."""
    text = version.tags.get(FILES_TAG)
    return json.loads(text) if text else None


def check(folder: Path, version: ModelVersion) -> None:
    """Raise ``ChangedError`` unless ``folder`` holds exactly the files that were registered."""
    found, hashes = hashes_of(folder), recorded(version) or {}
    wrong = sorted(
        name for name in found.keys() | hashes.keys() if found.get(name) != hashes.get(name)
    )
    if wrong:
        raise ChangedError(
            f"{version.name} version {version.version} is not what was registered: "
            f"{', '.join(wrong)} (SHA-256). Somebody changed it in the artifact store: make "
            f"rollback, or register it again: make promote RUN={version.run_id} FORCE=1 REASON='…'"
        )


def _download(version: ModelVersion, folder: Path) -> Path:
    """Download a version's files and check them; return where in ``folder`` they are."""
    address = f"models:/{version.name}/{version.version}"
    try:
        held = Path(mlflow.artifacts.download_artifacts(address, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise ModelError(
            f"{version.name} version {version.version} can't be fetched from MLflow: {error}"
        ) from error
    check(held, version)
    return held


def is_intact(version: ModelVersion) -> bool:
    """Tell whether the artifact store still holds what was registered."""
    with tempfile.TemporaryDirectory() as temporary:
        try:
            _download(version, Path(temporary))
        except ChangedError:
            return False
    return True


def fetch(version: ModelVersion, cache: Path) -> Path:
    """Return the folder of a version's files, downloaded where it isn't yet, checked each time.

    Raises:
        ModelError: When the store doesn't answer, or a file is not what was registered.
    """
    hashes = recorded(version)
    if hashes is None:
        raise ModelError(
            f"{version.name} version {version.version} was registered by an earlier release: "
            f"make promote RUN={version.run_id} makes a model of it"
        )
    folder = cache / f"{version.name}-{version.version}"
    if folder.is_dir() and hashes_of(folder) == hashes:
        return folder
    private_folder(cache)
    with unfinished(cache) as temporary:
        held = _download(version, temporary)
        shutil.rmtree(folder, ignore_errors=True)
        held.touch()
        held.replace(folder)
    forget_older(cache, f"{version.name}-*")
    return folder


def forget_older(cache: Path, pattern: str) -> None:
    """Delete what nobody will ask for soon: all but the ``KEPT`` folders that came last."""
    found = sorted(cache.glob(pattern), key=lambda folder: folder.stat().st_mtime)
    for folder in found[:-KEPT]:
        discard(folder)


def load(version: ModelVersion, cache: Path, threads: int = 0) -> Detector:
    """Return a version's detector: ``fetch``, then our own code over its ``model.onnx``."""
    return Detector.load(fetch(version, cache) / "artifacts", threads)


def remember(version: ModelVersion, cache: Path) -> None:
    """Keep what ``remembered`` returns: the version that was good last."""
    text = json.dumps(
        {"name": version.name, "version": version.version, "run_id": version.run_id,
         FILES_TAG: version.tags[FILES_TAG]}
    )  # fmt: skip
    write_private(cache / "champion.json", text + "\n")


def remembered(cache: Path) -> ModelVersion | None:
    """Return the version that was good last, for a start while MLflow is down."""
    from mlflow.entities.model_registry import ModelVersionTag

    try:
        kept: dict[str, Any] = json.loads((cache / "champion.json").read_bytes())
        name, version, run = kept["name"], kept["version"], kept["run_id"]
        tags = [ModelVersionTag(FILES_TAG, kept[FILES_TAG])]
    except (FileNotFoundError, ValueError, KeyError):  # it may be torn
        return None
    return ModelVersion(name, version, 0, run_id=run, tags=tags)


def _example() -> bytes:
    """Return a small grey picture as PNG: the signature's example."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (32, 32), (114, 114, 114)).save(file, "PNG")
    return file.getvalue()
