"""Train a detector and score one: what Ultralytics is asked to do, and how.

Nothing here is tracked; see ``src.training.tracking``.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from src.checkpoints import load
from src.datasets import SPLITS
from src.datasets.importing.tree import is_litter
from src.datasets.manifest import LAYOUT_FILE, class_names, images
from src.training import memory, scoring
from src.training.recipes import Recipe
from src.training.scoring import Matches, Metrics

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer

# Ultralytics' names and ours: the scores that people compare, everywhere in this order.
METRICS = {
    "metrics/mAP50(B)": "mAP50",
    "metrics/mAP50-95(B)": "mAP50-95",
    "metrics/precision(B)": "precision",
    "metrics/recall(B)": "recall",
}
INTEGRATIONS = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")

EpochCallback = Callable[[int, Metrics], None]


@dataclass
class Watch:
    """How whoever runs this process follows a training, and ends it early."""

    on_epoch: Callable[[str, int, int, Metrics], None] = lambda *_: None  # run, epoch, epochs
    stopped: Callable[[], bool] = lambda: False
    node: str = field(default_factory=socket.gethostname)  # where it runs
    side_by_side: int = 1  # trainings on this machine at the same time


WATCH = Watch()


@dataclass(frozen=True)
class Training:
    """A finished training; its files are in ``folder``."""

    folder: Path
    metrics: Metrics  # of the best epoch's weights on the validation split, each 0 to 1
    untrained: Metrics | None  # of the weights it started from; None where no class is in common
    matches: Matches  # of the best epoch's weights, on the validation split
    epochs: int  # that were trained; fewer than asked for where it stopped early
    seconds: float  # of wall clock, training and its validations
    busy_seconds: float  # of CPU time; on a GPU, which nobody shares, of wall clock
    by_class: Metrics = field(default_factory=dict)  # mAP50 of each class with labels in val

    @property
    def weights(self) -> Path:
        """The best epoch's checkpoint."""
        return self.folder / "weights" / "best.pt"


@contextmanager
def workspace(data: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a temporary folder and the data set in it, as links; both are gone afterwards.

    Ultralytics writes caches beside the labels and the images, and would restore a damaged picture
    in place: all that stays in the temporary folder, and the files are not copied. It would also
    unpickle those that a data set brings along, take ``.npy`` files for their pictures, and run the
    ``download`` of its data.yaml: they stay behind, and data.yaml is written here.
    """
    with tempfile.TemporaryDirectory(prefix="training-") as folder:
        linked = Path(folder) / "data"
        _link(data.resolve(), linked)
        layout: dict[str, Any] = {
            "path": str(linked),
            **{split: f"images/{split}" for split in SPLITS},
        }
        layout["names"] = dict(enumerate(class_names(data)))
        (linked / LAYOUT_FILE).write_text(yaml.safe_dump(layout), encoding="utf-8")
        yield Path(folder), linked


def _link(data: Path, linked: Path) -> None:
    """Make a folder of links to another's files, without what would do harm in a training."""
    linked.mkdir()
    for entry in os.scandir(data):
        if is_litter(entry.name) or entry.name == LAYOUT_FILE:
            continue
        if entry.is_dir():
            _link(Path(entry.path), linked / entry.name)
        else:
            (linked / entry.name).symlink_to(entry.path)


def train(
    recipe: Recipe, data: Path, model: str, folder: Path, on_epoch: EpochCallback
) -> Training:
    """Train ``model`` (a checkpoint or an architecture) on the data set folder ``data``.

    The same recipe, data and model give the same weights: fixed seed, deterministic kernels, and
    on a CPU one thread (``OMP_NUM_THREADS`` for another number), because the sums of several
    threads depend on their number. Writes into ``folder`` only.
    """
    import torch

    configure_libraries()
    data_file = str(data / "data.yaml")
    before = scoring.score(model, data, recipe["imgsz"], "val", folder)

    held = sum(1 for split in ("train", "val") for _ in images(data, split))
    if not memory.affordable(recipe, held, WATCH.side_by_side):
        size = memory.cached(recipe, held) / 1e9
        sys.stderr.write(f"{held} images would take {size:.1f} GB of RAM: read from the disk\n")
        recipe = recipe | {"cache": False}
    yolo = load(model)
    seen = -1

    def after_epoch(trainer: BaseTrainer) -> None:
        nonlocal seen
        if trainer.epoch <= seen or trainer.epoch >= trainer.epochs:
            return  # the final validation comes here too
        seen = trainer.epoch
        losses = {
            name.replace("/", "_"): float(value)
            for name, value in trainer.label_loss_items(trainer.tloss, prefix="train").items()
        }
        on_epoch(trainer.epoch + 1, losses | _named(trainer.metrics))

    def after_batch(trainer: BaseTrainer) -> None:
        if WATCH.stopped():
            raise KeyboardInterrupt
        # Ultralytics halves it where the GPU's memory ends, and goes on: another training.
        if trainer.batch_size != recipe["batch"]:
            raise MemoryError(f"batch={recipe['batch']} at imgsz={recipe['imgsz']} does not fit")

    yolo.add_callback("on_train_batch_end", after_batch)
    yolo.add_callback("on_fit_epoch_end", after_epoch)
    on_gpu = torch.cuda.is_available()
    started, busy = time.monotonic(), time.process_time()
    yolo.train(
        **recipe,
        data=data_file,
        project=str(folder),
        name="training",
        exist_ok=True,
        workers=0,
        deterministic=True,
        amp=on_gpu,
        plots=True,
        verbose=False,
    )
    seconds, busy = time.monotonic() - started, time.process_time() - busy
    trained = Path(yolo.trainer.save_dir)
    after = scoring.score(trained / "weights" / "best.pt", data, recipe["imgsz"], "val", folder)
    return Training(
        folder=trained,
        metrics=after.metrics,
        untrained=before.metrics if before.known else None,
        matches=after.matches,
        epochs=seen + 1,
        seconds=seconds,
        busy_seconds=seconds if on_gpu else busy,
        by_class=after.by_class,
    )


def _named(metrics: Mapping[str, Any]) -> Metrics:
    """Return the four scores under the names that MLflow and people use."""
    return {ours: float(metrics[theirs]) for theirs, ours in METRICS.items() if theirs in metrics}


def _show_no_bars() -> None:
    """Keep the bars of cached images off, which ignore ``YOLO_VERBOSE`` and aren't ours to show."""
    from ultralytics.data import base

    class Silent(base.TQDM):  # type: ignore[misc, valid-type]
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more | {"disable": True})

    base.TQDM = Silent


def configure_libraries() -> None:
    """One thread, and Ultralytics without integrations but with a font, lest it fetch one."""
    import matplotlib
    from ultralytics.utils import SETTINGS, USER_CONFIG_DIR, torch_utils

    # Not torch.set_num_threads: Ultralytics calls that itself with this, all cores but one.
    torch_utils.NUM_THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
    _show_no_bars()
    unwanted = {name: False for name in INTEGRATIONS if SETTINGS.get(name)}
    if unwanted:
        SETTINGS.update(unwanted)
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):
        font = Path(USER_CONFIG_DIR) / name
        if not font.is_file():
            shutil.copy(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", font)
