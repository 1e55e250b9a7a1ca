"""Promotion and the way back, on MLflow's real registry."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from src.champion import model, registry
from src.champion.model import FILES_TAG
from src.champion.registry import (
    CHAMPION,
    MODEL,
    PREVIOUS,
    REPLACES,
    ROLLED_BACK,
    RegistryError,
    champion,
    find_run,
    is_outdated,
    promote,
    rollback,
)
from src.settings import Settings
from src.training.provenance import TRAINED
from tests.unit.mlflow_runs import DATASET, tracked_run

pytestmark = pytest.mark.usefixtures("registry", "no_export")


class Killed(BaseException):
    """In place of the process's end: nothing catches it."""


CHANGES = (
    "create_registered_model",
    "create_model_version",
    "set_model_version_tag",
    "delete_model_version_tag",
    "set_registered_model_alias",
)


def killed_before(call: int, action: Callable[[], object]) -> bool:
    """Do something, but for its changes from the ``call``-th on; whether it came to that one."""
    with pytest.MonkeyPatch.context() as patch:
        made = 0

        def counted(name: str) -> Callable[..., object]:
            original = getattr(MlflowClient, name)

            def change(*given: object, **named: object) -> object:
                nonlocal made
                if made == call:
                    raise Killed
                made += 1
                return original(*given, **named)

            return change

        for name in CHANGES:
            patch.setattr(MlflowClient, name, counted(name))
        try:
            action()
        except Killed:
            return True
    return False


def registered_by_an_earlier_release(run: Run) -> ModelVersion:
    """Make a run's bare checkpoint the champion."""
    client = MlflowClient()
    if not client.search_registered_models(f"name = '{MODEL}'"):
        client.create_registered_model(MODEL)
    version = client.create_model_version(
        MODEL, f"{run.info.artifact_uri}/weights", run.info.run_id
    )
    if (old := champion()) is not None:
        client.set_registered_model_alias(MODEL, PREVIOUS, old.version)
    client.set_registered_model_alias(MODEL, CHAMPION, version.version)
    return version


def aliases() -> dict[str, str]:
    """Return the names of the runs under the model's aliases."""
    client = MlflowClient()
    held = client.get_registered_model(MODEL).aliases
    versions = {alias: client.get_model_version(MODEL, version) for alias, version in held.items()}
    return {a: str(client.get_run(v.run_id).info.run_name) for a, v in versions.items()}


def test_before_the_first_promotion_there_is_no_champion(settings: Settings) -> None:
    assert champion() is None
    promote(tracked_run("one"), settings, "first")
    assert champion(PREVIOUS) is None


def test_the_first_promotion_registers_the_weights(settings: Settings) -> None:
    run = tracked_run("one")
    version = promote(run, settings, "0.8 is above 0.7")
    assert aliases() == {CHAMPION: "one"}
    held = champion()
    assert held is not None
    assert held.version == version.version
    assert held.source == f"{run.info.artifact_uri}/model"
    assert held.tags == {
        "reason": "0.8 is above 0.7",
        "zenml_run": "",
        "dataset_md5": DATASET,
        TRAINED: run.data.tags[TRAINED],
        FILES_TAG: "{}",
    }


def test_the_replaced_champion_stays_as_previous(settings: Settings) -> None:
    for name in ("one", "two", "three"):
        promote(tracked_run(name), settings, "better")
    assert aliases() == {CHAMPION: "three", PREVIOUS: "two"}


def test_promoting_the_champion_again_changes_nothing(settings: Settings) -> None:
    promote(tracked_run("one"), settings, "first")
    run = tracked_run("two")
    first = promote(run, settings, "better")
    again = promote(run, settings, "once more")
    assert again.version == first.version
    assert aliases() == {CHAMPION: "two", PREVIOUS: "one"}
    held = champion()
    assert held is not None
    assert held.tags["reason"] == "better"


def test_a_former_champion_comes_back_under_its_version(settings: Settings) -> None:
    run = tracked_run("one")
    first = promote(run, settings, "first")
    promote(tracked_run("two"), settings, "better")
    assert promote(run, settings, "better after all").version == first.version
    assert aliases() == {CHAMPION: "one", PREVIOUS: "two"}


def test_rollback_exchanges_the_two(settings: Settings) -> None:
    first = promote(tracked_run("one"), settings, "first")
    second = promote(tracked_run("two"), settings, "better")
    now, replaced = rollback()
    assert (now.version, replaced.version) == (first.version, second.version)
    assert aliases() == {CHAMPION: "one", PREVIOUS: "two"}
    rollback()
    assert aliases() == {CHAMPION: "two", PREVIOUS: "one"}


def test_there_is_no_way_back_from_nothing_or_from_the_first(settings: Settings) -> None:
    with pytest.raises(RegistryError, match="no previous champion"):
        rollback()
    promote(tracked_run("one"), settings, "first")
    with pytest.raises(RegistryError, match="no previous champion"):
        rollback()
    assert aliases() == {CHAMPION: "one"}


