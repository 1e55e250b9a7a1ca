"""No checkpoint runs code when it is loaded, and a kept one is the one that was kept."""

import contextlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from src import OPT_OUTS, checkpoints
from src.checkpoints import CheckpointError, keep, kept, load
from src.files import sha256
from src.settings import ROOT


class Poison:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch '{self.marker}'",))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path / "kept")
    return tmp_path / "kept"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    from ultralytics import YOLO

    file = tmp_path / "it's good.weights"  # neither the apostrophe nor the suffix may matter
    YOLO("yolov8n.yaml").save(str(tmp_path / "best.pt"))
    return (tmp_path / "best.pt").rename(file)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "model"])
def test_a_poisoned_checkpoint_is_refused_and_runs_nothing(tmp_path: Path, form: str) -> None:
    import torch

    marker, file = tmp_path / "ran", tmp_path / "poison.pt"
    content = {"model": Poison(marker), "epoch": 1}
    if form == "pickle":
        file.write_bytes(pickle.dumps(content, protocol=2))
    elif form == "model":  # within what is allowed otherwise
        torch.save({"model": torch.nn.Identity(), "train_args": {"a": Poison(marker)}}, file)
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match=r"^holds more than .*system") as refusal:
        load(kept(keep(file)))
    assert "\n" not in str(refusal.value)
    assert not marker.exists()
    with contextlib.suppress(RuntimeError):  # it would have run, whatever became of the rest
        torch.load(file, weights_only=False)
    assert marker.exists()


def test_a_checkpoint_loads_under_any_name(good: Path) -> None:
    assert load(kept(keep(good))).task == "detect"
    assert load(good).task == "detect"  # as it is, too


def test_a_checkpoint_is_kept_once_under_its_hash(good: Path, folder: Path) -> None:
    digest = keep(good)
    before = kept(digest).stat().st_ino
    assert keep(good) == digest == sha256(kept(digest))
    assert kept(digest).stat().st_ino == before
    assert list(folder.iterdir()) == [kept(digest)]


def test_a_kept_checkpoint_that_changed_is_refused(good: Path) -> None:
    copy = kept(keep(good))
    copy.write_bytes(copy.read_bytes() + b"!")
    with pytest.raises(CheckpointError, match="was changed"):
        load(copy)
    assert load(kept(keep(good))).task == "detect"  # kept again


def test_half_a_copy_is_replaced(good: Path, folder: Path) -> None:
    folder.mkdir()
    kept(sha256(good)).write_bytes(good.read_bytes()[:100])
    assert load(kept(keep(good))).task == "detect"


@pytest.mark.parametrize("how", ["imported before", "too old", "switched off"])
def test_a_start_is_refused_where_ultralytics_would_run_code(tmp_path: Path, how: str) -> None:
    first = {
        "imported before": "import ultralytics",
        "too old": "import torch; del torch.serialization.get_unsafe_globals_in_checkpoint",
        "switched off": "import src, os; os.environ['ULTRALYTICS_SAFE_LOAD'] = '0'",
    }[how]
    code = f"""
{first}
from src.checkpoints import CheckpointError, load
try:
    load("yolov8n.yaml")
except CheckpointError as error:
    print(error)
"""
    environment = os.environ | {"YOLO_CONFIG_DIR": str(tmp_path)}
    environment.pop("ULTRALYTICS_SAFE_LOAD", None)
    said = subprocess.check_output(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, text=True
    )
    assert "would run the code in checkpoints" in said


def test_safe_loading_is_among_the_opt_outs_of_every_process() -> None:
    assert OPT_OUTS["ULTRALYTICS_SAFE_LOAD"] == "true"
