"""What the unit tests share: valid settings, and libraries kept away from the home folder."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.settings import EXAMPLE_FILE, Settings, read_env_file

MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="session", autouse=True)
def _private_libraries(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keep Ultralytics' and Matplotlib's own files out of the home folder, and them offline."""
    folder = tmp_path_factory.mktemp("libraries")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("YOLO_CONFIG_DIR", "MPLCONFIGDIR"):
            patch.setenv(name, str(folder))
        patch.setenv("YOLO_OFFLINE", "true")
        patch.setenv("YOLO_AUTOINSTALL", "false")
        yield


@pytest.fixture
def valid() -> dict[str, str]:
    """``.env.example`` with its blank secrets filled, each differently."""
    return {
        key: value or hashlib.sha256(key.encode()).hexdigest()[:32]
        for key, value in read_env_file(EXAMPLE_FILE).items()
    }


@pytest.fixture
def make_settings(valid: dict[str, str]) -> MakeSettings:
    """Return valid settings with some changed: ``make_settings(dataset="coco128")``."""

    def make(**changes: object) -> Settings:
        values = {key.lower(): value for key, value in valid.items()}
        return Settings.model_validate(values | changes)

    return make


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


@pytest.fixture
def mode_of() -> Callable[[Path], str]:
    """Return a file's permission bits as ``ls`` users write them: ``600``."""
    return lambda path: f"{path.stat().st_mode & 0o777:o}"
