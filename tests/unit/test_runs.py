"""Which runs are alive: a run's folder is locked while its process lives."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from src import settings as settings_module
from src.settings import ROOT, Settings
from src.zenml_pipelines.runs import (
    GRID_TAG,
    abandoned,
    claim,
    grid_of,
    new_grid_tag,
    new_name,
    run_name_of,
    runs_folder,
)

OWNER = """
import sys, time
from pathlib import Path
from src import settings
settings.STATE = Path(sys.argv[1])
from src.zenml_pipelines.runs import claim
with claim(settings.Settings.model_validate_json(sys.argv[2]), "another"):
    print(flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings_module, "STATE", tmp_path)
    return tmp_path


@pytest.fixture
def owner(state: Path, settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Return another process, which owns the run ``another``."""
    command = [sys.executable, "-c", OWNER, str(state), settings.model_dump_json()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()  # it owns it now
    yield process
    process.kill()
    process.communicate()


def found(settings: Settings) -> list[str]:
    with abandoned(settings) as names:
        return names


def test_a_run_has_a_folder_for_its_temporary_files_while_it_lasts(settings: Settings) -> None:
    before = tempfile.gettempdir()
    with claim(settings, "mine") as folder:
        assert folder == runs_folder(settings) / "mine"
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).parent == folder
    assert tempfile.gettempdir() == before
    assert list(runs_folder(settings).iterdir()) == []


def test_a_run_that_fails_leaves_nothing(settings: Settings) -> None:
    with pytest.raises(ValueError, match="no good"), claim(settings, "mine"):
        raise ValueError("no good")
    assert list(runs_folder(settings).iterdir()) == []


def test_a_living_run_is_not_abandoned(settings: Settings, owner: subprocess.Popen[bytes]) -> None:
    with claim(settings, "mine"):
        assert found(settings) == []
    assert owner.poll() is None
    assert (runs_folder(settings) / "another").is_dir()


def test_a_killed_run_is_abandoned_until_it_is_dealt_with(
    settings: Settings, owner: subprocess.Popen[bytes]
) -> None:
    owner.kill()
    owner.wait()
    with abandoned(settings) as names:
        assert names == ["another"]
        assert (runs_folder(settings) / "another").is_dir()
    assert found(settings) == []


def test_what_could_not_be_dealt_with_stays_abandoned(
    settings: Settings, owner: subprocess.Popen[bytes]
) -> None:
    owner.kill()
    owner.wait()
    with pytest.raises(OSError, match="no server"), abandoned(settings):
        raise OSError("no server")
    assert found(settings) == ["another"]


def test_before_the_first_run_there_is_none(settings: Settings) -> None:
    assert found(settings) == []


@pytest.mark.parametrize("name", ["grid", "grid_seeds", "my-own-grid", "grid-2026"])
def test_names_and_tags_say_what_they_were_made_from(name: str) -> None:
    assert run_name_of(new_name(name)) == name
    assert new_grid_tag(name).startswith(GRID_TAG)
    assert grid_of(new_grid_tag(name)) == name
