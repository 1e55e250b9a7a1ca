"""The documents' commands are make's, both labs say the same, the CI examples are valid."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from src.settings import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
LABS = (ROOT / "docs" / "lab.md", ROOT / "docs" / "lab.fr.md")


def commands(document: Path) -> list[str]:
    blocks = re.findall(r"(?ms)^```console\n(.*?)^```", document.read_text(encoding="utf-8"))
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def targets() -> set[str]:
    return set(re.findall(r"(?m)^([a-z-]+):.*## ", (ROOT / "Makefile").read_text()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_every_make_target_named_in_a_document_is_there(document: Path) -> None:
    named = re.findall(r"`make ([a-z-]+)", document.read_text(encoding="utf-8"))
    named += [word for line in commands(document) for word in re.findall(r"^make ([a-z-]+)", line)]
    assert set(named) <= targets()


def test_both_labs_have_the_same_commands_and_headings() -> None:
    assert commands(LABS[0]) == commands(LABS[1])
    english, french = (lab.read_text(encoding="utf-8") for lab in LABS)
    for pattern in (r"(?m)^#+ ", r"(?m)^\d\. ", r"`make [^`]+`", r"(?m)^\*\*"):
        assert len(re.findall(pattern, english)) == len(re.findall(pattern, french)), pattern


@pytest.mark.parametrize("document", LABS, ids=lambda d: d.name)
def test_make_takes_each_of_the_labs_commands(document: Path) -> None:
    for line in commands(document):
        words = line.split()
        if words[0] == "make":
            subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        else:
            assert (ROOT / words[0]).is_file(), line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_links_within_the_repository_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (document.parent / link).exists(), link


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.gitlab-ci", ".gitlab-ci.yml"),
        ("vendor.github-workflows", ".github/workflows/ci.yml"),
    ],
)
def test_ci_examples_fit_their_schemas(schema: str, file: str) -> None:
    command = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", schema]
    done = subprocess.run([*command, ROOT / file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_ci_examples_call_targets_that_are_there() -> None:
    gitlab = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())
    github = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    scripts = [*gitlab["check"]["script"], *gitlab["train"]["script"]]
    scripts += [
        step["run"] for job in github["jobs"].values() for step in job["steps"] if "run" in step
    ]
    assert len(scripts) == 6
    for script in scripts:
        words = script.split()
        assert words[0] == "make"
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)


def test_the_devcontainer_forwards_the_default_ports() -> None:
    known = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    example = (ROOT / ".env.example").read_text()
    names = ("ZENML_PORT", "MLFLOW_PORT", "MINIO_PORT")
    ports = [int(re.search(rf"(?m)^{name}=(\d+)", example)[1]) for name in names]
    assert known["forwardPorts"] == ports
