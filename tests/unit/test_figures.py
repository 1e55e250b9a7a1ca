"""The figures of docs/reliability.md come from tests that are there."""

import os
from datetime import date
from pathlib import Path

import pytest

from tests import figures

PAGE = figures.PAGE.read_text(encoding="utf-8")
REPORT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_a" name="test_one[x]"/>
<testcase classname="tests.unit.test_a.TestGroup" name="test_one[y]"><failure/></testcase>
<testcase classname="tests.unit.test_a" name="test_two"><skipped/></testcase>
<testcase classname="tests.unit.test_a" name="test_three"/>
<testcase classname="env.bats" name="a name, with a comma"/>
</testsuite></testsuites>"""


@pytest.mark.parametrize(("file", "name"), sorted(set(figures.references(PAGE))))
def test_a_row_names_a_test_that_is_there(file: str, name: str) -> None:
    files = list((figures.ROOT / "tests").glob(f"*/{file}"))
    assert files
    begins = f'@test "{name}" {{' if file.endswith(".bats") else f"def {name}("
    assert not name or any(begins in found.read_text(encoding="utf-8") for found in files)


def test_every_row_of_tests_has_its_figure() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and figures.references(line)]
    assert len(rows) == len(figures.ROW.findall(PAGE)) > 40


def test_an_interrupted_run_gives_no_figures(tmp_path: Path) -> None:
    """Pytest's report then ends with a case that has no name."""
    cut = REPORT.replace("</testsuite>", '<testcase classname="" name=""/></testsuite>', 1)
    (tmp_path / "e2e.xml").write_text(cut)
    with pytest.raises(SystemExit, match=r"e2e\.xml is of a run that was interrupted"):
        figures.read(tmp_path)


@pytest.mark.parametrize(
    ("tests", "seen"),
    [
        ("`test_a.py::test_one`", "1 of 2, 2026-11-26"),
        ("`test_a.py`", "2 of 3, 2026-11-26"),
        ("`test_a.py::test_two`", "not yet"),  # it was skipped
        ("`test_a.py::test_three`, `env.bats::a name, with a comma`", "2 of 2, 2026-11-26"),
        ("`test_b.py`", "not yet"),
        ("`test_a.py`, `test_b.py`", "not yet"),  # a part of them
    ],
)
def test_a_row_counts_its_cases(tmp_path: Path, tests: str, seen: str) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    text = f"| a promise | {tests} | not yet |\n"
    filled = figures.filled(text, figures.read(tmp_path), date(2026, 11, 26), "native")
    assert filled == f"| a promise | {tests} | {seen} |\n"
    assert figures.filled(filled, figures.read(tmp_path), date(2026, 11, 26), "native") == filled


STATES = """<testsuites><testsuite>
<testcase classname="tests.e2e.test_bad_days" name="test_up_mends[a]"/>
<testcase classname="tests.e2e.test_bad_days" name="test_up_mends_all_others[b]"/>
<testcase classname="tests.e2e.test_bad_days" name="test_up_mends_pairs[a-b]"><failure/></testcase>
<testcase classname="tests.e2e.test_bad_days" name="test_up_mends_pairs[a-c]"/>
</testsuite></testsuites>"""
ROWS = "| native | not run yet | not run yet | |\n| docker | 9 of 9 | 36 of 36 | 2026-11-26 |\n"


def test_the_starting_states_of_a_backend_and_a_part_run_again(tmp_path: Path) -> None:
    (tmp_path / "first.xml").write_text(STATES)
    os.utime(tmp_path / "first.xml", (0, 0))

    def rows() -> str:
        return figures.filled(ROWS, figures.read(tmp_path), date(2026, 11, 28), "native")

    native, docker = rows().splitlines()
    assert native == "| native | 2 of 2 | 1 of 2 | 2026-11-28 |"
    assert docker == ROWS.splitlines()[1]
    promise = f"| a promise | {figures.ALONE}, {figures.PAIRS} | of each backend: below |\n"
    cases = figures.read(tmp_path)
    assert figures.filled(promise, cases, date(2026, 11, 28), "docker") == promise
    again = [STATES.splitlines()[0], STATES.splitlines()[3], STATES.splitlines()[5]]
    (tmp_path / "again.xml").write_text("".join(again).replace("<failure/>", ""))
    assert "| native | 2 of 2 | 2 of 2 | 2026-11-28 |" in rows()
