"""Data sets that can't be imported as they are: what is said, repaired or refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import tarfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from PIL import Image

from src.datasets.importing import archives
from src.datasets.importing.account import Account, ImportFault, table
from src.datasets.importing.importer import build
from src.datasets.importing.tree import is_litter
from tests.unit.importing import cases
from tests.unit.importing.cases import Case


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Return Ultralytics' own layout, written to ``tmp_path / "set"``."""
    folder = tmp_path / "set"
    folder.mkdir()
    found = cases.make(folder, cases.ultralytics, [])
    assert found is not None
    return found


def imported(folder: Path, chosen: str | None = None) -> Account:
    target = folder.parent / "built"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    return build(folder, target, seed=42, chosen=chosen)


def fault(folder: Path) -> str:
    with pytest.raises(ImportFault) as caught:
        imported(folder)
    return str(caught.value)


def rewrite(case: Case, **changes: object) -> None:
    file = case.folder / "data.yaml"
    content = yaml.safe_load(file.read_text()) | changes
    file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))


# --- data.yaml is data --------------------------------------------------------------------------


def test_a_path_elsewhere_is_not_followed(case: Case, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(case.folder, other)
    for image in (other / "images").rglob("*.jpg"):
        Image.new("RGB", (50, 50), "red").save(image)
    rewrite(case, path=str(other))
    account = imported(case.folder)
    assert any("not followed" in note for note in account.notes)
    assert not any("red" in note for note in account.notes)
    image = next((tmp_path / "built/images/train").glob("*im00*"))
    assert image.read_bytes() == case.items["im00"].image.read_bytes()


@pytest.mark.parametrize("value", ["/content/data/images/train", "../../elsewhere/images/train",
                                   "C:\\data\\images\\train"])  # fmt: skip
def test_a_split_elsewhere_is_repaired_from_the_folder(case: Case, value: str) -> None:
    rewrite(case, train=value)
    assert imported(case.folder).images["train"] == 8


def test_a_split_that_is_nowhere_is_refused(case: Case) -> None:
    rewrite(case, train="/content/data/pictures")
    assert "train: /content/data/pictures is not in this folder" in fault(case.folder)


def test_a_split_out_of_the_folder_is_not_read_though_it_is_there(
    case: Case, tmp_path: Path
) -> None:
    shutil.copytree(case.folder / "images/train", tmp_path / "apart")
    rewrite(case, train="../apart")
    assert "train: ../apart is not in this folder" in fault(case.folder)


def test_download_is_never_run(case: Case, tmp_path: Path) -> None:
    rewrite(case, download=f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert any("download: is never run" in note for note in imported(case.folder).notes)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("names: [cat", "data.yaml line"),
        ("names: !!python/object/apply:os.system [ls]", "data.yaml line 1"),
        ("train: images/train", "has no names"),
        ("- a\n- b\n", "has no names"),
        ("names: 3\ntrain: images/train\n", "not a list of classes"),
        ("names: {1: a, 3: b}\ntrain: images/train\n", "0 to 1"),
        ("names: [a, a, b]\ntrain: images/train\n", "two classes have the name 'a'"),
        ("names: [a, b, c]\nnc: 4\ntrain: images/train\n", "nc is 4, names has 3"),
        ("names: [a, b, c]\nval: images/val\n", "has no train"),
        ("names: [a, b, c]\ntrain: 3\n", "train is not a path"),
        ("names: [a, b, c]\npath: [x]\ntrain: images/train\n", "path is not text"),
        ("names: [a, b, c]\ntrain: images/train\nkpt_shape: 4\n", "kpt_shape"),
        ("names: [a, b, \"\\n\"]\ntrain: images/train\n", "a class has the name"),
        (f"names: {'[' * 3000}", "data.yaml"),
    ],
)  # fmt: skip
def test_a_faulty_data_yaml_is_one_clear_error(case: Case, text: str, said: str) -> None:
    (case.folder / "data.yaml").write_text(text)
    assert said in fault(case.folder)


