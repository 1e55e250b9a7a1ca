"""make setup's choice of PyTorch: stub wheels on loopback indexes, the real pip."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.settings import ROOT
from tests.indexes import LOCK, served_indexes


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of the package indexes, and the lock."""
    with served_indexes(tmp_path_factory.mktemp("indexes")) as served:
        yield served


@pytest.fixture
def checkout(tmp_path: Path, indexes: tuple[str, str]) -> Path:
    """Return a copy of the checkout whose lock is small, all but the packages set up."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    for name in ("scripts", "src"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / ".env.example", folder)
    shutil.copy(ROOT / ".env.example", folder / ".env")
    (folder / "requirements.txt").write_text(indexes[1])
    subprocess.run(["git", "init", "-q", folder], check=True)
    # What needs the real packages is done already.
    (folder / ".dvc").mkdir()
    later = folder.stat().st_mtime + 100
    (folder / ".stack" / "docker").mkdir(parents=True)
    for done in (".stack/docker/secrets-written", ".dvc/config.local"):
        (folder / done).touch()
        os.utime(folder / done, (later, later))
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    return folder


def set_up(checkout: Path, address: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{checkout.parent / 'fakes'}:{os.environ['PATH']}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "TORCH", "VENV"))}
    environment = kept | {
        "PATH": path,
        "PYTHON": sys.executable,
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": f"{address}/pypi",
        "PIP_NO_CACHE_DIR": "1",
        "TORCH_INDEX": f"{address}/cpu",
    }
    return subprocess.run(
        [checkout / "scripts" / "ensure-setup.sh"],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def installed(checkout: Path) -> dict[str, str]:
    listed = subprocess.run(
        [checkout / ".venv" / "bin" / "python", "-m", "pip", "list", "--format=freeze"],
        capture_output=True,
        text=True,
        check=True,
    )
    pairs = dict(line.split("==") for line in listed.stdout.split())
    return {name: v for name, v in pairs.items() if name not in ("pip", "setuptools", "wheel")}


def gpu(checkout: Path, answers: bool) -> None:
    fake = checkout.parent / "fakes" / "nvidia-smi"
    fake.write_text(f"#!/bin/sh\nexit {int(not answers)}\n")
    fake.chmod(0o755)


def test_without_a_gpu_the_cpu_build_is_chosen_and_kept(checkout: Path, indexes) -> None:
    address, _ = indexes
    gpu(checkout, answers=False)
    first = set_up(checkout, address)
    assert first.returncode == 0, first.stderr
    assert installed(checkout) == {
        "tiny": "1.0",
        "torch": "2.14.1+cpu",
        "torchvision": "0.29.1+cpu",
    }
    assert "CPU build" in first.stderr
    again = set_up(checkout, address)
    assert (again.returncode, again.stderr) == (0, "")
    gpu(checkout, answers=True)  # auto keeps what is there; TORCH changes it
    assert set_up(checkout, address).stderr == ""
    changed = set_up(checkout, address, TORCH="cuda")
    assert changed.returncode == 0, changed.stderr
    assert installed(checkout)["torch"] == "2.14.1"
    assert installed(checkout)["nvidia-stub"] == "13.0"
    back = set_up(checkout, address, TORCH="cpu")
    assert back.returncode == 0, back.stderr
    assert installed(checkout)["torch"] == "2.14.1+cpu"
    assert "nvidia-stub" not in installed(checkout), "5 GB stay behind"


def test_with_a_gpu_the_cuda_build_is_chosen(checkout: Path, indexes) -> None:
    gpu(checkout, answers=True)
    assert set_up(checkout, indexes[0]).returncode == 0
    assert installed(checkout)["torch"] == "2.14.1"


def test_an_index_out_of_reach_costs_what_is_said(checkout: Path, indexes) -> None:
    address, _ = indexes
    gpu(checkout, answers=False)
    nowhere = "http://127.0.0.1:9/cpu"
    refused = set_up(checkout, address, TORCH_INDEX=nowhere, TORCH="cpu")
    assert refused.returncode == 1
    assert "set TORCH_INDEX to an index that has them" in refused.stderr
    done = set_up(checkout, address, TORCH_INDEX=nowhere)
    assert done.returncode == 0, done.stderr
    assert "5 GB of CUDA" in done.stderr
    assert installed(checkout)["torch"] == "2.14.1"
    assert set_up(checkout, address, TORCH_INDEX=nowhere).stderr == "", "tried at every make"


def test_a_wheel_that_is_not_the_locks_is_refused(checkout: Path, indexes) -> None:
    lock = checkout / "requirements.txt"
    lock.write_text(lock.read_text().replace("sha256:", "sha256:00", 1)[:-2] + "\n")
    lock.write_text(LOCK.format("0" * 64))
    done = set_up(checkout, indexes[0])
    assert done.returncode == 1
    assert "HASH" in done.stderr.upper()
    assert "tiny" not in installed(checkout)


def test_a_nonsense_torch_is_refused(checkout: Path, indexes) -> None:
    done = set_up(checkout, indexes[0], TORCH="rocm")
    assert done.returncode == 1
    assert "choose auto, cpu or cuda" in done.stderr
