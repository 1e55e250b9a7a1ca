"""What a training asks of PyTorch and Ultralytics."""

from pathlib import Path

import pytest

from src.datasets import manifest
from src.datasets.synthetic import draw_synthetic
from src.training.trainer import configure_libraries, train, workspace


@pytest.mark.parametrize(("variable", "threads"), [(None, 1), ("3", 3)])
def test_a_training_has_its_threads_on_a_machine_of_many_cores(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, threads: int
) -> None:
    import torch
    from ultralytics.utils import torch_utils

    monkeypatch.setattr(torch_utils, "NUM_THREADS", 7)  # Ultralytics' own choice for 8 cores
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    configure_libraries()
    torch_utils.select_device("cpu", verbose=False)  # as each training and scoring does
    assert torch.get_num_threads() == threads


def test_nothing_in_a_data_set_is_run_or_unpickled(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split in ("train", "val", "test"):
        for kind in ("images", "labels"):
            (data / kind / split).mkdir(parents=True)
    (data / "labels" / "train.cache").write_bytes(b"a pickle")
    (data / "images" / "train" / "a.npy").write_bytes(b"in place of a.jpg")
    (data / "data.yaml").write_text(
        "path: /etc\ntrain: nowhere\nval: nowhere\nnames: [person]\n"
        f"download: |\n  open({str(tmp_path / 'ran')!r}, 'w')\n"
    )
    from ultralytics.data.utils import check_det_dataset

    with workspace(data) as (_, copy):
        assert not list(copy.rglob("*.cache")) + list(copy.rglob("*.npy"))
        read = check_det_dataset(str(copy / "data.yaml"))
        assert read["val"] == str(copy / "images" / "val")
        assert read["names"] == {0: "person"}
    assert not (tmp_path / "ran").exists()


def test_a_batch_that_does_not_fit_is_an_error_and_not_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics itself goes on with half of it, under the recipe's name."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    original, calls = DetectionTrainer.preprocess_batch, []

    def full_once(self: DetectionTrainer, batch: dict[str, object]) -> dict[str, object]:
        calls.append(self.batch_size)
        if len(calls) == 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return dict(original(self, batch))

    monkeypatch.setattr(DetectionTrainer, "preprocess_batch", full_once)
    data = tmp_path / "data"
    draw_synthetic(data, counts={"train": 8, "val": 2, "test": 2})
    manifest.write(data, manifest.Manifest(kind="synthetic", seed=42, source_sha256="0" * 64))
    recipe = {"epochs": 1, "imgsz": 32, "batch": 4, "seed": 0, "mosaic": 0}
    with pytest.raises(MemoryError, match="batch=4 at imgsz=32 does not fit"):
        train(recipe, data, "yolov8n.yaml", tmp_path / "runs", lambda *_: None)
    assert calls == [4, 2]