def test_latin_1_in_data_yaml_is_read_and_said(case: Case) -> None:
    (case.folder / "data.yaml").write_bytes(
        "names: [chat, chien, véhicule]\ntrain: images/train\nval: images/val\n".encode("latin-1")
    )
    account = imported(case.folder)
    assert account.names[2] == "véhicule"
    assert any("not UTF-8" in note for note in account.notes)


@pytest.mark.parametrize("file", ["data.yaml", "classes.txt"])
def test_utf_16_is_read_too(case: Case, file: str) -> None:
    """What PowerShell's ``>`` writes."""
    if file == "classes.txt":
        (case.folder / "data.yaml").unlink()
        (case.folder / file).write_bytes("\n".join(cases.NAMES).encode("utf-16"))
    else:
        (case.folder / file).write_bytes((case.folder / file).read_text().encode("utf-16"))
    assert imported(case.folder).names == cases.NAMES


def test_utf_16_in_obj_data_names_its_lists_too(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    assert cases.make(folder, cases.cvat_yolo, [])
    half = (folder / "train.txt").read_text().splitlines()[::2]
    (folder / "train.txt").unlink()
    (folder / "listed.txt").write_text("\n".join(half))
    (folder / "obj.data").write_bytes("train = data/listed.txt\n".encode("utf-16"))
    assert sum(imported(folder).images.values()) == len(half)


def test_lists_without_train_have_no_part(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    made = cases.make(folder, cases.cvat_yolo, [])
    assert made
    (folder / "train.txt").rename(folder / "val.txt")
    (folder / "obj.data").unlink()
    account = imported(folder)
    assert sum(account.images.values()) == len(made.items)
    assert "there is no list of train, so that of val has no part" in account.notes


def test_no_label_at_all_says_where_they_belong(case: Case) -> None:
    shutil.rmtree(case.folder / "labels")
    assert "14 images and not one box: bring their labels, labels/train/x.txt" in fault(case.folder)


def test_a_train_split_without_boxes_can_only_be_labelled(case: Case) -> None:
    for label in (case.folder / "labels/train").iterdir():
        label.write_text("")
    said = fault(case.folder)
    assert "train has 8 images and not one box: label some" in said
    assert "drawn" not in said  # train is what the others are drawn from


def test_a_pose_label_keeps_its_box(case: Case) -> None:
    rewrite(case, kpt_shape=[2, 3])
    for item in case.items.values():
        assert item.label
        lines = item.label.read_text().splitlines()
        item.label.write_text("".join(f"{line} 0.1 0.1 2 0.2 0.2 2\n" for line in lines))
    account = imported(case.folder)
    assert account.boxes_imported == sum(len(item.boxes) for item in case.items.values())
    assert not account.refused


def test_two_data_yamls_side_by_side_are_refused(case: Case) -> None:
    shutil.copy(case.folder / "data.yaml", case.folder / "dataset.yaml")
    assert "DATASET=" in fault(case.folder)
    assert imported(case.folder, "dataset.yaml").images["train"] == 8


# --- splits and labels --------------------------------------------------------------------------


def test_a_misspelt_label_folder_is_no_background(case: Case) -> None:
    (case.folder / "labels/val").rename(case.folder / "labels/vall")
    text = fault(case.folder)
    assert "labels/vall" in text
    assert "rename it to labels/val" in text
    (case.folder / "labels/vall").rename(case.folder / "labels/val")
    assert imported(case.folder).images["val"] == 3


def test_one_misplaced_label_takes_its_image_out(case: Case) -> None:
    item = case.items["im00"]
    assert item.label
    (case.folder / "labels/old").mkdir()
    item.label.rename(case.folder / "labels/old" / item.label.name)
    account = imported(case.folder)
    assert account.images["train"] == 7
    assert any("images/train/im00.jpg" in str(refused) for refused in account.refused)


def test_a_split_without_boxes_is_refused(case: Case) -> None:
    shutil.rmtree(case.folder / "labels/test")
    assert "test has 3 images and not one box" in fault(case.folder)


def test_a_missing_test_split_is_drawn_from_train(case: Case) -> None:
    rewrite(case, test=None)
    account = imported(case.folder)
    assert account.images["val"] == 3
    assert account.images["test"] >= 1
    assert any("test drawn from train" in note for note in account.notes)


def test_images_of_no_split_are_said_with_their_labels(case: Case) -> None:
    rewrite(case, test=None)
    ignored = {item.file: item for item in imported(case.folder).ignored}
    assert ignored["images/test/im11.jpg"].why == "an image in no split"
    assert ignored["labels/test/im11.txt"].boxes == len(case.items["im11"].boxes)


def test_a_picture_in_two_splits_stays_out_of_training(case: Case) -> None:
    val = case.items["im08"]
    assert val.label
    shutil.copy(val.image, case.folder / "images/train/copy.jpg")
    shutil.copy(val.label, case.folder / "labels/train/copy.txt")
    account = imported(case.folder)
    assert account.images == {"train": 8, "val": 3, "test": 3}
    assert any("the same picture as images/val/im08.jpg" in i.why for i in account.ignored)
    (case.folder / "labels/train/copy.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (refused,) = imported(case.folder).refused
    assert "with other boxes" in refused.what


def test_no_class_names_are_asked_for(case: Case) -> None:
    (case.folder / "data.yaml").unlink()
    assert "nothing names their classes" in fault(case.folder)
    (case.folder / "classes.txt").write_text("cat\ndog\ntraffic light\n")
    assert imported(case.folder).images == {"train": 8, "val": 3, "test": 3}


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    assert "holds no image" in fault(folder)


def test_every_image_refused_lists_why(case: Case) -> None:
    for item in case.items.values():
        item.image.write_bytes(b"no picture")
    text = fault(case.folder)
    assert "every image is refused" in text
    assert "images/train/im00.jpg: no picture" in text


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "._im00.jpg", "desktop.ini",
                                  "train.cache", "im00.npy", "__MACOSX"])  # fmt: skip
def test_litter_is_known_by_its_name_and_by_dvc(name: str) -> None:
    assert is_litter(name)
    ignored = (Path(__file__).parents[3] / "data/.dvcignore").read_text().splitlines()
    assert any(fnmatch(name, pattern) for pattern in ignored if pattern)


def test_a_pipe_is_not_opened(case: Case) -> None:
    os.mkfifo(case.folder / "images/train/pipe.jpg")
    assert any("pipe" in item.file for item in imported(case.folder).ignored)


def test_a_link_inside_the_folder_is_a_file(case: Case) -> None:
    item = case.items["im00"]
    real = item.image.rename(case.folder / "real.dat")
    item.image.symlink_to(real)
    assert imported(case.folder).images["train"] == 8


def test_links_in_a_circle_end(case: Case) -> None:
    (case.folder / "images/train/again").symlink_to(case.folder / "images")
    assert any("circle" in refused.what for refused in imported(case.folder).refused)


def test_the_source_is_never_written(case: Case) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {f: (f.stat().st_mtime_ns, f.stat().st_size) for f in case.folder.rglob("*")}

    case.items["im00"].image.write_bytes(case.items["im00"].image.read_bytes() + b"tail")
    before = state()
    imported(case.folder)
    assert state() == before


def test_the_same_files_give_the_same_bytes(case: Case, tmp_path: Path) -> None:
    rewrite(case, train="images", val=None, test=None)
    imported(case.folder)
    first = {f.relative_to(tmp_path): f.read_bytes() for f in (tmp_path / "built").rglob("*.*")}
    elsewhere = tmp_path / "elsewhere"
    shutil.move(case.folder, elsewhere)
    imported(elsewhere)
    again = {f.relative_to(tmp_path): f.read_bytes() for f in (tmp_path / "built").rglob("*.*")}
    assert first == again


# --- COCO, VOC, CVAT ----------------------------------------------------------------------------


def coco(tmp_path: Path) -> tuple[Case, Path, dict[str, list[dict[str, object]]]]:
    folder = tmp_path / "set"
    folder.mkdir()
    found = cases.make(folder, cases.coco_single, [])
    assert found is not None
    file = folder / "annotations.json"
    return found, file, json.loads(file.read_text())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"category_id": 99}, "no category has the id 99"),
        ({"bbox": [1, 2, 3]}, "is not x, y, width, height"),
        ({"bbox": ["a", 2, 3, 4]}, "is not x, y, width, height"),
        ({"bbox": None, "segmentation": []}, "it has no bbox"),
        ({"score": 0.9}, "predictions"),
        ({"image_id": 99}, "no image has the id 99"),
    ],
)
def test_a_faulty_coco_annotation_is_named(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    _, file, content = coco(tmp_path)
    content["annotations"][1] |= change
    file.write_text(json.dumps(content))
    account = imported(file.parent)
    (refused,) = account.refused
    assert refused.where == "annotation 2 (id 2)"
    assert said in refused.what


def test_crowds_are_counted_and_polygons_become_boxes(tmp_path: Path) -> None:
    _, file, content = coco(tmp_path)
    x, y, w, h = content["annotations"][0]["bbox"]  # type: ignore[misc]
    polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]  # type: ignore[has-type]
    del content["annotations"][0]["bbox"]
    content["annotations"][0]["segmentation"] = polygon
    content["annotations"].append({"id": 900, "image_id": 1, "category_id": 1, "iscrowd": 1})
    file.write_text(json.dumps(content))
    account = imported(file.parent)
    assert [item.boxes for item in account.ignored if "crowds" in item.why] == [1]
    assert account.changes["polygons, masks or turned boxes made upright boxes"] == 1
    assert not account.refused


