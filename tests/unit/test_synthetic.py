"""The drawn data set: reproducible, complete, varied, and labelled where the people are."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from src.datasets import synthetic
from src.datasets.synthetic import EDGE, MIN_VISIBLE, SPLIT_COUNTS, draw_synthetic

FEW = {"train": 4, "val": 2, "test": 2}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def boxes(folder: Path) -> NDArray[np.float64]:
    """Return every label below the folder as (n, 5): class, cx, cy, w, h."""
    lines = [line for path in folder.rglob("*.txt") for line in path.read_text().splitlines()]
    return np.array([line.split() for line in lines], dtype=float)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_synthetic(folder, counts={"train": 24, "val": 4, "test": 4})
    return folder


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw_synthetic(tmp_path / name, seed=seed, counts=FEW)
    first, second, other = (contents(tmp_path / name) for name in "abc")
    assert first == second
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if name.endswith(".jpg"))


def test_a_picture_does_not_depend_on_the_counts(drawn: Path, tmp_path: Path) -> None:
    draw_synthetic(tmp_path, counts=FEW)
    assert contents(tmp_path).items() <= contents(drawn).items()


def test_every_split_has_its_pictures_and_one_label_file_each(tmp_path: Path) -> None:
    draw_synthetic(tmp_path, counts=FEW)
    for split, count in FEW.items():
        stems = [f"synthetic_{split}_{index:03d}" for index in range(count)]
        images, labels = tmp_path / "images" / split, tmp_path / "labels" / split
        assert sorted(path.name for path in images.iterdir()) == [f"{stem}.jpg" for stem in stems]
        assert sorted(path.name for path in labels.iterdir()) == [f"{stem}.txt" for stem in stems]


def test_the_default_splits_are_the_three_that_the_pipelines_use() -> None:
    assert list(SPLIT_COUNTS) == ["train", "val", "test"]


def test_no_picture_comes_twice(drawn: Path) -> None:
    images = [path.read_bytes() for path in drawn.rglob("*.jpg")]
    assert len(set(images)) == len(images)


def test_every_picture_has_the_same_size(drawn: Path) -> None:
    assert {Image.open(path).size for path in drawn.rglob("*.jpg")} == {(EDGE, EDGE)}


def test_boxes_are_of_class_0_and_inside_the_picture(drawn: Path) -> None:
    classes, centres, sizes = np.split(boxes(drawn), [1, 3], axis=1)
    assert np.all(classes == 0)
    assert np.all(sizes > 0)
    assert np.all(centres - sizes / 2 >= -1e-6)
    assert np.all(centres + sizes / 2 <= 1 + 1e-6)


def test_people_come_in_several_sizes_and_some_pictures_are_empty(drawn: Path) -> None:
    heights = boxes(drawn)[:, 4] * EDGE
    assert heights.max() > 2 * heights.min()
    assert any(path.read_text() == "" for path in drawn.rglob("*.txt"))


def person(left: int, top: int, width: int = 40, height: int = 100) -> synthetic.Thing:
    sprite = Image.new("RGBA", (width, height), (255, 0, 0, 255))
    return synthetic.Thing(sprite, left, top, is_person=True)


def test_a_box_is_tight_around_what_can_be_seen() -> None:
    things = [person(100, 50), person(120, 50)]
    assert synthetic._drop_hidden(things) == [(100, 50, 120, 150), (120, 50, 160, 150)]


def test_hidden_people_are_not_drawn_and_no_longer_hide_others() -> None:
    share = round(40 * MIN_VISIBLE)
    back, middle, front = person(100, 50), person(100 + share - 1, 50), person(104 + share, 50)
    outside = person(-10, 300)  # 15 % of it is inside the picture
    things = [back, middle, front, outside]
    found = synthetic._drop_hidden(things)
    assert things == [back, front]
    assert found == [(100, 50, 104 + share, 150), (104 + share, 50, 144 + share, 150)]


def test_boxes_cover_the_pixels_that_drawing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    grey = Image.new("RGB", (EDGE, EDGE), (1, 2, 3))
    monkeypatch.setattr(synthetic, "MAX_CLUTTER", 0)
    monkeypatch.setattr(synthetic, "_background", lambda rng, horizon: grey.copy())
    monkeypatch.setattr(synthetic, "_photograph", lambda rng, image: image)
    for seed in range(20):
        image, found = synthetic.draw_scene(np.random.default_rng(seed))
        changed = np.any(np.asarray(image) != np.asarray(grey), axis=2)
        boxed = np.zeros_like(changed)
        for left, top, right, bottom in np.array(found, dtype=int).reshape(-1, 4):
            boxed[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1] = True
            inside = changed[top:bottom, left:right]
            assert inside.any(axis=0)[[0, -1]].all()
            assert inside.any(axis=1)[[0, -1]].all()
        assert not np.any(changed & ~boxed)
