"""Grids that are killed, compared, decided on and used: each test builds on those above it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.chromium import sign_in
from tests.e2e.conftest import Checkout
from tests.e2e.servers import EXPERIMENT, MLflow, ZenML, pairs

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = pytest.mark.e2e

GRID = """
base: {batch: 16, seed: 0, optimizer: AdamW, lr0: 0.002, mosaic: 0}
grid: {epochs: [2, 3], imgsz: [32, 64]}
"""


@pytest.fixture(scope="module", autouse=True)
def small(checkout: Checkout) -> None:
    """A grid that takes a minute, on data that needs no download."""
    checkout.variables |= {"DATASET": "synthetic", "WEIGHTS": "scratch"}
    (checkout.root / "configs" / "grid_scratch.yaml").write_text(GRID)


def workers(checkout: Checkout) -> list[psutil.Process]:
    """Processes of a grid: they run in the checkout, and are not its services."""
    services = {process.pid for process in checkout.processes()}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in services and process.cwd() == str(checkout.root):
                found.append(process)
        except psutil.Error:
            continue
    return found


def statuses(checkout: Checkout) -> tuple[list[str], list[str]]:
    mlflow = [run["info"]["status"] for run in MLflow(checkout).runs()[EXPERIMENT]]
    return mlflow, [run["body"]["status"] for run in ZenML(checkout).runs()]


def test_a_killed_grid_goes_on_where_it_was(checkout: Checkout) -> None:
    checkout.make("data")
    semaphores = set(Path("/dev/shm").glob("sem.mp-*"))  # what a killed process pool leaves
    command = checkout.start("make", "grid", "JOBS=1")
    assert command.stdout is not None
    finished: list[str] = []
    for line in command.stdout:
        if line.startswith("["):
            finished.append(line.split()[1].rstrip(":"))
        if len(finished) == 2 and "epoch 1/" in line:
            os.killpg(command.pid, signal.SIGKILL)
    command.wait(timeout=30)
    assert len(finished) == 2
    deadline = time.monotonic() + 30
    while workers(checkout):
        assert time.monotonic() < deadline, workers(checkout)
        time.sleep(0.1)
    assert set(Path("/dev/shm").glob("sem.mp-*")) <= semaphores

    printed = checkout.make("grid", "JOBS=2")
    assert "its process was killed; marked as failed" in printed
    for cell in finished:
        assert f"{cell}: mAP50" in printed
        assert f"{cell}: epoch" not in printed  # not trained again
    assert printed.count("(from the cache)") == 2
    mlflow, zenml = statuses(checkout)
    assert sorted(mlflow) == ["FAILED", "FINISHED", "FINISHED", "FINISHED", "FINISHED"]
    assert set(zenml) == {"completed", "failed"}
    assert list((checkout.root / ".stack" / checkout.variables["MODE"] / "runs").iterdir()) == []
    assert workers(checkout) == []


def test_ctrl_c_stops_every_cell_and_says_so(checkout: Checkout) -> None:
    command = checkout.start("make", "grid", "JOBS=2", "EPOCHS=50")
    assert command.stdout is not None
    begun = set()
    for line in command.stdout:
        if ": epoch 1/50" in line:
            begun.add(line.split(":")[0])
            if len(begun) == 2:
                assert "is still running" in checkout.make("report", expect=2)
                os.killpg(command.pid, signal.SIGINT)
    assert command.wait(timeout=60) != 0
    assert "has finished: make grid" in checkout.make("report", expect=2)
    assert workers(checkout) == []
    mlflow, zenml = statuses(checkout)
    assert mlflow.count("KILLED") == 2
    assert zenml.count("stopped") == 2
    assert "RUNNING" not in mlflow


def test_a_run_killed_while_it_was_being_marked_is_recovered(checkout: Checkout) -> None:
    stopped = [run for run in ZenML(checkout).runs() if run["body"]["status"] == "stopped"]
    name = stopped[0]["name"]
    folder = checkout.root / ".stack" / checkout.variables["MODE"] / "runs" / name
    folder.mkdir()
    (folder / "lock").touch()
    recovered = checkout.python(
        "import json\n"
        "from src.zenml_pipelines.recovery import recover\n"
        "print(json.dumps(recover(S)))\n"
    )
    assert recovered == [name]
    assert not folder.exists()
    assert statuses(checkout)[0].count("KILLED") == 2


def test_a_wrong_grid_is_refused_before_anything_runs(checkout: Checkout) -> None:
    (checkout.root / "configs" / "wrong.yaml").write_text(
        "base: {batch: 8, seed: 0, epoch: 3}\ngrid: {epochs: [1], imgsz: [100]}\n"
    )
    runs = len(ZenML(checkout).runs())
    printed = checkout.make("grid", "GRID=configs/wrong.yaml", expect=2)
    assert "epoch is not a training argument of Ultralytics" in printed
    assert "imgsz=100 is not a multiple of 32: try 96" in printed
    assert len(ZenML(checkout).runs()) == runs


def test_the_report_compares_decides_and_logs_itself(checkout: Checkout) -> None:
    checkout.make("grid")
    printed = checkout.make("report")
    folder = checkout.root / printed.split("report: ")[1].split("/report.html")[0]
    page = (folder / "report.html").read_text()
    text = (folder / "report.md").read_text()
    for cell in ("e2_32", "e2_64", "e3_32", "e3_64"):
        assert f"zenml_yolo_tiny_{cell}" in text
    assert "Drawn people, not photos" in text
    assert page.count("data:image/png;base64,") == 5
    mlflow = MLflow(checkout)
    (logged,) = mlflow.runs()[f"{EXPERIMENT}_reports"]
    assert {"report.md", "report.html", "plots"} <= mlflow.artifacts(logged["info"]["run_id"])
    artifacts = ZenML(checkout).get("artifacts", project="default", name="grid_report")
    assert artifacts["total"] == 1


def test_the_same_report_again_changes_nothing(checkout: Checkout) -> None:
    (folder,) = [file.parent for file in checkout.root.glob("reports/*/decision.json")]
    with (folder / "report.md").open("a") as file:
        file.write("\nMy own remark.\n")
    kept = (folder / "report.md").read_bytes()
    runs = MLflow(checkout).runs()
    assert f"{folder.name}: unchanged" in checkout.make("report")
    assert (folder / "report.md").read_bytes() == kept
    assert "My own remark." in (folder / "report.html").read_text()
    assert MLflow(checkout).runs() == runs
    assert ZenML(checkout).get("artifact_versions", artifact="grid_report")["total"] == 1
    assert folder.name in (checkout.root / "reports" / "index.html").read_text()


def test_a_run_deleted_in_mlflow_trains_again_and_says_why(checkout: Checkout) -> None:
    mlflow = MLflow(checkout)
    (lost,) = [
        run["info"]["run_id"]
        for run in mlflow.runs()[EXPERIMENT]
        if run["info"]["run_name"] == "zenml_yolo_tiny_e2_32"
        and run["info"]["status"] == "FINISHED"
    ]
    mlflow.post("runs/delete", run_id=lost)
    refused = checkout.make("report", expect=2)
    assert "zenml_yolo_tiny_e2_32 (its run was deleted in MLflow)" in refused
    printed = checkout.make("grid")
    assert f"zenml_yolo_tiny_e2_32: its run {lost} was deleted in MLflow; training again" in printed
    assert "zenml_yolo_tiny_e2_32: epoch 1/2" in printed
    assert printed.count("(from the cache)") == 3
    checkout.make("report")
    assert len(list(checkout.root.glob("reports/*/decision.json"))) == 2


def test_a_deleted_experiment_is_named_with_its_remedy(checkout: Checkout) -> None:
    mlflow = MLflow(checkout)
    found = mlflow.get("experiments/get-by-name", experiment_name=EXPERIMENT)["experiment"]
    mlflow.post("experiments/delete", experiment_id=found["experiment_id"])
    printed = checkout.make("grid", expect=2)
    (remedy,) = [line for line in printed.splitlines() if "was deleted in MLflow" in line]
    checkout.run(*remedy.split("bring it back with ")[1].split())
    assert checkout.make("grid").count("(from the cache)") == 4
    assert "unchanged" in checkout.make("report")


def champion(checkout: Checkout, alias: str = "champion") -> dict[str, Any]:
    found = MLflow(checkout).get("registered-models/alias", name="person-detector", alias=alias)
    version: dict[str, Any] = found["model_version"]
    return version


def test_promote_promote_and_roll_back(checkout: Checkout) -> None:
    reason = "REASON=for the test"
    checkout.make("promote", "RUN=zenml_yolo_tiny_e2_64", "FORCE=1", expect=2)  # no reason
    checkout.make("promote", "RUN=zenml_yolo_tiny_e2_64", "FORCE=1", reason)
    first = champion(checkout)
    checkout.make("promote", "RUN=zenml_yolo_tiny_e3_64", "FORCE=1", reason)
    second = champion(checkout)
    assert second["version"] != first["version"]
    assert champion(checkout, "previous")["version"] == first["version"]
    assert pairs(second["tags"])["reason"].endswith("for the test")

    (linked,) = [
        run for run in ZenML(checkout).runs() if run["name"] == pairs(second["tags"])["zenml_run"]
    ]
    metadata = linked["metadata"]["run_metadata"]
    assert metadata["mlflow_model"] == f"person-detector version {second['version']}"

    checkout.make("rollback")
    assert champion(checkout)["version"] == first["version"]
    assert champion(checkout, "previous")["version"] == second["version"]
    assert "no finished run" in checkout.make("promote", "RUN=nonsense", expect=2)


def test_a_refused_promotion_is_a_normal_end(checkout: Checkout) -> None:
    before = champion(checkout)["version"]
    run = f"RUN={champion(checkout)['run_id']}"
    assert "Nothing to promote" in checkout.make("promote", run)
    assert champion(checkout)["version"] == before


def test_the_champion_predicts(checkout: Checkout) -> None:
    source = checkout.root / "data" / "tiny_person" / "images" / "test"
    printed = checkout.make("predict", f"SOURCE={source}")
    folder = checkout.root / printed.split("predictions: ")[1].strip()
    found = json.loads((folder / "predictions.json").read_text())
    assert found["model"]["version"] == champion(checkout)["version"]
    assert len(found["predictions"]) == 32
    assert len(list(folder.glob("*.jpg"))) == 32
    assert "no such file" in checkout.make("predict", "SOURCE=/nonexistent", expect=2)


def test_pages_in_a_real_browser(checkout: Checkout, pages: BrowserContext) -> None:
    report = min(checkout.root.glob("reports/*/report.html"))
    page = pages.new_page()
    pages.set_offline(True)
    for width in (1400, 400):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(report.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth)")
        assert page.locator("img").count() == 5
    pages.set_offline(False)

    page = pages.new_page()
    mlflow = MLflow(checkout)
    experiment = mlflow.get("experiments/get-by-name", experiment_name=EXPERIMENT)
    page.goto(f"{mlflow.url}/#/experiments/{experiment['experiment']['experiment_id']}/runs")
    page.get_by_text("zenml_yolo_tiny_e3_64").first.wait_for()

    page = pages.new_page()
    s = checkout.settings
    base = f"http://localhost:{checkout.variables['ZENML_PORT']}"
    sign_in(page, base, s["ZENML_ADMIN_USERNAME"], s["ZENML_ADMIN_PASSWORD"])
    (run,) = ZenML(checkout).runs()[-1:]
    page.goto(f"{base}/projects/default/runs/{run['id']}")
    page.get_by_text("summarize_yolo_experiment").first.wait_for()
