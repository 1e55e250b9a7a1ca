"""The whole main job on drawn people with small recipes: each test builds on those above it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests

from tests.e2e.conftest import Checkout, copy_checkout, either_backend
from tests.e2e.servers import EXPERIMENT, MLflow, Store, ZenML, pairs

pytestmark = pytest.mark.e2e

NATIVE = os.environ.get("TEST_MODE", "native") == "native"
STEPS = {"prepare_tiny_coco_dataset", "train_yolo_tiny", "summarize_yolo_experiment"}
CELLS = {f"zenml_yolo_tiny_e{epochs}_{imgsz}" for epochs in (1, 2) for imgsz in (32, 64)}
RUNS = CELLS | {"zenml_yolo_tiny_baseline"}
SECRETS = ("_PASSWORD", "_SECRET_KEY", "_ENCRYPTION_KEY")


@pytest.fixture(scope="module", autouse=True)
def small(checkout: Checkout) -> None:
    """Recipes that take seconds, on data that needs no download."""
    checkout.variables |= {"DATASET": "synthetic", "WEIGHTS": "scratch"}
    shared = "batch: 16\nseed: 0\noptimizer: AdamW\nlr0: 0.002\n"
    configs = checkout.root / "configs"
    (configs / "baseline_scratch.yaml").write_text(f"epochs: 1\nimgsz: 64\n{shared}")
    base = "".join(f"  {line}\n" for line in shared.splitlines())
    grid = "grid:\n  epochs: [1, 2]\n  imgsz: [32, 64]\n"
    (configs / "grid_scratch.yaml").write_text(f"base:\n{base}{grid}")


def test_baseline_alone_does_everything(checkout: Checkout) -> None:
    printed = checkout.make("baseline")
    assert "zenml_yolo_tiny_baseline: trained" in printed
    assert "stack mlflow_stack: created" in printed
    assert "DVC remote: pushed" in printed
    assert "synthetic, random (from scratch)" in printed


def test_grid_runs_every_cell(checkout: Checkout) -> None:
    printed = checkout.make("grid")
    for cell in CELLS:
        assert f"{cell}: mAP50 " in printed
    assert "from the cache" not in printed


def test_mlflow_holds_five_finished_runs_and_no_others(checkout: Checkout) -> None:
    mlflow = MLflow(checkout)
    runs = mlflow.runs()
    assert {name for name, found in runs.items() if found} == {EXPERIMENT, f"{EXPERIMENT}_grids"}
    (record,) = runs[f"{EXPERIMENT}_grids"]
    assert record["info"]["status"] == "FINISHED"
    assert mlflow.artifacts(record["info"]["run_id"]) == {"grid.json"}
    assert sorted(run["info"]["run_name"] for run in runs[EXPERIMENT]) == sorted(RUNS)
    for run in runs[EXPERIMENT]:
        assert run["info"]["status"] == "FINISHED"
        scores = pairs(run["data"]["metrics"])
        for score in ("mAP50", "mAP50-95", "precision", "recall"):
            assert 0 <= scores[score] <= 1
            assert f"untrained_{score}" in scores
        assert scores["training_seconds"] > 0
        parameters = pairs(run["data"]["params"])
        assert {"epochs", "imgsz", "batch", "seed", "optimizer"} <= parameters.keys()
        assert scores["busy_seconds"] > 0
        tags = pairs(run["data"]["tags"])
        assert tags["dataset"] == "synthetic"
        assert tags["weights"] == "random (from scratch)"
        assert len(tags["git_commit"].split("+")[0]) == 40
        determined = {"python", "torch", "ultralytics", "numpy", "threads", "device", "code"}
        assert determined | {"machine"} <= tags.keys()
        (used,) = run["inputs"]["dataset_inputs"]
        assert used["dataset"]["digest"] == tags["dataset_md5"].removesuffix(".dir")
        artifacts = mlflow.artifacts(run["info"]["run_id"])
        assert {"results.png", "confusion_matrix.png", "args.yaml", "weights"} <= artifacts
        assert "val_batch0_pred.jpg" in artifacts


def test_curves_have_a_point_for_each_epoch(checkout: Checkout) -> None:
    mlflow = MLflow(checkout)
    (run,) = [
        run
        for run in mlflow.runs()[EXPERIMENT]
        if run["info"]["run_name"] == "zenml_yolo_tiny_e2_64"
    ]
    for metric in ("mAP50", "train_box_loss"):
        history = mlflow.get("metrics/get-history", run_id=run["info"]["run_id"], metric_key=metric)
        assert {point["step"] for point in history["metrics"]} == {1, 2}


def test_zenml_serves_runs_logs_and_the_summary(checkout: Checkout) -> None:
    zenml = ZenML(checkout)
    runs = zenml.runs()
    assert len(runs) == len(RUNS)
    for run in runs:
        assert run["body"]["status"] == "completed"
        assert "mAP50" in run["metadata"]["run_metadata"]
        steps = zenml.steps(run["id"])
        assert set(steps) == STEPS
        if steps["train_yolo_tiny"]["body"]["status"] == "completed":
            assert any("epoch 1/" in line for line in zenml.log_lines(steps["train_yolo_tiny"]))
        (summary,) = steps["summarize_yolo_experiment"]["resources"]["outputs"]["summary"]
        shown = zenml.get(f"artifact_versions/{summary['id']}/visualize")
        assert shown["type"] == "html"
        assert "untrained" in shown["value"]


def test_the_model_artifact_loads_as_a_working_yolo(checkout: Checkout) -> None:
    shapes = checkout.python(
        "import json\n"
        "from zenml.client import Client\n"
        "model = Client().get_artifact_version('yolo_weights')\n"
        "yolo = model.load()\n"
        "seen = yolo.predict('data/tiny_person/images/val', imgsz=64, verbose=False, save=False)\n"
        "print(json.dumps({'type': model.type, 'names': yolo.names, 'pictures': len(seen)}))\n"
    )
    assert shapes == {"type": "ModelArtifact", "names": {"0": "person"}, "pictures": 32}


def test_buckets_hold_the_objects_and_each_user_only_reaches_its_own(checkout: Checkout) -> None:
    own = {"zenml": "zenml-artifacts", "mlflow": "mlflow-artifacts", "dvc": "dvc-data"}
    for user, bucket in own.items():
        store = Store(checkout, user)
        assert store.keys(bucket)
        assert store.refused("create_bucket", Bucket="another-one")
        for other in set(own.values()) - {bucket}:
            key = Store(checkout, "root").keys(other)[0]
            assert store.refused("list_objects_v2", Bucket=other)
            assert store.refused("get_object", Bucket=other, Key=key)
            assert store.refused("put_object", Bucket=other, Key="x", Body=b"x")
            assert store.refused("delete_object", Bucket=other, Key=key)


def test_nothing_is_left_lying_about(checkout: Checkout) -> None:
    left = checkout.run("git", "status", "--porcelain", "--untracked-files=all").splitlines()
    assert sorted(line for line in left if "configs/" not in line) == ["?? data/tiny_person.dvc"]
    assert not (checkout.root / "runs").exists()
    assert not (checkout.root / "mlflow.db").exists()
    assert list(checkout.home.iterdir()) == []
    assert list((checkout.root / ".stack" / "tmp").rglob("training-*")) == []


def test_files_of_the_stack_are_private(checkout: Checkout) -> None:
    state = checkout.root / ".stack"
    assert state.stat().st_mode & 0o077 == 0
    for file in (".env", ".dvc/config.local", f".stack/{checkout.variables['MODE']}/zenml-api-key"):
        assert (checkout.root / file).stat().st_mode & 0o077 == 0, file


@pytest.mark.skipif(not NATIVE, reason="about the native backend's processes")
def test_no_secret_in_the_process_list_and_under_a_gigabyte(checkout: Checkout) -> None:
    secrets = {value for name, value in checkout.settings.items() if name.endswith(SECRETS)}
    processes = checkout.processes()
    assert any(process.name() == "juicefs" for process in processes)
    assert len(processes) >= 5
    for process in processes:
        line = " ".join(process.cmdline())
        assert not [secret for secret in secrets if secret in line]
        for connection in process.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip == "127.0.0.1", line
    if sys.platform == "linux":
        assert sum(process.memory_full_info().pss for process in processes) < 1e9


def test_a_second_time_changes_nothing(checkout: Checkout) -> None:
    sign_ins = _sign_ins(checkout)
    started = time.monotonic()
    printed = checkout.make("up", "stack", "data")
    seconds = time.monotonic() - started
    assert _sign_ins(checkout) == sign_ins + 2, "each takes the server up to half a second"
    lines = [line for line in printed.splitlines() if ": " in line and not line.startswith(" ")]
    outcomes = [line.split(": ")[1] for line in lines]
    assert len(outcomes) > 15
    assert {outcome.split(" ")[0] for outcome in outcomes} == {"unchanged"}, printed
    assert seconds < 20, "10 s are promised on an idle machine"


def test_a_second_grid_comes_from_the_cache(checkout: Checkout) -> None:
    sign_ins = _sign_ins(checkout)
    printed = checkout.make("grid")
    assert printed.count("(from the cache)") == len(CELLS)
    assert _sign_ins(checkout) == sign_ins, "the last one's tokens do"
    assert len(MLflow(checkout).runs()[EXPERIMENT]) == len(RUNS)


@either_backend
def test_a_step_that_fails_ends_the_command_with_its_own_cause(checkout: Checkout) -> None:
    (number,) = {run["info"]["experiment_id"] for run in MLflow(checkout).runs()[EXPERIMENT]}
    MLflow(checkout).post("experiments/delete", experiment_id=number)
    remedy = f"scripts/run-client.sh mlflow experiments restore --experiment-id {number}"
    cause = f"the experiment {EXPERIMENT} was deleted in MLflow: bring it back with {remedy}"
    printed = checkout.make("baseline", "FORCE=1", expect=2)
    assert f"error: {cause}" in printed.splitlines()
    assert "Traceback" not in printed
    printed = checkout.make("grid", "FORCE=1", "JOBS=1", expect=2)
    assert f"{len(CELLS)} of {len(CELLS)} cells failed" in printed
    (line,) = [
        line
        for line in printed.splitlines()
        if line.endswith(f": {cause}") and "FAILED" not in line
    ]
    assert all(cell in line for cell in CELLS)
    assert "Traceback" not in printed
    checkout.run(*remedy.split())
    assert "(from the cache)" in checkout.make("grid")


@either_backend
def test_a_failing_steps_traceback_is_in_its_log_and_not_on_the_terminal(
    checkout: Checkout,
) -> None:
    code = checkout.root / "src/training/trainer.py"
    before = code.read_text()
    code.write_text(
        before.replace("    configure_libraries()\n", "    raise OSError('planted')\n", 1)
    )
    try:
        printed = checkout.make("baseline", "FORCE=1", expect=2)
    finally:
        code.write_text(before)
    assert [line for line in printed.splitlines() if line.startswith("error: OSError: planted")]
    assert "Traceback" not in printed
    zenml = ZenML(checkout)
    failed = zenml.steps(zenml.runs()[-1]["id"])["train_yolo_tiny"]
    assert failed["body"]["status"] == "failed"
    assert any("Traceback (most recent call last)" in line for line in zenml.log_lines(failed))


def test_the_report_and_the_champion_get_their_files_from_mlflow(checkout: Checkout) -> None:
    printed = checkout.make("report")
    report = checkout.root / printed.split("report: ")[1].split()[0]
    assert report.is_file()
    checkout.make("promote", "RUN=zenml_yolo_tiny_e2_64", "FORCE=1", "REASON=its files alone count")
    printed = checkout.make("predict", "SOURCE=data/tiny_person/images/test")
    assert "person-detector version 1" in printed
    assert "in 32 pictures" in printed
    # While there is something to see: every link and page, in a browser where one is installed.
    kept = checkout.root.parent / "printed"
    kept.write_text(printed + checkout.make("baseline", "grid"))
    checkout.variables["PRINTED"] = str(kept)
    try:
        checkout.run(str(checkout.interpreter), "-m", "pytest", "-q", "-rs", "tests/browser")
    finally:  # what a person keeps, and `make clean` too: the last test looks for what it left
        shutil.rmtree(report.parent)
        (checkout.root / "reports" / "index.html").unlink()
        shutil.rmtree(checkout.root / "predictions")


def test_the_champion_is_served(checkout: Checkout) -> None:
    """Small: ``test_champion.py`` has the rest."""
    checkout.make("serve")
    url = f"http://localhost:{checkout.variables['SERVE_PORT']}"
    picture = next((checkout.root / "data/tiny_person/images/test").iterdir())
    reply = requests.post(f"{url}/predict", files={"picture": picture.read_bytes()}, timeout=30)
    assert reply.status_code == 200
    assert reply.headers["X-Model-Version"] == "1"
    assert re.search(r"(?m)^detector +running +healthy", checkout.make("status"))
    checkout.make("stop-serve")
    assert "detector" not in checkout.make("status")


def test_a_second_clone_pulls_the_same_bytes(checkout: Checkout) -> None:
    clone = Checkout(checkout.root.parent / "clone", checkout.home, checkout.variables)
    clone.root.mkdir()
    copy_checkout(clone.root)
    for name in (".env", "data/tiny_person.dvc"):
        (clone.root / name).write_bytes((checkout.root / name).read_bytes())
    (clone.root / ".env").chmod(0o600)
    clone.make("setup")
    dvc = str(checkout.interpreter.parent / "dvc")
    clone.run(dvc, "pull")
    assert _digests(clone.root / "data/tiny_person") == _digests(checkout.root / "data/tiny_person")
    assert "up to date" in clone.run(dvc, "status")


@either_backend
def test_changed_data_is_a_new_version_and_trains_anew(checkout: Checkout) -> None:
    label = sorted((checkout.root / "data/tiny_person/labels/train").glob("*.txt"))[0]
    before = label.read_text()
    label.write_text("0 0.9 0.5 0.5 0.5\n")
    assert "outside the image" in checkout.make("data", expect=2)
    label.write_text("0 0.5 0.5 0.25 0.25\n")
    assert "missing or has changed: make data" in checkout.run(
        str(checkout.interpreter), "-m", "src.zenml_pipelines.run_yolo_pipeline_baseline", expect=1
    )
    # FORCE=1 is about the cache: it must not build the data set again, over the change.
    assert "zenml_yolo_tiny_baseline: trained" in checkout.make("baseline", "FORCE=1")
    assert label.read_text() == "0 0.5 0.5 0.25 0.25\n"
    label.write_text(before)
    # What comes from the cache does without PyTorch, whose import takes seconds.
    printed = checkout.run("env", "PYTHONPROFILEIMPORTTIME=1", "make", "baseline")
    assert "zenml_yolo_tiny_baseline: from the cache" in printed
    imported = set(re.findall(r"(?m)^import time: .*\| +([\w.]+)$", printed))
    assert {"zenml", "mlflow"} <= imported
    assert imported.isdisjoint({"torch", "ultralytics", "sklearn"})


def test_changed_settings_are_carried_through(checkout: Checkout) -> None:
    from tests.e2e.conftest import free_ports

    moved = str(free_ports(1)[0])
    checkout.variables["MINIO_PORT"] = moved
    checkout.set(
        ZENML_ADMIN_PASSWORD="another-password-1",
        ZENML_S3_SECRET_KEY="another-secret-1",
        MLFLOW_S3_SECRET_KEY="another-secret-2",
        DVC_S3_SECRET_KEY="another-secret-3",
        MINIO_ROOT_PASSWORD="another-root-password",
        ZENML_BUCKET="zenml-artifacts-2",
        ZENML_ENCRYPTION_KEY="0123456789abcdef0123456789abcdef",
    )
    printed = checkout.make("stack")
    for line in (
        "bucket zenml-artifacts-2: created",
        "bucket dvc-data: unchanged",
        "policy zenml: updated",
        "S3 user zenml: updated",
        "S3 user mlflow: updated",
        "S3 user dvc-user: updated",
        "ZenML administrator admin: updated",
        "ZenML API key: unchanged",
        "secret minio_zenml_secret: updated",
        "experiment tracker mlflow_tracker: unchanged",
        "artifact store minio_artifacts: updated",
        "stack mlflow_stack: updated",
    ):
        assert line in printed.splitlines(), line
    assert "created" not in checkout.make("stack").replace("backend", "")
    printed = checkout.make("baseline", "FORCE=1")
    assert "trained" in printed
    assert Store(checkout, "zenml").keys("zenml-artifacts-2")
    assert Store(checkout, "root").keys("zenml-artifacts")  # nobody's data is deleted


def test_components_made_by_hand_are_brought_into_line(checkout: Checkout) -> None:
    checkout.python(
        "from zenml.client import Client\n"
        "from zenml.enums import StackComponentType as T\n"
        "client = Client()\n"
        "client.update_stack_component('mlflow_tracker', T.EXPERIMENT_TRACKER, configuration={\n"
        "    'tracking_uri': 'http://mlflow:5000', 'tracking_token': 'dummy-token',\n"
        "    'tracking_username': None, 'tracking_password': None})\n"
        "client.update_secret('minio_zenml_secret', add_or_update_values={'more': 'x'})\n"
        "client.update_stack('mlflow_stack', component_updates={T.ARTIFACT_STORE: 'default'})\n"
        "print('{}')\n"
    )
    printed = checkout.make("stack")
    assert "experiment tracker mlflow_tracker: updated" in printed
    assert "secret minio_zenml_secret: updated" in printed
    assert "stack mlflow_stack: updated" in printed
    assert "updated" not in checkout.make("stack")


def test_each_change_by_hand_is_seen(checkout: Checkout) -> None:
    """Over REST alone, as an unchanged ``make stack`` looks; ZenML's client then mends it."""
    seen = checkout.python(
        "import contextlib, io, json, os\n"
        "os.environ.pop('ZENML_ACTIVE_STACK_ID', None)\n"
        "from zenml.client import Client\n"
        "from zenml.enums import StackComponentType as T\n"
        "from src.bootstrap import zenml_stack, zenml_state\n"
        "from src.bootstrap.zenml_server import signed_in\n"
        "from src.settings import load_settings\n"
        "client, settings = Client(), load_settings()\n"
        "def component(name, kind, **values):\n"
        "    client.update_stack_component(name, kind, configuration=values)\n"
        "changes = {\n"
        "    'value': lambda: client.update_secret(\n"
        "        'mlflow_zenml_secret', add_or_update_values={'password': 'x'}),\n"
        "    'secret': lambda: client.delete_secret('minio_zenml_secret'),\n"
        "    'tracker': lambda: component(\n"
        "        'mlflow_tracker', T.EXPERIMENT_TRACKER, tracking_uri='http://mlflow:5000'),\n"
        "    'store': lambda: component('minio_artifacts', T.ARTIFACT_STORE, path='s3://other'),\n"
        "    'stack': lambda: client.update_stack(\n"
        "        'mlflow_stack', component_updates={T.ARTIFACT_STORE: 'default'}),\n"
        "    'active': lambda: client.activate_stack('default'),\n"
        "}\n"
        "right = {'before': zenml_state.is_right(signed_in(settings), settings)}\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    for name, change in changes.items():\n"
        "        change()\n"
        "        right[name] = zenml_state.is_right(signed_in(settings), settings)\n"
        "        zenml_stack.converge(settings)\n"
        "right['after'] = zenml_state.is_right(signed_in(settings), settings)\n"
        "print(json.dumps(right))\n"
    )
    changed = ("value", "secret", "tracker", "store", "stack", "active")
    assert seen == {"before": True} | dict.fromkeys(changed, False) | {"after": True}