@pytest.mark.parametrize("stored", [True, False])
def test_boxes_of_a_turned_picture_follow_its_turn(tmp_path: Path, stored: bool) -> None:
    """COCO's sizes tell whether boxes were drawn on the picture as stored or as displayed."""
    found, file, content = coco(tmp_path)
    item = found.items["im00"]
    (w, h) = item.size
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(item.image) as shown:
        raw = shown.transpose(Image.Transpose.ROTATE_90)
    raw.save(item.image, exif=exif)
    if stored:
        content["images"][0] |= {"width": h, "height": w}
        for annotation in content["annotations"]:
            if annotation["image_id"] == 1:
                x, y, bw, bh = annotation["bbox"]  # type: ignore[misc]
                annotation["bbox"] = [y, w - x - bw, bh, bw]  # type: ignore[has-type]
    file.write_text(json.dumps(content))
    account = imported(file.parent)
    assert not account.refused
    from tests.unit.importing.test_generated import check_boxes

    (image,) = (tmp_path / "built/images").rglob("*im00*")
    check_boxes(item, image)


def test_a_picture_of_another_shape_than_annotated_is_refused(tmp_path: Path) -> None:
    _, file, content = coco(tmp_path)
    content["images"][0] |= {"width": 500, "height": 100}
    file.write_text(json.dumps(content))
    (refused,) = imported(file.parent).refused
    assert "is annotated as 500 × 100 pixels" in refused.what


