"""Validation names every fault, and takes what is allowed."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from src.datasets import DatasetError, manifest
from src.datasets.manifest import Manifest
from src.datasets.validation import validate

COUNTS = {"train": 3, "val": 2, "test": 1}
BOX = "0 0.5 0.5 0.25 0.5\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a valid data set: ``images/val/val0.jpg`` with its label, and so on."""
    folder = tmp_path / "tiny_person"
    for number, (split, count) in enumerate(COUNTS.items()):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            picture = Image.new("RGB", (16, 16), (number * 50, index * 50, 0))
            picture.save(folder / "images" / split / f"{split}{index}.jpg")
            (folder / "labels" / split / f"{split}{index}.txt").write_text(BOX)
    manifest.write(folder, Manifest(kind="coco128", seed=42, source_sha256="0" * 64))
    return folder


def faults(folder: Path) -> list[str]:
    """Return the faults that validation names, a line for each."""
    with pytest.raises(DatasetError) as caught:
        validate(folder)
    first, *listed = str(caught.value).splitlines()
    assert f"has faults ({len(listed)});" in first
    return [line.strip() for line in listed]


def test_a_valid_data_set_gives_its_counts(folder: Path) -> None:
    assert validate(folder) == COUNTS


@pytest.mark.parametrize("text", [None, "", "\n\n"])
def test_an_image_without_boxes_is_a_background(folder: Path, text: str | None) -> None:
    label = folder / "labels/val/val0.txt"
    if text is None:
        label.unlink()
    else:
        label.write_text(text)
    assert validate(folder) == COUNTS


@pytest.mark.parametrize("line", ["0 0.5 0.5 1 1", "0 0.125 0.5 0.25 0.5", "0 0.5 0.5 1.0000001 1"])
def test_a_box_may_touch_the_edges(folder: Path, line: str) -> None:
    (folder / "labels/val/val0.txt").write_text(line)
    assert validate(folder) == COUNTS


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1 0.5 0.5 0.1 0.1", "class 1 is out of range"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 is out of range"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5 is out of range"),
        ("nan 0.5 0.5 0.1 0.1", "class nan is out of range"),
        ("0 nan 0.5 0.1 0.1", "outside the image"),
        ("0 0.5 0.5 nan 0.1", "outside the image"),
        ("0 inf 0.5 0.1 0.1", "outside the image"),
        ("0 0.96 0.5 0.1 0.1", "outside the image"),
        ("0 0.5 0.04 0.1 0.1", "outside the image"),
        ("0 0.5 0.5 0 0.1", "empty"),
        ("0 0.5 0.5 0.1 -0.1", "empty"),
        ("0 0.5 0.5 0.1", "not a box"),
        ("0 0.5 0.5 0.1 0.1 0.9", "not a box"),
        ("person 0.5 0.5 0.1 0.1", "not a box"),
        ("\0", "not a box"),
    ],
)
def test_a_line_that_is_no_box_in_the_image_is_a_fault(
    folder: Path, line: str, reason: str
) -> None:
    (folder / "labels/val/val1.txt").write_text(f"{BOX}{line}\n{BOX}")
    (fault,) = faults(folder)
    assert fault.startswith("labels/val/val1.txt line 2: ")
    assert reason in fault


def test_a_label_without_image_is_a_fault(folder: Path) -> None:
    (folder / "images/train/train1.jpg").unlink()
    assert faults(folder) == ["labels/train/train1.txt: no image of that name"]


@pytest.mark.parametrize("share", [0, 0.1, 0.9])
def test_an_unreadable_image_is_a_fault(folder: Path, share: float) -> None:
    image = folder / "images/test/test0.jpg"
    Image.effect_noise((64, 64), 50).save(image)
    content = image.read_bytes()
    image.write_bytes(content[: int(len(content) * share)])
    (fault,) = faults(folder)
    assert fault.startswith("images/test/test0.jpg: unreadable image")


def test_an_unreadable_image_is_a_fault_beside_ultralytics_too(folder: Path) -> None:
    import ultralytics  # noqa: F401 - it replaces Pillow's way of opening images

    (folder / "images/test/test0.jpg").write_bytes(b"no image")
    (fault,) = faults(folder)
    assert fault.startswith("images/test/test0.jpg: unreadable image")


def test_the_same_image_in_two_splits_is_a_fault(folder: Path) -> None:
    shutil.copy(folder / "images/train/train0.jpg", folder / "images/val/again.jpg")
    assert faults(folder) == ["images/val/again.jpg: the same image as images/train/train0.jpg"]