def test_a_lost_api_key_is_replaced(checkout: Checkout) -> None:
    file = checkout.root / ".stack" / checkout.variables["MODE"] / "zenml-api-key"
    file.write_text("ZENKEY_not_a_key\n")
    assert "ZenML API key: updated" in checkout.make("stack")


@pytest.mark.skipif(not NATIVE, reason="the Docker backend has a test of its own")
def test_a_killed_server_comes_back(checkout: Checkout) -> None:
    for word in ("uvicorn", "gateway"):
        # juicefs makes its command line one string.
        running = checkout.processes()
        killed = [process for process in running if word in " ".join(process.cmdline())]
        assert killed, word
        for process in killed:
            process.kill()
        deadline = time.monotonic() + 60
        while True:
            done = subprocess.run(
                ["make", "status"],
                cwd=checkout.root,
                env=os.environ | checkout.variables,
                capture_output=True,
                text=True,
            )
            if done.returncode == 0 and done.stdout.count("healthy") == 3:
                break
            assert time.monotonic() < deadline, done.stdout


@either_backend
def test_an_interrupted_training_ends_its_runs_and_can_be_repeated(checkout: Checkout) -> None:
    command = checkout.start("make", "baseline", "FORCE=1", "EPOCHS=50")
    assert command.stdout is not None
    for line in command.stdout:
        if "epoch 2/50" in line:
            os.killpg(command.pid, signal.SIGINT)
    assert command.wait(timeout=60) != 0
    statuses = {run["info"]["status"] for run in MLflow(checkout).runs()[EXPERIMENT]}
    assert "RUNNING" not in statuses
    assert {run["body"]["status"] for run in ZenML(checkout).runs()} <= {
        "completed",
        "failed",
        "stopped",
    }
    assert list((checkout.root / ".stack" / "tmp").rglob("training-*")) == []


