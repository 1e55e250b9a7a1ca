"""The layers of src/: each imports from those below it only."""

import ast
import re
import sys
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


# Imported only where another server is started.
ELSEWHERE = {("detector", "src/services/migration.py")}


def modules(source: str) -> Iterator[str]:
    """Yield the file of each import from ``src``, and other packages' names."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            inner = [name for name in within if file_of(name).is_file()]
            names = inner or [node.module]
        yield from (
            str(file_of(name).relative_to(ROOT)) if name.startswith("src.") else name.split(".")[0]
            for name in names
        )


def file_of(module: str) -> Path:
    return (ROOT / module.replace(".", "/")).with_suffix(".py")


@pytest.mark.parametrize("image", ["zenml", "mlflow", "detector"])
def test_an_image_holds_what_its_files_import(image: str) -> None:
    stages = (ROOT / "compose" / "Dockerfile").read_text().split("\nFROM ")
    (stage,) = [text for text in stages if text.startswith(f"base AS {image}\n")]
    copied = set(re.findall(r"src/\S+\.py\b", stage))
    let_through = set(re.findall(r"(?m)^!(\S+)", (ROOT / ".dockerignore").read_text()))
    assert copied
    assert copied <= let_through
    for file in copied:
        wanted = {name for name in modules((ROOT / file).read_text()) if name.startswith("src/")}
        missing = wanted - copied - {name for where, name in ELSEWHERE if where == image}
        assert not missing, file


@pytest.mark.parametrize("name", ["errors", "files"])
def test_what_every_image_may_hold_needs_no_package(name: str) -> None:
    """The detector's image has few packages: neither psutil nor pydantic."""
    found = set(modules((ROOT / "src" / f"{name}.py").read_text()))
    assert {one for one in found if "/" not in one} <= sys.stdlib_module_names
