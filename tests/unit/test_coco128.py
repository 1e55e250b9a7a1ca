"""COCO128 out of an archive: the lab's split, and archives that are not COCO128."""

import io
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from src.datasets import DatasetError, coco128
from src.datasets.coco128 import build_coco128

PERSON = "0 0.5 0.5 0.25 0.5"
DOG = "16 0.25 0.25 0.1 0.1"
PEOPLE = [f"{number:012d}" for number in range(61)]

Pack = Callable[..., Path]


def photo(width: int = 40, height: int = 30) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(stream, "JPEG")
    return stream.getvalue()


def labels_of(names: list[str], text: str = PERSON) -> dict[str, str]:
    return {f"coco128/labels/train2017/{name}.txt": f"{text}\n" for name in names}


def photos_of(names: list[str]) -> dict[str, bytes]:
    return {f"coco128/images/train2017/{name}.jpg": photo() for name in names}


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """Return a packer of a good archive, with members added or replaced."""

    def pack(members: dict[str, bytes | str] | None = None, people: list[str] = PEOPLE) -> Path:
        archive = tmp_path / "coco128.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            everything = {**photos_of(people), **labels_of(people), **(members or {})}
            for name, content in everything.items():
                packed.writestr(name, content)
        return archive

    return pack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny_person"
    folder.mkdir()
    return folder


def stems(folder: Path, kind: str, split: str) -> list[str]:
    return sorted(file.stem for file in (folder / kind / split).iterdir())


def refused(folder: Path, archive: Path, reason: str) -> None:
    """Expect an error for that reason, and nothing written."""
    with pytest.raises(DatasetError, match=reason):
        build_coco128(folder, archive)
    assert list(folder.iterdir()) == []


def test_the_split_is_the_labs(pack: Pack, folder: Path) -> None:
    build_coco128(folder, pack())
    order = sorted(PEOPLE)
    random.Random(42).shuffle(order)
    expected = {"train": order[:40], "val": order[40:50], "test": order[50:60]}
    for split, names in expected.items():
        assert stems(folder, "images", split) == sorted(names)
        assert stems(folder, "labels", split) == sorted(names)


def test_the_split_does_not_depend_on_the_order_in_the_archive(pack: Pack, tmp_path: Path) -> None:
    splits = []
    for name, people in (("a", PEOPLE), ("b", PEOPLE[::-1])):
        build_coco128(tmp_path / name, pack(people=people))
        splits.append(stems(tmp_path / name, "images", "val"))
    assert splits[0] == splits[1]


def test_every_photo_is_squeezed_to_one_size(pack: Pack, folder: Path) -> None:
    build_coco128(folder, pack())
    files = list((folder / "images").rglob("*.jpg"))
    assert len(files) == 60
    assert {Image.open(file).size for file in files} == {(320, 320)}


def test_grey_photos_become_rgb(pack: Pack, folder: Path) -> None:
    stream = io.BytesIO()
    Image.new("L", (40, 30)).save(stream, "JPEG")
    build_coco128(folder, pack(dict.fromkeys(photos_of(PEOPLE), stream.getvalue())))
    assert {Image.open(file).mode for file in folder.rglob("*.jpg")} == {"RGB"}


def test_only_people_are_labelled(pack: Pack, folder: Path) -> None:
    build_coco128(folder, pack(labels_of(PEOPLE, f"{DOG}\n{PERSON}\n\n{DOG}")))
    assert {file.read_text() for file in folder.rglob("*.txt")} == {f"{PERSON}\n"}


def test_photos_without_people_and_labels_without_photo_are_left_out(
    pack: Pack, folder: Path
) -> None:
    others = {
        **photos_of(["unlabelled", "dog", "empty"]),
        **labels_of(["dog"], DOG),
        **labels_of(["empty"], ""),
        **labels_of(["lost"]),
        "coco128/README.txt": "no label",
    }
    build_coco128(folder, pack(others))
    taken = {file.stem for file in folder.rglob("*.*")}
    assert taken <= set(PEOPLE)


@pytest.mark.parametrize("people", [0, 59])
def test_too_few_photos_of_people_are_refused(pack: Pack, folder: Path, people: int) -> None:
    others = {**photos_of(["dog"]), **labels_of(["dog"], DOG)}
    refused(folder, pack(others, people=PEOPLE[:people]), f"{people} photos with a person")


@pytest.mark.parametrize(
    "name",
    [
        "../evil.jpg",
        "coco128/images/../../../evil.jpg",
        "/etc/evil.jpg",
        "C:/evil.jpg",
        "images\\..\\..\\evil.jpg",
    ],
)
def test_a_member_that_leaves_the_folder_is_refused(pack: Pack, folder: Path, name: str) -> None:
    refused(folder, pack({name: photo()}), "leaves the folder")


def test_a_member_for_the_folder_itself_is_harmless(pack: Pack, folder: Path) -> None:
    build_coco128(folder, pack({"./": b""}))
    assert len(stems(folder, "images", "train")) == 40


def test_an_archive_that_unpacks_to_too_much_is_refused(
    pack: Pack, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco128, "UNPACKED_LIMIT", 1000)
    refused(folder, pack(), "unpacks to")


def test_an_archive_without_images_or_labels_is_refused(pack: Pack, folder: Path) -> None:
    refused(folder, pack({"coco128/README.txt": "nothing"}, people=[]), "is it COCO128")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_archive_is_refused(pack: Pack, folder: Path, share: float) -> None:
    archive = pack()
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    refused(folder, archive, re.escape(str(archive)))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param({path: photo()[:200] for path in photos_of(PEOPLE)}, id="truncated photo"),
        pytest.param(dict.fromkeys(photos_of(PEOPLE), b"no photo"), id="no photo"),
        pytest.param(dict.fromkeys(labels_of(PEOPLE), b"\xff\xfe"), id="binary label"),
    ],
)
def test_damaged_members_are_one_clear_error(
    pack: Pack, folder: Path, damage: dict[str, bytes | str]
) -> None:
    with pytest.raises(DatasetError):
        build_coco128(folder, pack(damage))


def test_damaged_compression_is_one_clear_error(pack: Pack, folder: Path) -> None:
    archive = pack()
    with zipfile.ZipFile(archive) as packed:
        first = packed.getinfo(next(iter(labels_of(PEOPLE))))
    content = bytearray(archive.read_bytes())
    start = first.header_offset + 30 + len(first.filename)  # behind the member's header
    content[start : start + first.compress_size] = b"\xff" * first.compress_size
    archive.write_bytes(content)
    with pytest.raises(DatasetError):
        build_coco128(folder, archive)
