"""The registered model: logged for real, loaded by MLflow itself, its files checked."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from PIL import Image

from src.champion import model, registry
from src.champion.build import build
from src.champion.detector import Detector, Thresholds
from src.champion.model import ModelError
from src.champion.registry import MODEL, RegistryError, usable_champion
from src.datasets import DatasetError
from src.decision import gate
from src.decision.gate import Verdict, check_export
from src.settings import Settings
from src.training.provenance import TRAINED
from tests.unit import tiny_model
from tests.unit.mlflow_runs import DATASET, tracked_run

pytestmark = pytest.mark.usefixtures("registry")


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (128, 64), "white").save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def version(registry: MlflowClient, tmp_path: Path) -> ModelVersion:
    """A champion, logged and registered as promote does."""
    run = tracked_run("one")
    uri, hashes = model.log(run, tiny_model.write(tmp_path / "made"))
    registry.create_registered_model(MODEL)
    made = registry.create_model_version(
        MODEL, uri, run.info.run_id, tags={model.FILES_TAG: json.dumps(hashes)},
        model_id=uri.rpartition("/")[2],
    )  # fmt: skip
    registry.set_registered_model_alias(MODEL, "champion", made.version)
    return registry.get_model_version(MODEL, made.version)


def test_mlflow_loads_it_without_this_project(version: ModelVersion, tmp_path: Path) -> None:
    """In a process of its own that finds neither src nor PyTorch nor Ultralytics."""
    (tmp_path / "picture.png").write_bytes(picture())
    code = """
import sys
for name in ("torch", "ultralytics", "cv2", "src"):
    sys.modules[name] = None
