"""Promotion and the way back, on MLflow's real registry."""

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from src.champion import model
from src.champion.model import FILES_TAG
from src.champion.registry import (
    CHAMPION,
    MODEL,
    PREVIOUS,
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