def test_a_run_is_found_by_its_id_and_the_latest_of_a_name() -> None:
    older, newer = tracked_run("one"), tracked_run("one")
    assert find_run(older.info.run_id).info.run_id == older.info.run_id
    assert find_run("one").info.run_id == newer.info.run_id


@pytest.mark.parametrize("name", ["two", "it's", "0" * 32])
def test_a_run_that_is_not_there_is_one_clear_error(name: str) -> None:
    with pytest.raises(RegistryError, match="no finished run of that name or id"):
        find_run(name)


def test_promote_makes_a_model_of_what_an_earlier_release_registered(settings: Settings) -> None:
    first = promote(tracked_run("one"), settings, "first")
    run = tracked_run("two")
    bare = registered_by_an_earlier_release(run)
    assert is_outdated(run)
    made = promote(run, settings, "upgraded")
    assert made.version != bare.version
    assert not is_outdated(run)
    assert aliases() == {CHAMPION: "two", PREVIOUS: "one"}
    rollback()
    held = champion()
    assert held is not None
    assert held.version == first.version


def test_rollback_goes_back_to_what_an_earlier_release_registered(settings: Settings) -> None:
    registered_by_an_earlier_release(tracked_run("one"))
    promote(tracked_run("two"), settings, "better")
    now, _ = rollback()
    assert model.recorded(now) is None
    assert aliases() == {CHAMPION: "one", PREVIOUS: "two"}


def held() -> dict[str, tuple[str, str | None, dict[str, str]]]:
    """Return each version's run, alias and tags."""
    client = MlflowClient()
    alias = {v: k for k, v in client.get_registered_model(MODEL).aliases.items()}
    return {
        str(v.version): (str(client.get_run(v.run_id).info.run_name), alias.get(v.version), v.tags)
        for v in client.search_model_versions(f"name = '{MODEL}'")
    }


@pytest.mark.parametrize("call", range(9))
def test_a_promotion_killed_at_any_change_and_repeated(settings: Settings, call: int) -> None:
    promote(tracked_run("one"), settings, "first")
    run = tracked_run("two")
    linked: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_link", lambda _, version, *__: linked.append(version.version))
        came = killed_before(call, lambda: promote(run, settings, "better"))
        assert came == (call < 7), "the list of changes is another now"
        promote(run, settings, "better")
    assert {name: (run, alias) for name, (run, alias, _) in held().items()} == {
        "1": ("one", PREVIOUS),
        "2": ("two", CHAMPION),
    }
    assert held()["2"][2].keys() == {"reason", "zenml_run", "dataset_md5", TRAINED, FILES_TAG}
    assert linked, "a champion without a link from its run"


@pytest.mark.parametrize("call", range(6))
def test_a_rollback_killed_at_any_change_and_repeated(settings: Settings, call: int) -> None:
    promote(tracked_run("one"), settings, "first")
    promote(tracked_run("two"), settings, "better")
    came = killed_before(call, rollback)
    assert came == (call < 5), "the list of changes is another now"
    if came:
        now, replaced = rollback()
        assert (str(now.version), str(replaced.version)) == ("1", "2")
    assert aliases() == {CHAMPION: "one", PREVIOUS: "two"}
    marked = {name for name, (_, _, tags) in held().items() if ROLLED_BACK in tags}
    assert marked == {"2"}
    assert not any(REPLACES in tags for _, _, tags in held().values())


@pytest.mark.parametrize(
    "call", ["log_outputs", "log_batch", "log_model_artifacts", "finalize_logged_model", ""]
)
def test_the_model_of_a_killed_promotion_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Killed before a call, or when it was logged whole and not registered yet."""
    client, run = MlflowClient(), tracked_run("one")
    client.log_metric(run.info.run_id, "mAP50", 0.5)
    run = client.get_run(run.info.run_id)
    for name in (model.MODEL_FILE, model.LABELS_FILE, model.ARGUMENTS_FILE, model.WEIGHTS_FILE):
        (tmp_path / name).write_text("{}")
    if call:
        with monkeypatch.context() as killed:
            killed.setattr(MlflowClient, call, lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                model.log(run, tmp_path)
    else:
        model.log(run, tmp_path)
    (first,) = model.begun(run)
    uri, _ = model.log(run, tmp_path)
    assert [item.model_uri for item in model.begun(run)] == [uri] == [first.model_uri]
    logged = client.get_logged_model(first.model_id)
    assert logged.status == "READY"
    assert logged.metrics
    assert len({(m.key, m.step) for m in logged.metrics}) == len(logged.metrics)
    linked = client.get_run(run.info.run_id).outputs.model_outputs
    assert [item.model_id for item in linked] == [first.model_id]
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, uri, run.info.run_id)
    assert model.begun(run) == []
