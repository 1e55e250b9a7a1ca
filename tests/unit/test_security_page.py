"""docs/security.md and the tests of refusals name each other: N of N."""

import ast
import re

import pytest

from src.settings import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()
SHORT = {
    "R": "tests/e2e/test_refusals.py",
    "C": "tests/e2e/test_cluster.py",
    "S": "tests/e2e/test_champion.py",
    "V": "tests/unit/test_server.py",
}


def defined(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    found = (node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return {name for name in found if name.startswith("test_")}


NAMED = [
    (SHORT.get(file, file), name) for file, name in re.findall(r"`([\w/.]+)::(test_\w+)`", PAGE)
]


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda value: value.split("/")[-1])
def test_every_test_that_the_page_names_exists(file: str, name: str) -> None:
    assert name in defined(file)


def test_the_page_names_every_test_of_refusals() -> None:
    assert {name for file, name in NAMED if file == SHORT["R"]} == defined(SHORT["R"])


def test_every_row_of_the_page_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "| test |" not in line]
    assert rows
    assert [row for row in rows if "::test_" not in row] == []
