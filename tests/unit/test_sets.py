"""Which data set is in use: given, recorded, or .env's, and what its name leads to."""

import socket
from pathlib import Path

import pytest

from src.datasets import sets
from src.datasets.sets import DataSet, Record, SetError, choose, name_of, require, slug


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sets, "ROOT", tmp_path)
    monkeypatch.setattr(sets, "RECORD", tmp_path / ".stack" / "datasets.json")
    monkeypatch.setattr(sets, "ENV_FILE", tmp_path / ".env")
    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("auto", "tiny_person"), ("synthetic", "tiny_person"), ("/a/My Cats", "my_cats"),
        ("/a/My Cats.v1i.yolov8.zip", "my_cats_v1i_yolov8"), ("/a/cats.tar.gz", "cats"),
        ("/a/cats/data.yaml", "cats"), ("/a/cats/instances.json", "cats"), ("/a/cats/", "cats"),
        ("https://x.org/ds/Cats%20New?key=1", "cats_new"), ("s3://bucket/a/cats.zip", "cats"),
        ("/a/猫", "dataset"),
    ],
)  # fmt: skip
def test_a_set_is_named_after_its_folder_or_archive(dataset: str, name: str) -> None:
    assert name_of(dataset) == name
    assert slug(name) == name


def test_the_labs_set_keeps_the_labs_names() -> None:
    lab = DataSet("tiny_person")
    assert (lab.experiment, lab.run_prefix, lab.model) == (
        "cv_yolo_tiny", "zenml_yolo_tiny", "person-detector"
    )  # fmt: skip
    cats = DataSet("cats")
    assert (cats.experiment, cats.run_prefix, cats.model) == (
        "cv_yolo_cats", "zenml_yolo_cats", "cats-detector"
    )  # fmt: skip


def test_what_was_chosen_holds_until_the_next_choice(root: Path) -> None:
    assert choose({}).name == "tiny_person"
    assert require({"NAME": "cats"}).name == "cats"
    assert choose({}).name == "cats"
    assert require({"DATASET": "synthetic"}).name == "tiny_person"
    assert choose({}).name == "tiny_person"
    assert require({"DATASET": "/somewhere/dogs"}).name == "dogs"


def test_the_settings_dataset_serves_the_first_time_only(root: Path) -> None:
    (root / ".env").write_text("DATASET=/somewhere/cats\n")
    assert choose({}).name == "cats"
    require({"NAME": "dogs"})
    assert choose({}).name == "dogs"


def test_name_alone_needs_a_set_of_that_name() -> None:
    with pytest.raises(SetError, match=r"NAME=birds: there is no such data set here, only cats"):
        require({"NAME": "birds"})
    assert require({"NAME": "birds", "DATASET": "/x"}, may_import=True).name == "birds"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"NAME": "../etc"}, "NAME=etc"),
        ({"NAME": "My Cats"}, "NAME=my_cats"),
        ({"NAME": "tiny_person", "DATASET": "/x"}, "give yours another name"),
        ({"NAME": "cats", "DATASET": "coco128"}, "leave NAME out"),
        ({"DATASET": "/x/tiny_person"}, "give it a NAME"),
        ({"DATASET": "/x/tiny"}, "another NAME"),
        ({"NAME": "person"}, "another NAME"),
    ],
)
def test_names_that_would_mix_things_up_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(SetError, match=said):
        require(given, may_import=True)


def test_the_name_that_windows_subsystem_sets_is_not_meant() -> None:
    assert choose({"NAME": socket.gethostname(), "WSL_DISTRO_NAME": "Debian"}).name == "tiny_person"


@pytest.mark.parametrize("text", ["", "{", '{"sets": 3}', "\xff"])
def test_a_record_that_cant_be_read_is_none(root: Path, text: str) -> None:
    sets.RECORD.parent.mkdir()
    sets.RECORD.write_text(text, encoding="latin-1")
    assert sets.read_record() == Record()
    assert choose({}).name == "tiny_person"