import mlflow, pandas as pd
loaded = mlflow.pyfunc.load_model("models:/person-detector@champion")
data = pd.DataFrame({"image": [open("picture.png", "rb").read()]})
print(loaded.predict(data).to_json(orient="records"))
print(loaded.predict(data, params={"conf": 0.95}).to_json(orient="records"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "PATH": "/usr/bin:/bin",
             "HOME": str(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true"},
    )  # fmt: skip
    found, nothing = (json.loads(line)[0] for line in done.stdout.splitlines())
    assert found["boxes"] == [[44, 2, 84, 62]]
    assert found["classes"] == ["person"]
    assert nothing["boxes"] == []


def test_it_says_what_it_takes_and_needs(version: ModelVersion, tmp_path: Path) -> None:
    folder = model.fetch(version, tmp_path / "cache")
    needed = (folder / "requirements.txt").read_text().splitlines()
    assert [line.partition("==")[0] for line in needed] == list(model.REQUIREMENTS)
    described = (folder / "MLmodel").read_text()
    assert '"type": "binary", "name": "image"' in described
    assert "input_example.json" in described
    assert not list(folder.rglob("*.pkl"))


@pytest.mark.parametrize(
    "file",
    ["artifacts/best.pt", "artifacts/model.onnx", "artifacts/labels.json", "MLmodel", "pyfunc.py",
     "code/detector.py", "requirements.txt", "code/new.py"],
)  # fmt: skip
def test_a_file_replaced_in_the_store_is_refused(
    file: str, version: ModelVersion, tmp_path: Path
) -> None:
    (stored,) = (tmp_path / "artifacts").glob("models/m-*/artifacts")
    (stored / file).write_text("raise SystemExit('executed')")
    with pytest.raises(ModelError, match=re.escape(f"not what was registered: {file}")):
        model.fetch(version, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_file_replaced_in_the_cache_is_fetched_anew(
    version: ModelVersion, tmp_path: Path
) -> None:
    folder = model.fetch(version, tmp_path / "cache")
    good = (folder / "artifacts" / "model.onnx").read_bytes()
    (folder / "artifacts" / "model.onnx").write_bytes(b"other")
    assert model.fetch(version, tmp_path / "cache") == folder
    assert (folder / "artifacts" / "model.onnx").read_bytes() == good


def test_what_is_there_needs_no_store(version: ModelVersion, tmp_path: Path) -> None:
    model.fetch(version, tmp_path / "cache")
    (stored,) = (tmp_path / "artifacts").glob("models/m-*/artifacts")
    stored.rename(tmp_path / "gone")
    assert model.load(version, tmp_path / "cache").size == tiny_model.SIZE


def test_three_versions_stay_in_the_cache(version: ModelVersion, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for number in (9, 10, 11):
        folder = cache / f"{MODEL}-{number}"
        folder.mkdir(parents=True)
        os.utime(folder, (number, number))
    (cache / "another-1").mkdir()
    held = model.fetch(version, cache)
    assert {folder.name for folder in cache.iterdir()} == {
        held.name, f"{MODEL}-10", f"{MODEL}-11", "another-1"
    }  # fmt: skip


def test_a_torn_note_of_the_version_that_was_good_last_is_none(
    version: ModelVersion, tmp_path: Path
) -> None:
    model.remember(version, tmp_path)
    known = model.remembered(tmp_path)
    assert known is not None
    assert (known.name, known.version) == (version.name, version.version)
    for torn in (b"", b"\xff", b"{}"):
        (tmp_path / "champion.json").write_bytes(torn)
        assert model.remembered(tmp_path) is None


def test_a_torn_note_of_a_models_fidelity_is_measured_anew(
    made: Callable[[float, float], None], tmp_path: Path
) -> None:
    made(0.8, 0.79)
    for torn in (b"", b"\xff", b"{}"):
        (tmp_path / "fidelity.json").write_bytes(torn)
        assert registry.fidelity_of(tmp_path, DATASET) == registry.Fidelity(0.8, 0.79)
    made(0.1, 0.1)
    assert registry.fidelity_of(tmp_path, DATASET) == registry.Fidelity(0.8, 0.79)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Have models be tiny ones that score as told."""

    def measure(checkpoint: float, exported: float) -> None:
        monkeypatch.setattr(registry, "fidelity", lambda *_: (checkpoint, exported))

    def require_current(md5: str) -> None:
        if md5 != DATASET:
            raise DatasetError(f"not the version {md5}: make data")

    def build(
        weights: Path, arguments: str, imgsz: int, classes: Sequence[str], folder: Path
    ) -> None:
        tiny_model.write(folder)
        shutil.copy(weights, folder / "best.pt")

    monkeypatch.setattr(registry, "build", build)
    monkeypatch.setattr(registry, "models_folder", lambda _: tmp_path / "models")
    monkeypatch.setattr(registry, "workspace", lambda _: contextlib.nullcontext((tmp_path,) * 2))
    monkeypatch.setattr(registry, "configure_libraries", lambda: None)
    monkeypatch.setattr(registry, "require_current", require_current)
    return measure


Measure = Callable[[float, float], None]


def test_an_export_that_scores_worse_is_not_registered(settings: Settings, made: Measure) -> None:
    made(0.8, 0.797)
    with pytest.raises(RegistryError, match=r"mAP50 0\.7970 .* checkpoint 0\.8000"):
        registry.promote(tracked_run("one"), settings, "better")
    assert registry.champion() is None
    made(0.8, 0.7985)
    held = registry.promote(tracked_run("two", "0.6"), settings, "better")
    assert MlflowClient().get_model_version(MODEL, held.version).tags["mAP50_onnx"] == "0.7985"


def test_force_registers_it_with_the_figures(settings: Settings, made: Measure) -> None:
    made(0.8, 0.7)
    held = registry.promote(tracked_run("one"), settings, "forced: mine", force=True)
    tags = MlflowClient().get_model_version(MODEL, held.version).tags
    assert (tags["mAP50_pt"], tags["mAP50_onnx"]) == ("0.8000", "0.7000")


def test_what_cannot_be_compared_is_not_registered(settings: Settings, made: Measure) -> None:
    run = tracked_run("one", dataset_md5="other.dir")
    with pytest.raises(RegistryError, match=r"can't be compared .* make data"):
        registry.promote(run, settings, "better")
    registry.promote(run, settings, "forced: mine", force=True)
    assert registry.champion() is not None


def test_the_gate_refuses_an_export_that_scores_worse(settings: Settings, made: Measure) -> None:
    made(0.8, 0.797)
    passed = Verdict(True, "Promoted to champion.", reasons=["Better"])
    verdict = check_export(passed, tracked_run("one"), settings)
    assert not verdict.passed
    assert "Refused" in verdict.headline
    assert any("mAP50 0.7970" in line for line in verdict.reasons)
    assert any("FORCE=1" in line for line in verdict.reasons)
    made(0.8, 0.799)
    verdict = check_export(passed, tracked_run("two", "0.6"), settings)
    assert verdict.passed
    assert any("mAP50 0.7990" in line for line in verdict.reasons)
    refused = Verdict(False, "Refused")
    assert check_export(refused, tracked_run("three"), settings) is refused


def test_a_starting_checkpoint_is_checked_before_it_takes_over(
    settings: Settings, made: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "start.pt").write_text("start")
    monkeypatch.setattr(gate, "kept", lambda digest: tmp_path / f"{digest}.pt")
    made(0.8, 0.7)
    verdict = check_export(
        Verdict(False, "It becomes champion", start_takes_over=True),
        tracked_run("one", weights_sha256="start"),
        settings,
    )
    assert not verdict.start_takes_over
    assert any("mAP50 0.7000" in line for line in verdict.reasons)


def test_a_champion_changed_in_the_store_is_registered_anew(
    settings: Settings, made: Measure, tmp_path: Path
) -> None:
    made(0.8, 0.8)
    run = tracked_run("one")
    first = registry.promote(run, settings, "better")
    assert registry.promote(run, settings, "again").version == first.version
    (stored,) = (tmp_path / "artifacts").glob("models/m-*/artifacts")
    (stored / "artifacts" / "model.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match=f"make promote RUN={run.info.run_id} FORCE=1"):
        usable_champion(settings)
    second = registry.promote(run, settings, "forced: changed", force=True)
    assert second.version != first.version
    assert usable_champion(settings).version.version == second.version


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights for 64 px that finds people, really exported."""
    import torch
    from ultralytics import YOLO

    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    network = YOLO("yolov8n.yaml")
    network.model.names = {0: "dog", 1: "Person"}
    with torch.no_grad():
        for head in network.model.model[-1].cv3:
            head[-1].bias[1] += 3
    network.save(str(folder / "scratch.pt"))
    (folder / "model").mkdir()
    build(folder / "scratch.pt", "imgsz: 64\n", 64, ["person"], folder / "model")
    return folder


def test_the_export_counts_the_data_sets_classes(exported: Path) -> None:
    detector = Detector.load(exported / "model")
    assert detector.names == {1: "person"}
    assert detector.size == 64


def test_what_knows_none_of_the_classes_keeps_its_own(exported: Path, tmp_path: Path) -> None:
    """It can be promoted with FORCE=1."""
    build(exported / "scratch.pt", "", 64, ["unicorn"], tmp_path)
    assert Detector.load(tmp_path).names == {0: "dog", 1: "Person"}


def test_the_export_gives_the_checkpoints_boxes(exported: Path) -> None:
    """Also with a confidence so low that every box counts."""
    import numpy as np
    from ultralytics import YOLO

    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    thresholds = Thresholds(conf=0.0, iou=0.7, max_det=20)
    found = Detector.load(exported / "model").detect(pixels, thresholds)
    (theirs,) = YOLO(exported / "model" / "best.pt").predict(
        np.ascontiguousarray(pixels[:, :, ::-1]), imgsz=64, rect=False, classes=[1], conf=0.0,
        iou=0.7, max_det=20, verbose=False,
    )  # fmt: skip
    assert len(theirs.boxes) == len(found.boxes) > 0
    np.testing.assert_allclose(found.confidences, theirs.boxes.conf.numpy(), atol=0.01)


def earlier(run: Run, **tags: str) -> ModelVersion:
    """Make a run's bare checkpoint the champion, as an earlier release did."""
    client = MlflowClient()
    client.create_registered_model(MODEL)
    source = f"{run.info.artifact_uri}/weights"
    version = client.create_model_version(MODEL, source, run.info.run_id, tags=tags)
    client.set_registered_model_alias(MODEL, "champion", version.version)
    return version


def test_predict_uses_what_an_earlier_release_registered(
    settings: Settings, made: Measure, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tracked_run("one", imgsz=64)
    earlier(run, trained_weights_sha256=run.data.tags[TRAINED])
    folder = usable_champion(settings).folder
    assert (folder / "best.pt").read_text() == "0.5"
    shutil.rmtree(Path(run.info.artifact_uri.removeprefix("file://")) / "weights")
    assert usable_champion(settings).folder == folder
    assert "kept no hash" not in capsys.readouterr().err


def test_weights_without_a_hash_are_used_and_said(
    settings: Settings, made: Measure, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tracked_run("one")
    MlflowClient().delete_tag(run.info.run_id, TRAINED)
    earlier(run)
    assert (usable_champion(settings).folder / "best.pt").read_text() == "0.5"
    assert "kept no hash of its weights" in capsys.readouterr().err


def test_a_hash_taken_away_does_not_free_the_weights(settings: Settings, made: Measure) -> None:
    run = tracked_run("one")
    earlier(run, trained_weights_sha256=run.data.tags[TRAINED])
    MlflowClient().delete_tag(run.info.run_id, TRAINED)
    with pytest.raises(RegistryError, match="somebody has taken it away"):
        usable_champion(settings)


def test_signature_and_table_agree() -> None:
    outputs = [column.name for column in model.signature().outputs.inputs]
    assert outputs == ["boxes", "classes", "confidences"]
    assert isinstance(pd.DataFrame({"image": [picture()]})["image"][0], bytes)