def test_a_scaled_picture_has_scaled_boxes(tmp_path: Path) -> None:
    found, file, _ = coco(tmp_path)
    item = found.items["im00"]
    with Image.open(item.image) as image:
        larger = image.resize((item.size[0] * 2, item.size[1] * 2))
    larger.save(item.image)
    account = imported(file.parent)
    assert account.changes["images of another size than annotated, the boxes scaled"] == 1
    assert not account.refused


def test_json_that_is_cut_off_has_its_line(tmp_path: Path) -> None:
    _, file, content = coco(tmp_path)
    file.write_text(json.dumps(content, indent=1)[:-30])
    assert "annotations.json line " in fault(file.parent)


def test_an_xml_bomb_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    assert cases.make(folder, cases.voc, [])
    file = folder / "Annotations/im00.xml"
    file.write_text(f'<!DOCTYPE a [<!ENTITY x "y">]>\n{file.read_text()}')
    assert "declares entities" in fault(folder)


def test_cvat_shapes_are_boxes_or_said(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    assert cases.make(folder, cases.cvat_xml, [])
    file = folder / "annotations.xml"
    more = (
        '<polygon label="cat" points="2,3;20,3;20,15"/><ellipse label="dog" cx="15" cy="15" rx="8" '
        'ry="5"/><box label="dog" xtl="10" ytl="10" xbr="20" ybr="20" rotation="30"/>'
        '<points label="cat" points="3,3"/><tag label="cat"/></image>'
    )
    file.write_text(file.read_text().replace("</image>", more, 1))
    account = imported(folder)
    assert account.changes["polygons, masks or turned boxes made upright boxes"] == 3
    assert sum(item.boxes for item in account.ignored) == 2
    assert not account.refused


def test_cvat_tracks_are_refused_with_a_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    assert cases.make(folder, cases.cvat_xml, [])
    file = folder / "annotations.xml"
    file.write_text(file.read_text().replace("</annotations>", "<track/></annotations>"))
    assert "CVAT for images" in fault(folder)


# --- archives -----------------------------------------------------------------------------------


def zipped(case: Case, file: Path) -> Path:
    with zipfile.ZipFile(file, "w") as packed:
        for path in sorted(case.folder.rglob("*")):
            packed.write(path, path.relative_to(case.folder))
    return file


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_gives_the_same_version(case: Case, tmp_path: Path, kind: str) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "my set"), kind, case.folder))
    assert archives.is_archive(archive)
    assert archives.stem(archive.name) == "my set"
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    archives.unpack(archive, unpacked)
    assert imported(case.folder).as_json() == imported(unpacked).as_json()


