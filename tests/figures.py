"""What `make test-faults` has seen, written into the last columns of docs/reliability.md.

``python -m tests.figures files`` prints the test files that the page's rows name, without those of
tests/e2e; ``python -m tests.figures write FOLDER`` reads pytest's and bats' JUnit reports there. A
row names its tests as ``file`` or ``file::name``; all their cases count.
"""

from __future__ import annotations

import re
import sys
from datetime import date
from pathlib import Path
from xml.etree.ElementTree import parse

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
REFERENCE = re.compile(r"`(test_\w+\.py|\w+\.bats)(?:::([^`]+))?`")
ROW = re.compile(r"^(\|.*`(?:test_\w+\.py|\w+\.bats)[^|]*\| )([^|]*)( \|)$", re.MULTILINE)

Cases = dict[tuple[str, str], list[bool]]


def references(text: str) -> list[tuple[str, str]]:
    """Return the files and names, blank for a whole file, that a text names."""
    return REFERENCE.findall(text)


def path_of(file: str) -> Path:
    """Return where a test file lies; raises ``FileNotFoundError``."""
    for found in (ROOT / "tests").glob(f"*/{file}"):
        return found
    raise FileNotFoundError(file)


def read(folder: Path) -> Cases:
    """Return whether each case passed, by its file and its name without parameters.

    What was skipped was not seen, and does not count.
    """
    cases: Cases = {}
    for report in folder.rglob("*.xml"):
        for case in parse(report).iter("testcase"):
            file, name = case.get("classname", ""), case.get("name", "")
            if not file.endswith(".bats"):
                module = next(iter(re.findall(r"\btest_\w+", file)), None)
                if module is None:
                    sys.exit(f"error: {report.name} is of a run that was interrupted: no figures")
                file, name = f"{module}.py", name.partition("[")[0]
            if case.find("skipped") is None:
                passed = case.find("failure") is None and case.find("error") is None
                cases.setdefault((file, name), []).append(passed)
    return cases


def of_row(row: str, cases: Cases) -> list[bool]:
    """Return whether each case passed of those that a row names; nothing unless all have run."""
    found: list[bool] = []
    for file, name in references(row):
        own = [
            passed
            for (seen_file, seen_name), all_of in cases.items()
            if seen_file == file and name in ("", seen_name)
            for passed in all_of
        ]
        if not own:
            return []
        found += own
    return found


def filled(text: str, cases: Cases, today: date) -> str:
    """Return the page with the last column of each row whose tests have run."""

    def fill(row: re.Match[str]) -> str:
        seen = of_row(row[0], cases)
        if not seen:
            return row[0]
        return f"{row[1]}{sum(seen)} of {len(seen)}, {today:%Y-%m-%d}{row[3]}"

    return ROW.sub(fill, text)


def main(arguments: list[str]) -> int:
    """Run the command line described above."""
    text = PAGE.read_text(encoding="utf-8")
    match arguments:
        case ["files"]:
            files = {path_of(file) for file, _ in references(text)}
            kept = sorted(file for file in files if file.parent.name != "e2e")
            print(*(file.relative_to(ROOT) for file in kept), sep="\n")
        case ["write", folder]:
            PAGE.write_text(filled(text, read(Path(folder)), date.today()), encoding="utf-8")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
