"""What the shell is told of the settings."""

import pytest

from src.errors import run_command
from src.services import __main__ as module
from src.settings import Settings, SettingsError


def test_the_shell_is_told_the_settings_and_the_addresses(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "load_settings", lambda: settings)
    assert run_command(module.main) == 0
    told = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert told["MLFLOW_PORT"] == "5000"
    assert told["LOOPBACK"] == "true"
    assert told["URL_object_store"] == "http://localhost:9000"
    assert {field.upper() for field in Settings.model_fields} <= told.keys()


def test_faults_go_to_stderr_and_nothing_to_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Settings:
        raise SettingsError("MODE: wrong")

    monkeypatch.setattr(module, "load_settings", fail)
    assert run_command(module.main) == 1
    assert capsys.readouterr() == ("", "error: MODE: wrong\n")