def test_everything_survives_down_and_up(checkout: Checkout) -> None:
    runs = len(ZenML(checkout).runs())
    tracked = len(MLflow(checkout).runs()[EXPERIMENT])
    checkout.make("down")
    assert checkout.processes() == []
    assert "not running" in checkout.make("down")
    for words in (
        ["zenml_pipelines.run_yolo_pipeline_baseline"], ["train_cv"], ["decision", "rollback"],
        ["champion.predict", "data"], ["champion.export", "onnx"],
    ):  # fmt: skip
        command = [str(checkout.interpreter), "-m", f"src.{words[0]}", *words[1:]]
        said = checkout.run(*command, expect=1)
        assert "not running: object-store, mlflow, zenml: make up" in said, words
    assert "does not answer" in checkout.run("scripts/converge-stack.sh", expect=1)
    checkout.make("up")
    # Natively the server runs where this writes, and its first sign-in looks there.
    checkout.run("scripts/run-client.sh", "zenml", "init")
    shutil.rmtree(checkout.root / ".zen")
    assert len(ZenML(checkout).runs()) == runs
    assert len(MLflow(checkout).runs()[EXPERIMENT]) == tracked
    assert "updated" not in checkout.make("stack")


def test_clean_asks_first_and_then_leaves_nothing(checkout: Checkout) -> None:
    mine = checkout.root / "data" / "mine.txt"
    mine.write_text("mine")
    (checkout.root / "reports").mkdir(exist_ok=True)
    (checkout.root / "reports" / "mine.md").write_text("mine")
    assert "FORCE=1" in checkout.make("clean", expect=2)
    assert (checkout.root / ".stack").is_dir()
    checkout.make("clean", "FORCE=1")
    assert checkout.processes() == []
    assert mine.read_text() == "mine"
    assert (checkout.root / "reports" / "mine.md").is_file()
    assert (checkout.root / ".env").is_file()
    left = checkout.run("git", "status", "--porcelain", "--untracked-files=all", "--ignored")
    untracked = {line[3:].strip('"') for line in left.splitlines() if line[:2] in ("??", "!!")}
    assert {name for name in untracked if "__pycache__" not in name} == {
        ".env",
        "data/mine.txt",
        "reports/mine.md",
    }
    assert list(checkout.home.iterdir()) == []


def _sign_ins(checkout: Checkout) -> int:
    logged = checkout.make("logs", "SERVICE=zenml", "LINES=100000")
    return logged.count("POST /api/v1/login")


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }
