"""What `make test-faults` has seen, written into the last columns of docs/reliability.md.

``python -m tests.figures files`` prints the test files that the page's rows name, without those of
tests/e2e; ``python -m tests.figures write FOLDER`` reads pytest's and bats' JUnit reports there. A
row names its tests as ``file`` or ``file::name``; all their cases count, each as the last report of
it says. The row of the backend in ``TEST_MODE`` counts the starting states.
"""

from __future__ import annotations

import os
import re
import sys
from datetime import date
from pathlib import Path
from xml.etree.ElementTree import parse

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
REFERENCE = re.compile(r"`(test_\w+\.py|\w+\.bats)(?:::([^`]+))?`")
ROW = re.compile(r"^(\|.*`(?:test_\w+\.py|\w+\.bats)[^|]*\| )([^|]*)( \|)$", re.MULTILINE)

STATES = re.compile(r"(?m)^\| (native|docker) \| (.*) \| (.*) \| .*\|$")
ALONE = "`test_bad_days.py::test_up_mends`, `test_bad_days.py::test_up_mends_all_others`"
PAIRS = "`test_bad_days.py::test_up_mends_pairs`"

# Whether each passed, by its file, its name without parameters, and all that tells it from others.
Cases = dict[tuple[str, str, str], bool]


def references(text: str) -> list[tuple[str, str]]:
    """Return the files and names, blank for a whole file, that a text names."""
    return REFERENCE.findall(text)


def path_of(file: str) -> Path:
    """Return where a test file lies; raises ``FileNotFoundError``."""
    for found in (ROOT / "tests").glob(f"*/{file}"):
        return found
    raise FileNotFoundError(file)


def read(folder: Path) -> Cases:
    """Return whether each case passed that was seen: what was skipped was not."""
    cases: Cases = {}
    for report in sorted(folder.rglob("*.xml"), key=lambda file: file.stat().st_mtime):
        for case in parse(report).iter("testcase"):
            file, name = case.get("classname", ""), case.get("name", "")
            whole = f"{file}::{name}"
            if not file.endswith(".bats"):
                module = next(iter(re.findall(r"\btest_\w+", file)), None)
                if module is None:
                    sys.exit(f"error: {report.name} is of a run that was interrupted: no figures")
                file, name = f"{module}.py", name.partition("[")[0]
            if case.find("skipped") is None:
                passed = case.find("failure") is None and case.find("error") is None
                cases[file, name, whole] = passed
    return cases


def of_row(row: str, cases: Cases) -> list[bool]:
    """Return whether each case passed of those that a row names; nothing unless all have run."""
    found: list[bool] = []
    for file, name in references(row):
        own = [
            passed
            for (seen_file, seen_name, _), passed in cases.items()
            if seen_file == file and name in ("", seen_name)
        ]
        if not own:
            return []
        found += own
    return found


def filled(text: str, cases: Cases, today: date, backend: str) -> str:
    """Return the page with the last columns of each row whose tests have run."""

    def fill(row: re.Match[str]) -> str:
        seen = of_row(row[0], cases) if ALONE not in row[0] else []  # each backend has its own
        return f"{row[1]}{_share(seen)}, {today:%Y-%m-%d}{row[3]}" if seen else row[0]

    def fill_states(row: re.Match[str]) -> str:
        alone, pairs = (of_row(names, cases) for names in (ALONE, PAIRS))
        if row[1] != backend or not (alone or pairs):
            return row[0]
        told = (_share(alone) if alone else row[2], _share(pairs) if pairs else row[3])
        return f"| {backend} | {told[0]} | {told[1]} | {today:%Y-%m-%d} |"

    return STATES.sub(fill_states, ROW.sub(fill, text))


def _share(passed: list[bool]) -> str:
    return f"{sum(passed)} of {len(passed)}"


def main(arguments: list[str]) -> int:
    """Run the command line described above."""
    text = PAGE.read_text(encoding="utf-8")
    match arguments:
        case ["files"]:
            files = {path_of(file) for file, _ in references(text)}
            kept = sorted(file for file in files if file.parent.name != "e2e")
            print(*(file.relative_to(ROOT) for file in kept), sep="\n")
        case ["write", folder]:
            backend = os.environ.get("TEST_MODE", "native")
            written = filled(text, read(Path(folder)), date.today(), backend)
            PAGE.write_text(written, encoding="utf-8")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
