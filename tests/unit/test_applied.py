"""The sign-ins that the servers were last given."""

from collections.abc import Callable
from pathlib import Path

import pytest

from src import settings as settings_module
from src.bootstrap.applied import NAMES, Applied, AppliedStore, SignIn, former_buckets
from src.settings import Settings, read_env_file

MakeSettings = Callable[..., Settings]
NEW = {
    "zenml_admin_username": "boss",
    "zenml_admin_password": "new-zenml-password",
    "mlflow_admin_password": "new-mlflow-password",
}


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings_module, "STATE", tmp_path)
    return tmp_path / "native" / "applied.env"


def test_without_a_file_the_settings_are_what_was_applied(settings: Settings, file: Path) -> None:
    applied = Applied(settings)
    assert applied.zenml == SignIn("admin", settings.zenml_admin_password)
    assert applied.mlflow == SignIn("admin", settings.mlflow_admin_password)
    assert not file.exists()


def test_after_a_change_the_old_sign_in_is_known_until_the_new_one_is_stored(
    settings: Settings, make_settings: MakeSettings
) -> None:
    Applied(settings).remember()
    changed = make_settings(**NEW)
    applied = Applied(changed)
    assert applied.zenml == SignIn("admin", settings.zenml_admin_password)
    applied.remember()
    for known in (applied, Applied(changed)):
        assert known.zenml == SignIn("boss", "new-zenml-password")


def test_one_servers_change_is_not_taken_for_the_others(
    settings: Settings, make_settings: MakeSettings
) -> None:
    Applied(settings).remember()
    changed = make_settings(**NEW)
    Applied(changed).remember("ZENML")
    assert Applied(changed).mlflow.password == settings.mlflow_admin_password
    Applied(changed).remember("MLFLOW")
    assert Applied(changed).mlflow.password == "new-mlflow-password"


def test_the_file_is_private_and_written_only_when_it_changes(
    settings: Settings, file: Path, mode_of: Callable[[Path], str]
) -> None:
    Applied(settings).remember()
    assert mode_of(file) == "600"
    assert set(read_env_file(file)) == set(NAMES)
    first = file.stat().st_ino  # each writing makes another file
    Applied(settings).remember()
    assert file.stat().st_ino == first


@pytest.mark.parametrize("torn", [b"", b"\x01\xff{", b"half a l"])
def test_a_torn_file_is_as_none_and_made_anew(settings: Settings, file: Path, torn: bytes) -> None:
    Applied(settings).remember()
    whole = file.read_bytes()
    file.write_bytes(torn)
    applied = Applied(settings)
    assert applied.zenml == SignIn("admin", settings.zenml_admin_password)
    applied.remember()
    assert file.read_bytes() == whole

    record = settings.backend_state / "store.json"
    record.write_bytes(torn)
    assert AppliedStore.last(settings) == AppliedStore.wanted(settings)


def test_every_bucket_that_zenmls_artifacts_may_be_in_is_known(make_settings: MakeSettings) -> None:
    assert former_buckets(make_settings()) == []
    for name, former in (
        ("one", []),
        ("two", ["one"]),
        ("three", ["one", "two"]),
        ("one", ["two", "three"]),
    ):
        settings = make_settings(zenml_bucket=name)
        applied = AppliedStore.wanted(settings)
        applied.former = former_buckets(settings)
        assert sorted(applied.former) == sorted(former)
        applied.remember(settings)
        assert sorted(former_buckets(settings)) == sorted(former)
    assert AppliedStore.last(make_settings(zenml_s3_access_key="other")).users[0] == "zenml"
