"""The pages that people are sent to, followed in a real browser."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from src import mlflow_pages
from src.champion import registry
from src.settings import ROOT, Settings
from src.training.scoring import SCORES
from src.training.where import runs_page

COLUMNS = (*SCORES, "training_seconds", "epochs", "imgsz")
STEPS = ("prepare_tiny_coco_dataset", "train_yolo_tiny", "summarize_yolo_experiment")


def close_assistant(visit) -> None:
    """Close the panel that MLflow opens on a first visit."""
    visit.page.locator("[data-component-id='mlflow.assistant.chat_panel.close']").or_(
        visit.page.get_by_text("MLflow Assistant").locator("xpath=../..").get_by_role("button").last
    ).first.click()


def shows_columns(visit) -> None:
    close_assistant(visit)  # what lies under it is not drawn
    for column in COLUMNS:
        visit.page.get_by_role("columnheader", name=column, exact=True).first.wait_for()


def test_mlflow_runs(visit, stack: Settings, runs: list[dict]) -> None:
    """The link that `make up` and every grid print: the table with the scores, newest first."""
    visit.page.goto(runs_page(stack))
    shows_columns(visit)
    links = visit.page.locator("[role=grid] a[href*='/runs/']")
    links.first.wait_for()
    ids = [re.findall(r"/runs/(\w+)", link.get_attribute("href"))[0] for link in links.all()]
    finished = [run["info"]["run_id"] for run in runs]  # the page shows interrupted ones too
    assert next(number for number in ids if number in finished) == finished[0], "newest first"
    visit.picture()


def printed_links(stack: Settings) -> list[str]:
    """Return the links that people are given: by `make up`, the last report, and what was kept."""
    texts = [subprocess.check_output([ROOT / "scripts/start-services.sh", "--show"], text=True)]
    reports = sorted(ROOT.glob("reports/*/report.html"), key=lambda file: file.stat().st_mtime)
    texts += [file.read_text(encoding="utf-8").replace("&amp;", "&") for file in reports[-1:]]
    if kept := os.environ.get("PRINTED"):
        texts.append(Path(kept).read_text(encoding="utf-8"))
    found = re.findall(rf"http://{re.escape(stack.host)}:[^\s\"'<>()]+", "\n".join(texts))
    return list(dict.fromkeys(found))


def console_is_missing(stack: Settings, link: str) -> bool:
    """Tell whether a link is that of MinIO's console, and this store's image has none."""
    if stack.backend != "docker" or f":{stack.minio_console_port}" not in link:
        return False
    try:
        requests.get(link, timeout=10)
    except requests.ConnectionError:  # Docker's proxy listens all the same
        return True
    return False


def test_every_link_that_is_printed_opens_what_it_should(zenml, visit, stack: Settings) -> None:
    shown: list[tuple[str, Callable[[], object]]] = [
        (rf"{stack.mlflow_url}/.*viewStateShareKey", lambda: shows_columns(visit)),
        (rf"{stack.mlflow_url}/.*/compare-runs", lambda: visit.shows("mAP50-95")),
        (rf"{stack.mlflow_url}/.*/runs/", lambda: visit.shows("mAP50-95", "training_seconds")),
        (rf"{stack.mlflow_url}/.*/models/", lambda: visit.shows("champion")),
        (rf"{stack.zenml_url}/.*/runs/", lambda: visit.shows(*STEPS)),
        (rf"{stack.zenml_url}$", lambda: visit.shows("Welcome back")),
        ("", lambda: visit.page.locator("input[type=password]").first.wait_for()),
    ]
    links = printed_links(stack)
    assert any("viewStateShareKey" in link for link in links), "make up"
    kinds = set()
    for link in links:
        if console_is_missing(stack, link):
            continue
        kind, check = next((kind, check) for kind, check in shown if re.match(kind, link))
        if kind not in kinds:  # one of each kind: a page takes seconds
            visit.page.goto("about:blank")
            visit.page.goto(link)
            check()
        kinds.add(kind)
    assert len(kinds) >= 3, links


def test_mlflow_run(visit, stack: Settings, runs: list[dict]) -> None:
    info = runs[0]["info"]
    visit.page.goto(mlflow_pages.run(stack, info["experiment_id"], info["run_id"]))
    visit.shows("mAP50-95", "precision", "training_seconds")
    visit.picture()
    for artifact in ("results.png", "confusion_matrix.png"):
        visit.page.goto(
            f"{stack.mlflow_url}/#/experiments/{info['experiment_id']}/runs/{info['run_id']}"
            f"/artifacts/{artifact}?workflowType=machine_learning"
        )
        shown = visit.page.locator("img[src^=blob]").or_(visit.page.locator("canvas, .plotly"))
        shown.first.wait_for()


def test_mlflow_compare(visit, stack: Settings, runs: list[dict]) -> None:
    ids = [run["info"]["run_id"] for run in runs[:2]]
    visit.page.goto(mlflow_pages.compare(stack, runs[0]["info"]["experiment_id"], ids))
    visit.shows("Comparing 2 Runs", "mAP50-95")
    visit.picture()


def test_mlflow_model(visit, stack: Settings) -> None:
    """The registered model with its alias, after a promotion."""
    version = registry.champion()
    if version is None:
        pytest.skip("nothing is champion here: make promote")
    visit.page.goto(registry.version_url(stack, version))
    visit.shows(version.name, registry.CHAMPION)
    visit.picture()


def test_the_list_of_experiments_is_on_the_training_side(visit, stack: Settings) -> None:
    visit.page.goto(mlflow_pages.home(stack))
    visit.shows("cv_yolo_tiny")
    assert visit.page.get_by_text("Model training", exact=True).first.is_visible()


def test_zenml_dag(zenml, stack: Settings) -> None:
    from zenml.client import Client

    from src.zenml_pipelines.yolo_training_pipeline import dashboard_url

    done = Client().list_pipeline_runs(sort_by="desc:created", size=20, status="completed")
    trained = [run for run in done if run.steps["train_yolo_tiny"].status == "completed"]
    if not trained:
        pytest.skip("nothing has been trained here: make grid")
    zenml.page.goto(dashboard_url(trained[0].id))
    zenml.shows(*STEPS)
    zenml.picture()
    zenml.page.get_by_text("train_yolo_tiny").first.click()
    zenml.page.get_by_role("tab", name="Logs").click()
    zenml.shows("epoch 1/")
    zenml.picture("zenml_log")
    zenml.page.keyboard.press("Escape")
    zenml.page.get_by_text("summary", exact=True).first.click()
    zenml.page.get_by_role("tab", name="Visualization").last.click()
    zenml.page.get_by_role("button", name="Load Preview").click()
    summary = zenml.page.frame_locator("iframe").first
    summary.get_by_text("mAP50-95").first.wait_for()
    zenml.picture("zenml_summary")


def test_zenml_stack(zenml, stack: Settings) -> None:
    zenml.page.goto(f"{stack.zenml_url}/stacks")
    zenml.shows("mlflow_stack")
    zenml.page.goto(f"{stack.zenml_url}/components")
    zenml.shows("mlflow_tracker", "minio_artifacts")
    zenml.picture()


def test_store(visit, stack: Settings) -> None:
    page = {
        "native": f"{stack.store_url}/minio/",
        "docker": f"http://{stack.host}:{stack.minio_console_port}",
    }[stack.backend]
    if console_is_missing(stack, page):
        pytest.skip("this store's image has no console")
    visit.page.goto(page)
    visit.page.locator("input[type=password]").first.wait_for()
    visit.picture()


@pytest.mark.parametrize("width", [1400, 400])
def test_report(visit, width: int) -> None:
    """The report needs no network, and fits its window."""
    found = sorted(ROOT.glob("reports/*/report.html"), key=lambda file: file.stat().st_mtime)
    if not found:
        pytest.skip("no report: make report")
    visit.page.set_viewport_size({"width": width, "height": 900})
    visit.page.context.set_offline(True)
    visit.page.goto(found[-1].as_uri())
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.hosts == set()
    links = visit.page.locator("a[href*='/#/']").evaluate_all("all => all.map(a => a.href)")
    assert links and all("workflowType=machine_learning" in link for link in links)
    visit.picture(f"report_{width}")


def test_documents_name_pictures_that_are_there() -> None:
    for document in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
            file = Path(document.parent / name)
            assert file.is_file(), f"{document.name}: {name}"
            assert file.stat().st_size < 200_000, f"{name} is too large for the repository"
