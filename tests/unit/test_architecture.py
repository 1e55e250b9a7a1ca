"""The layers of src/: each imports from those below it only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.settings import ROOT

LAYERS = (
    "errors bulk_deletion support machine",
    "files locks",
    "settings",
    "client mlflow_pages pages",
    "services",
    "bootstrap",
    "checkpoints inputs download",
    "datasets",
    "training train_cv",
    "champion prune",
    "zenml_steps",
    "zenml_pipelines",
    "decision",
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}


def imported(source: str) -> Iterator[str]:
    """Yield the layer of each import from ``src``, those inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "src":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("src."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("src."))


def upward(source: str, layer: str) -> list[str]:
    return [name for name in imported(source) if RANK.get(name, -1) > RANK[layer]]


@pytest.mark.parametrize(
    "file", sorted((ROOT / "src").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT))
)
def test_no_import_runs_upward(file: Path) -> None:
    layer = file.relative_to(ROOT / "src").with_suffix("").parts[0]
    if layer != "__init__":
        assert upward(file.read_text(), layer) == []


@pytest.mark.parametrize(
    "source",
    [
        "from src.decision import gate",
        "from src import train_cv",
        "import src.zenml_pipelines.runs",
        "def f():\n    from src.champion.registry import MODEL",
    ],
)
def test_an_import_that_runs_upward_is_found(source: str) -> None:
    assert upward(source, "datasets") != []
    assert upward(source, "decision") == []
