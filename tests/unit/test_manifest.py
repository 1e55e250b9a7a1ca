"""What a data set says of itself."""

from pathlib import Path
from typing import get_args

import pytest
import yaml

from src.datasets import DatasetError, manifest
from src.datasets.manifest import Manifest
from src.inputs import Kind

MANIFEST = Manifest(kind="synthetic", seed=42, source_sha256="ab" * 32)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    manifest.write(tmp_path, MANIFEST)
    assert manifest.read(tmp_path) == MANIFEST


def test_the_same_manifest_gives_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for name in "ab":
        (tmp_path / name).mkdir()
        manifest.write(tmp_path / name, MANIFEST)
        written.append([(f.name, f.read_bytes()) for f in sorted((tmp_path / name).iterdir())])
    assert written[0] == written[1]
    assert [name for name, _ in written[0]] == ["data.yaml", "manifest.json"]


def test_the_layout_names_splits_and_classes_and_no_place(tmp_path: Path) -> None:
    manifest.write(tmp_path, MANIFEST)
    assert yaml.safe_load((tmp_path / "data.yaml").read_text()) == {
        "train": "images/train",
        "val": "images/val",
        "test": "images/test",
        "names": {0: "person"},
    }


def test_a_folder_without_manifest_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no manifest\.json.*FORCE=1"):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"kind": "synthetic"}',
        MANIFEST.model_dump_json().replace("synthetic", "coco"),
        MANIFEST.model_dump_json().replace("{", '{"surplus": 1, '),
    ],
)
def test_a_damaged_manifest_is_an_error_with_a_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DatasetError, match=r"manifest\.json can't be read.*FORCE=1"):
        manifest.read(tmp_path)


def test_the_provenance_tells_photos_from_drawings() -> None:
    photos = MANIFEST.model_copy(update={"kind": "coco128"})
    assert "photos" in photos.provenance
    assert "synthetic" in MANIFEST.provenance


def test_the_images_of_a_split_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    split = tmp_path / "images" / "val"
    (split / "folder").mkdir(parents=True)
    for name in ("b.jpg", "c.png", "a.jpg"):
        (split / name).touch()
    assert [file.name for file in manifest.images(tmp_path, "val")] == ["a.jpg", "b.jpg", "c.png"]
    assert list(manifest.images(tmp_path, "test")) == []


def test_the_kind_of_what_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "FOLDER", tmp_path)
    assert manifest.built() is None
    manifest.write(tmp_path, MANIFEST)
    assert manifest.built() == MANIFEST.kind


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_says_where_it_is_from(kind: Kind) -> None:
    assert Manifest(kind=kind, seed=0, source_sha256="0" * 64).provenance
