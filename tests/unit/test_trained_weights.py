"""Trained weights are used only while they are those that the run and the promotion tell."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from src.champion import registry
from src.champion.registry import RegistryError, champion_weights, weights_of
from src.files import sha256
from src.training.provenance import TRAINED

Version = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand in for MLflow: a run's tags and its file."""
    file = tmp_path / "store.pt"
    file.write_bytes(b"trained")
    store = SimpleNamespace(file=file, tags={"mlflow.runName": "e3", TRAINED: sha256(file)})
    run = SimpleNamespace(data=SimpleNamespace(tags=store.tags))
    monkeypatch.setattr(registry, "MlflowClient", lambda: SimpleNamespace(get_run=lambda _: run))

    def download(run_id: str, artifact_path: str, dst_path: Path) -> str:
        target = Path(dst_path) / artifact_path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
        return str(target)

    monkeypatch.setattr(registry.mlflow.artifacts, "download_artifacts", download)
    return store


def version(**tags: str) -> Any:
    return SimpleNamespace(run_id="1", version="4", tags=tags)


def test_the_weights_that_the_run_tells_are_used(store: SimpleNamespace, tmp_path: Path) -> None:
    assert weights_of("1", tmp_path / "a").read_bytes() == b"trained"
    held = version(**{TRAINED: store.tags[TRAINED]})
    assert champion_weights(held, tmp_path / "b").read_bytes() == b"trained"


def test_weights_that_changed_in_the_store_are_refused(
    store: SimpleNamespace, tmp_path: Path
) -> None:
    store.file.write_bytes(b"poison")
    with pytest.raises(RegistryError, match=r"best\.pt of e3 was changed after the training"):
        weights_of("1", tmp_path)
    assert not list(tmp_path.rglob("best.pt"))


def test_a_copy_that_changed_here_is_fetched_anew(store: SimpleNamespace, tmp_path: Path) -> None:
    copy = weights_of("1", tmp_path)
    copy.write_bytes(b"poison")
    assert weights_of("1", tmp_path).read_bytes() == b"trained"


def test_weights_without_their_hash_are_refused(store: SimpleNamespace, tmp_path: Path) -> None:
    del store.tags[TRAINED]
    with pytest.raises(RegistryError, match=f"e3 has no tag {TRAINED}.*train it again"):
        weights_of("1", tmp_path)


def test_a_run_that_was_changed_after_its_promotion_is_refused(
    store: SimpleNamespace, tmp_path: Path
) -> None:
    held = version(**{TRAINED: store.tags[TRAINED]})
    store.file.write_bytes(b"poison")
    store.tags[TRAINED] = sha256(store.file)
    with pytest.raises(RegistryError, match="version 4 were changed after the promotion"):
        champion_weights(held, tmp_path)
