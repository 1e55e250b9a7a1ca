"""What a training is given: links, names for MLflow, memory, and values for ``auto``."""

from pathlib import Path

import pytest

from src.training import memory, scaling, trainer
from src.training.classes import batches, metric_names


def test_a_workspace_is_links_and_leaves_the_version_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "images/train/cam 1").mkdir(parents=True)
    (data / "labels/train").mkdir(parents=True)
    picture = data / "images/train/cam 1/a.jpg"
    picture.write_bytes(b"x" * 1000)
    (data / "data.yaml").write_text("names: [a]")
    before = sorted(data.rglob("*"))
    with trainer.workspace(data) as (folder, linked):
        assert (linked / "images/train/cam 1/a.jpg").read_bytes() == picture.read_bytes()
        assert (linked / "images/train/cam 1/a.jpg").is_symlink()
        assert not (linked / "images/train").is_symlink()  # Ultralytics resolves a split's folder
        (linked / "labels/train.cache").write_bytes(b"cache")
        (linked / "images/train/cam 1/a.npy").write_bytes(b"cache")
        assert folder.is_dir()
    assert sorted(data.rglob("*")) == before
    assert not folder.exists()


def test_each_class_has_a_metric_that_mlflow_takes() -> None:
    from mlflow.utils.validation import _validate_metric_name

    classes = ["cat", "Cat", "traffic light", "café", "cafè", "a/b", "../x", "100%", "猫", "犬",
               " ", ".", "x" * 300, "x" * 301]  # fmt: skip
    names = metric_names(classes)
    assert names["traffic light"] == "mAP50/traffic light"
    assert len({name.casefold() for name in names.values()}) == len(classes)
    for name in names.values():
        _validate_metric_name(name)


def test_metrics_go_in_batches_that_mlflow_takes() -> None:
    parts = list(batches({str(n): float(n) for n in range(2500)}))
    assert [len(part) for part in parts] == [1000, 1000, 500]


def test_images_are_kept_in_memory_where_all_cells_have_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = {"cache": "ram", "imgsz": 640}
    monkeypatch.setattr(memory, "_free", lambda: 16e9)
    assert memory.affordable(recipe, 1000, 4)
    assert not memory.affordable(recipe, 10_000, 4)
    assert memory.affordable(recipe, 10_000)
    assert memory.cached({"cache": False, "imgsz": 640}, 10_000) == 0
    assert memory.fitting() == 10


@pytest.mark.parametrize(
    ("images", "gpu", "pretrained", "epochs"),
    [(40, False, True, 60), (300, False, True, 10), (10_000, False, True, 3),
     (300, False, False, 40), (300, True, True, 150), (10_000, True, True, 10)],
)  # fmt: skip
def test_auto_scales_with_the_set_and_the_device(
    images: int, gpu: bool, pretrained: bool, epochs: int
) -> None:
    found = scaling.auto(images, gpu=gpu, pretrained=pretrained)
    assert found["epochs"] == epochs
    assert found["imgsz"] == (640 if gpu else 320)
    assert 1 <= found["batch"] <= 16
    assert 3 <= found["patience"] <= epochs
