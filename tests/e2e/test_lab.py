"""Each command of the lab's documents, in one shared stack, from a fresh copy of the checkout."""

import re

import pytest
import yaml

from tests.e2e.conftest import ROOT, Checkout

pytestmark = pytest.mark.e2e
SMALL = ("EPOCHS=1", "IMGSZ=64")


def commands() -> list[str]:
    """Return the commands of both documents, which are the same (tests/unit/test_documents.py)."""
    text = (ROOT / "docs" / "lab.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?ms)^```console\n(.*?)^```", text)
    return [line for block in blocks for line in block.splitlines() if line]


def test_the_ci_examples_training_runs(checkout: Checkout) -> None:
    jobs = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text(encoding="utf-8"))
    (script,) = jobs["train"]["script"]
    assert "zenml_yolo_tiny_baseline: trained" in checkout.run(*script.split(), timeout=900)


def test_every_command_of_the_lab_runs(checkout: Checkout) -> None:
    said = {}
    for line in commands():
        words = line.split()
        trains = words[:1] == ["make"] and words[1] in ("baseline", "grid")
        said[line] = checkout.run(*words, *(SMALL if trains else ()), timeout=900)
    assert "from the cache" in said["make baseline"]  # the second time
    assert "workflowType=machine_learning" in said["make grid"]
    assert "report.html" in said["make report"]


def test_make_shell_finds_this_stack(checkout: Checkout) -> None:
    said = checkout.run("bash", "-c", "echo 'zenml stack get; dvc status' | make shell")
    assert "mlflow_stack" in said
    assert "up to date" in said


def test_exercise_an_axis_more(checkout: Checkout) -> None:
    grid = (checkout.root / "configs" / "grid_scratch.yaml").read_text()
    mine = re.sub(r"(?m)^grid:\n", "grid:\n  batch: [4, 8]\n", grid)
    (checkout.root / "configs" / "mine.yaml").write_text(mine)
    printed = checkout.make("grid", "GRID=configs/mine.yaml", *SMALL)
    assert "configs/mine.yaml: " in printed
    assert printed.count("epoch 1/1") >= 1


def test_exercise_changed_data_miss_the_cache(checkout: Checkout) -> None:
    data = checkout.root / "data" / "tiny_person"
    picture = sorted((data / "images" / "train").iterdir())[0]
    picture.unlink()
    (data / "labels" / "train" / f"{picture.stem}.txt").unlink()
    checkout.make("data")
    assert "zenml_yolo_tiny_baseline: trained" in checkout.make("baseline", *SMALL)