@pytest.mark.parametrize("remove_folder", [False, True])
def test_an_empty_split_is_a_fault(folder: Path, remove_folder: bool) -> None:
    for kind in ("images", "labels"):
        shutil.rmtree(folder / kind / "test")
        if not remove_folder:
            (folder / kind / "test").mkdir()
    assert faults(folder) == ["images/test: no image"]


@pytest.mark.parametrize("text", [None, "", "train: images/train", "names: [", "names: {0: cat}"])
def test_a_layout_of_other_classes_or_none_is_a_fault(folder: Path, text: str | None) -> None:
    layout = folder / "data.yaml"
    if text is None:
        layout.unlink()
    else:
        layout.write_text(text)
    (fault,) = faults(folder)
    assert fault.startswith("data.yaml: ")


def test_class_names_may_be_a_list(folder: Path) -> None:
    (folder / "data.yaml").write_text("names: [person]")
    assert validate(folder) == COUNTS


def test_all_faults_come_at_once(folder: Path) -> None:
    (folder / "data.yaml").unlink()
    (folder / "images/train/train0.jpg").unlink()
    (folder / "images/train/train1.jpg").write_bytes(b"")
    (folder / "labels/val/val0.txt").write_text("2 0.5 0.5 0.1 0.1\n0 2 2 1 1\n")
    (folder / "images/test/test0.jpg").unlink()
    named = [fault.split(":")[0] for fault in faults(folder)]
    assert named == [
        "data.yaml",
        "images/train/train1.jpg",
        "labels/train/train0.txt",
        "labels/val/val0.txt line 1",
        "labels/val/val0.txt line 2",
        "images/test",
        "labels/test/test0.txt",
    ]


# --- what passed before, and trained on other files or on too few --------------------------------


def test_a_path_elsewhere_is_a_fault(folder: Path) -> None:
    layout = (folder / "data.yaml").read_text()
    (folder / "data.yaml").write_text(f"path: /tmp/other\n{layout}")
    (fault,) = faults(folder)
    assert fault.startswith("data.yaml: path: delete it")


@pytest.mark.parametrize("line", ["download: rm -rf /", "val: ../other/val", "minival: x"])
def test_nothing_else_in_data_yaml_leads_elsewhere(folder: Path, line: str) -> None:
    key = line.split(":")[0]
    kept = [x for x in (folder / "data.yaml").read_text().splitlines() if not x.startswith(key)]
    (folder / "data.yaml").write_text("\n".join([line, *kept]))
    (fault,) = faults(folder)
    assert fault.startswith(f"data.yaml: {key}: ")


def test_labels_of_a_splits_folders_are_read(folder: Path) -> None:
    for kind in ("images", "labels"):
        (folder / kind / "train/cam1").mkdir()
    (folder / "images/train/train0.jpg").rename(folder / "images/train/cam1/a.jpg")
    (folder / "labels/train/train0.txt").rename(folder / "labels/train/cam1/a.txt")
    assert validate(folder) == COUNTS
    (folder / "labels/train/cam1/a.txt").write_text("7 0.5 0.5 0.1 0.1\n")
    (fault,) = faults(folder)
    assert fault.startswith("labels/train/cam1/a.txt line 1: class 7 is out of range")


def test_a_misspelt_label_folder_is_no_background(folder: Path) -> None:
    (folder / "labels/val").rename(folder / "labels/vall")
    assert [fault for fault in faults(folder) if fault.startswith("labels/vall: 2 files")]


def test_latin_1_in_data_yaml_is_a_fault(folder: Path) -> None:
    (folder / "data.yaml").write_bytes("names: [é]".encode("latin-1"))
    assert faults(folder)[0].startswith("data.yaml: not UTF-8")


def test_litter_is_no_fault(folder: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "._val0.jpg", "desktop.ini", "val0.npy"):
        (folder / "images/val" / name).write_bytes(b"litter")
    for name in ("val.cache", "classes.txt", ".DS_Store"):
        (folder / "labels" / name).write_bytes(b"litter")
    assert validate(folder) == COUNTS


def test_many_classes_are_fine_in_files_of_ones_own(folder: Path) -> None:
    layout = (folder / "data.yaml").read_text().replace("0: person", "0: cat\n  1: dog")
    (folder / "data.yaml").write_text(layout)
    assert any("classes" in fault for fault in faults(folder))
    (folder / "manifest.json").unlink()
    (folder / "labels/val/val0.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    assert validate(folder) == COUNTS