def test_pictures_may_be_moved_out_of_what_we_unpacked(case: Case, tmp_path: Path) -> None:
    (tmp_path / "built").mkdir()
    build(case.folder, tmp_path / "built", seed=42, movable=True)
    assert not list((case.folder / "images").rglob("*.jpg"))


@pytest.mark.parametrize("name", ["../out.jpg", "/out.jpg", "a/../../out.jpg", "..\\out.jpg",
                                  "C:\\out.jpg"])  # fmt: skip
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_leaves_the_folder_is_refused(
    case: Case, tmp_path: Path, name: str, kind: str
) -> None:
    archive = tmp_path / f"set.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr(name, b"x")
    else:
        with tarfile.open(archive, "w") as tar:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    target = tmp_path / "unpacked"
    target.mkdir()
    with pytest.raises(ImportFault, match="leaves the folder: refused"):
        archives.unpack(archive, target)
    assert not list(target.rglob("*"))
    assert not (tmp_path / "out.jpg").exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_link_in_an_archive_is_refused(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / f"set.{kind}"
    if kind == "zip":
        info = zipfile.ZipInfo("link.jpg")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr(info, "/etc/passwd")
    else:
        with tarfile.open(archive, "w") as tar:
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    target = tmp_path / "unpacked"
    target.mkdir()
    with pytest.raises(ImportFault, match="is a link or a device"):
        archives.unpack(archive, target)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RATIO_FREE", 1 << 20)
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.jpg", b"\0" * (30 << 20))
    target = tmp_path / "unpacked"
    target.mkdir()
    with pytest.raises(ImportFault, match="refused as a trap"):
        archives.unpack(archive, target)


@pytest.mark.parametrize("kind", ["zip", "gztar"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_a_damaged_archive_is_one_clear_error(
    case: Case, tmp_path: Path, kind: str, share: float
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), kind, case.folder))
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    target = tmp_path / "unpacked"
    target.mkdir()
    with pytest.raises(ImportFault, match="packed"):
        archives.unpack(archive, target)


# --- the table ----------------------------------------------------------------------------------


def test_the_table_says_it_all(case: Case) -> None:
    label = case.items["im00"].label
    assert label
    label.write_text("0 0.5 0.5 0.1 0.1 0.9\n")
    (case.folder / ".DS_Store").write_bytes(b"")
    text = table(imported(case.folder), "data/set")
    assert text.startswith("data/set: 13 images, ")
    assert "ignored: .DS_Store (litter of a program or system)" in text
    assert "refused: labels/train/im00.txt line 1: not a box: six columns" in text
    assert "images/train/im00.jpg with 1 box left out" in text
