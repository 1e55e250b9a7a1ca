"""Links into MLflow's pages; that the pages show what they should is tests/browser's."""

import ast
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from src import mlflow_pages
from src.settings import ROOT, Settings
from src.training.where import runs_page

LINKS = {
    "home": lambda s: mlflow_pages.home(s),
    "experiment": lambda s: mlflow_pages.experiment(s, "2"),
    "run": lambda s: mlflow_pages.run(s, "2", "abc"),
    "compare": lambda s: mlflow_pages.compare(s, "2", ["abc", "def"]),
    "version": lambda s: mlflow_pages.version(s, "person-detector", "3"),
}


def query(link: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(link).fragment.partition("?")[2])


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS.keys())
def test_every_link_opens_the_training_side(settings: Settings, link) -> None:
    made = link(settings)
    assert made.startswith(f"{settings.mlflow_url}/#/")
    assert query(made)["workflowType"] == ["machine_learning"]
    assert not set(made) & set(' "[]()<>'), "a terminal or Markdown would cut it"


def test_compared_runs_are_json_lists(settings: Settings) -> None:
    asked = query(mlflow_pages.compare(settings, "2", ["abc", "def"]))
    assert json.loads(asked["runs"][0]) == ["abc", "def"]
    assert json.loads(asked["experiments"][0]) == ["2"]


@pytest.mark.parametrize("tail", ["", "?workflowType=machine_learning"])
def test_a_run_recorded_under_another_port_is_found(settings: Settings, tail: str) -> None:
    known = f"http://localhost:1/#/experiments/2/runs/abc{tail}"
    assert mlflow_pages.moved(known, settings) == mlflow_pages.run(settings, "2", "abc")
    assert mlflow_pages.experiment_of(known) == "2"


def test_the_view_names_its_columns() -> None:
    view = json.loads(mlflow_pages.view(["mAP50-95"], ["epochs"]))
    assert view["selectedColumns"][1:] == ["metrics.`mAP50-95`", "params.`epochs`"]
    assert (view["orderByKey"], view["orderByAsc"]) == ("attributes.start_time", False)


def test_no_other_module_makes_a_link() -> None:
    # The table of services has the home page's, as a template of ports.
    allowed = {ROOT / "src" / "mlflow_pages.py", ROOT / "src" / "services" / "table.py"}
    for file in set((ROOT / "src").rglob("*.py")) - allowed:
        texts = [
            node.value
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        assert not [t for t in texts if "#/" in t], file


def test_the_tables_page_is_the_home(settings: Settings) -> None:
    from src.services.table import shell_lines

    assert f"PAGE_native_mlflow={mlflow_pages.home(settings)}" in list(shell_lines(settings))


@pytest.mark.parametrize("ours", [True, False])
def test_the_runs_are_looked_up_in_this_checkouts_server_alone(
    settings: Settings, ours: bool
) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("X-Checkout", settings.checkout if ours else "another")
            self.end_headers()
            self.wfile.write(b'{"experiment": {"experiment_id": "7"}}')

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        told = settings.model_copy(update={"mlflow_port": server.server_port})
        assert ("experiments/7/runs" in runs_page(told)) == ours
        server.shutdown()
