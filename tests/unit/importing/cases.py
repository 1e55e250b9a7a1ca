"""Data sets made of a layout and oddities, with what an import must make of them.

A truth (images with boxes in pixels) is changed by the oddities that concern boxes, written by a
layout, and then changed by those that concern files. Each oddity says what it expects.
"""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import yaml
from PIL import Image

NAMES = ["cat", "dog", "traffic light"]
COUNTS = {"train": 8, "val": 3, "test": 3}
Box = tuple[int, float, float, float, float]  # class, left, top, right, bottom in px


@dataclass
class Item:
    """An image of the truth."""

    key: str  # part of its file's name, wherever it goes
    split: str
    size: tuple[int, int]
    boxes: list[Box]
    image: Path = Path()  # set by the layout
    label: Path | None = None  # of YOLO's layouts
    source: Path = Path()  # the file that holds its boxes


@dataclass
class Case:
    """A data set on disk, and what is expected of its import."""

    folder: Path
    items: dict[str, Item]
    drawn: bool = False  # no splits are given
    refused: set[str] = field(default_factory=set)  # keys of images that must be left out
    placed: set[str] = field(default_factory=set)  # of those, whose fault has a line
    duplicates: int = 0
    extra: int = 0  # boxes besides the truth's: of orphans, crowds
    fault: str = ""  # the import as a whole must be refused, with this in the message
    litter: list[Path] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # that the account must hold
    yolo: bool = True
    everything: bool = False  # every image has a part, with labels or without

    touched: list[set[str]] = field(default_factory=list)  # keys, for each oddity

    def pick(self, number: int = 0, split: str = "train") -> Item:
        item = [item for item in self.items.values() if item.split == split][number]
        self.touched[-1].add(item.key)
        return item

    @property
    def meeting(self) -> bool:
        """Whether two oddities fell upon one image, where one may hide the other."""
        return any(one & other for n, one in enumerate(self.touched) for other in self.touched[:n])


def truth() -> dict[str, Item]:
    """Return 14 images with 1 to 4 boxes each, every class in every split."""
    rng = np.random.default_rng(7)
    items = {}
    number = 0
    for split, count in COUNTS.items():
        for index in range(count):
            size = (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
            boxes: list[Box] = []
            for kind in {index % 3, (index + 1) % 3, *([index % 2] if index % 4 == 0 else [])}:
                w, h = rng.uniform(6, size[0] / 2), rng.uniform(6, size[1] / 2)
                x, y = rng.uniform(0, size[0] - w), rng.uniform(0, size[1] - h)
                boxes.append((int(kind), *(round(float(v), 3) for v in (x, y, x + w, y + h))))
            key = f"im{number:02d}"
            items[key] = Item(key, split, size, boxes)
            number += 1
    return items


def picture(item: Item) -> Image.Image:
    """Return pixels that no other item has, nor a near duplicate of them."""
    rng = np.random.default_rng(int(item.key[2:]) + 1000)
    coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    return coarse.resize(item.size, Image.Resampling.BICUBIC)


def save(item: Item, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(item).save(path, quality=90)
    item.image = path


def rows(item: Item) -> str:
    lines = []
    for kind, left, top, right, bottom in item.boxes:
        w, h = item.size
        x, y = (left + right) / 2 / w, (top + bottom) / 2 / h
        lines.append(f"{kind} {x:.7f} {y:.7f} {(right - left) / w:.7f} {(bottom - top) / h:.7f}\n")
    return "".join(lines)


def save_label(item: Item, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(rows(item))
    item.label = item.source = path


def write_yaml(file: Path, **content: object) -> None:
    file.write_text(yaml.safe_dump({"names": NAMES} | content, sort_keys=False))


# --- layouts ------------------------------------------------------------------------------------


def ultralytics(case: Case) -> None:
    for item in case.items.values():
        save(item, case.folder / "images" / item.split / f"{item.key}.jpg")
        save_label(item, case.folder / "labels" / item.split / f"{item.key}.txt")
    write_yaml(case.folder / "data.yaml", **{s: f"images/{s}" for s in COUNTS})


def ultralytics_with_path(case: Case) -> None:
    ultralytics(case)
    write_yaml(
        case.folder / "data.yaml", path="/somewhere/else", **{s: f"images/{s}" for s in COUNTS}
    )
    case.said.append("not followed")


def subfolders(case: Case) -> None:
    for number, item in enumerate(case.items.values()):
        cam = f"cam{number % 2}"
        save(item, case.folder / "images" / item.split / cam / f"{item.key}.png")
        save_label(item, case.folder / "labels" / item.split / cam / f"{item.key}.txt")
    write_yaml(case.folder / "data.yaml", **{s: f"images/{s}" for s in COUNTS})


def roboflow(case: Case) -> None:
    place = {"train": "train", "val": "valid", "test": "test"}
    for item in case.items.values():
        name = f"{item.key}_jpg.rf.{item.key * 4}"
        save(item, case.folder / place[item.split] / "images" / f"{name}.jpg")
        save_label(item, case.folder / place[item.split] / "labels" / f"{name}.txt")
    write_yaml(
        case.folder / "data.yaml",
        **{split: f"../{folder}/images" for split, folder in place.items()},
        nc=3,
        roboflow={"workspace": "w", "url": "https://example.org"},
    )
    (case.folder / "README.roboflow.txt").write_text("Exported by Roboflow\n")


def split_first_beside(case: Case) -> None:
    for item in case.items.values():
        save(item, case.folder / item.split / f"{item.key}.jpeg")
        save_label(item, case.folder / item.split / f"{item.key}.txt")
    write_yaml(case.folder / "set.yaml", **{s: s for s in COUNTS})


def lists(case: Case) -> None:
    for item in case.items.values():
        save(item, case.folder / "images" / f"{item.key}.jpg")
        save_label(item, case.folder / "labels" / f"{item.key}.txt")
    for split in COUNTS:
        lines = [f"./images/{i.image.name}" for i in case.items.values() if i.split == split]
        (case.folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    write_yaml(case.folder / "data.yaml", **{s: f"{s}.txt" for s in COUNTS})


def lists_of_another_machine(case: Case) -> None:
    lists(case)
    for split in COUNTS:
        file = case.folder / f"{split}.txt"
        file.write_text(file.read_text().replace("./", "/home/ann/set/"))


def train_only(case: Case) -> None:
    ultralytics(case)
    for item in case.items.values():
        for kind in ("image", "label"):
            old = getattr(item, kind)
            new = Path(str(old).replace(f"/{item.split}/", "/train/"))
            new.parent.mkdir(parents=True, exist_ok=True)
            setattr(item, kind, old.rename(new))
        assert item.label
        item.source = item.label
    for split in ("val", "test"):
        for kind in ("images", "labels"):
            (case.folder / kind / split).rmdir()
    write_yaml(case.folder / "data.yaml", train="images/train")
    case.drawn = True
    case.said.append("val and test drawn from train")


def same_split_twice(case: Case) -> None:
    train_only(case)
    write_yaml(case.folder / "data.yaml", train="images/train", val="images/train")
    case.said.append("val names the images of train")


def label_studio(case: Case) -> None:
    for item in case.items.values():
        save(item, case.folder / "images" / f"0a1b2c-{item.key}.png")
        save_label(item, case.folder / "labels" / f"0a1b2c-{item.key}.txt")
    (case.folder / "classes.txt").write_text("\n".join(NAMES) + "\n")
    (case.folder / "notes.json").write_text('{"categories": [], "info": {"year": 2024}}')
    case.drawn = case.everything = True


def cvat_yolo(case: Case) -> None:
    for item in case.items.values():
        save(item, case.folder / "obj_train_data" / f"{item.key}.jpg")
        save_label(item, case.folder / "obj_train_data" / f"{item.key}.txt")
    (case.folder / "obj.names").write_text("\n".join(NAMES))
    (case.folder / "obj.data").write_text(
        "classes = 3\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    )
    listed = [f"data/obj_train_data/{item.image.name}" for item in case.items.values()]
    (case.folder / "train.txt").write_text("\n".join(listed) + "\n")
    case.drawn = True


def coco_entries(items: list[Item], base: Path) -> dict[str, object]:
    images, annotations = [], []
    for number, item in enumerate(items, 1):
        images.append(
            {"id": number, "file_name": str(item.image.relative_to(base)), "width": item.size[0],
             "height": item.size[1]}
        )  # fmt: skip
        for kind, left, top, right, bottom in item.boxes:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": kind + 1,
                 "bbox": [left, top, right - left, bottom - top], "area": 1, "iscrowd": 0}
            )  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_single(case: Case) -> None:
    for item in case.items.values():
        save(item, case.folder / "images" / f"{item.key}.jpg")
        item.source = case.folder / "annotations.json"
    content = coco_entries(list(case.items.values()), case.folder / "images")
    (case.folder / "annotations.json").write_text(json.dumps(content))
    case.drawn, case.yolo = True, False


def coco_years(case: Case) -> None:
    (case.folder / "annotations").mkdir()
    for split in COUNTS:
        items = [item for item in case.items.values() if item.split == split]
        source = case.folder / "annotations" / f"instances_{split}2017.json"
        for item in items:
            save(item, case.folder / f"{split}2017" / f"{item.key}.jpg")
            item.source = source
        source.write_text(json.dumps(coco_entries(items, case.folder / f"{split}2017"), indent=1))
    case.yolo = False


def coco_roboflow(case: Case) -> None:
    for split, folder in {"train": "train", "val": "valid", "test": "test"}.items():
        items = [item for item in case.items.values() if item.split == split]
        source = case.folder / folder / "_annotations.coco.json"
        for item in items:
            save(item, case.folder / folder / f"{item.key}_jpg.rf.{item.key * 4}.jpg")
            item.source = source
        content = coco_entries(items, case.folder / folder)
        categories = [{"id": 0, "name": "things", "supercategory": "none"}]
        categories += [c | {"supercategory": "things"} for c in content["categories"]]  # type: ignore[attr-defined]
        source.write_text(json.dumps(content | {"categories": categories}))
    case.yolo = False


def voc_file(item: Item) -> str:
    objects = "".join(
        f"  <object>\n    <name>{NAMES[kind]}</name>\n    <bndbox><xmin>{left}</xmin><ymin>{top}"
        f"</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox>\n  </object>\n"
        for kind, left, top, right, bottom in item.boxes
    )
    return (
        f"<annotation>\n  <folder>x</folder>\n  <filename>{item.image.name}</filename>\n"
        f"  <size><width>{item.size[0]}</width><height>{item.size[1]}</height><depth>3</depth>"
        f"</size>\n{objects}</annotation>\n"
    )


def voc(case: Case) -> None:
    (case.folder / "Annotations").mkdir()
    (case.folder / "ImageSets/Main").mkdir(parents=True)
    for item in case.items.values():
        save(item, case.folder / "JPEGImages" / f"{item.key}.jpg")
        item.source = case.folder / "Annotations" / f"{item.key}.xml"
        item.source.write_text(voc_file(item))
    for split in COUNTS:
        listed = [item.key for item in case.items.values() if item.split == split]
        (case.folder / f"ImageSets/Main/{split}.txt").write_text("\n".join(listed) + "\n")
    case.yolo = False


def voc_beside(case: Case) -> None:
    for item in case.items.values():
        save(item, case.folder / item.split / f"{item.key}.jpg")
        item.source = item.image.with_suffix(".xml")
        item.source.write_text(voc_file(item))
    case.yolo = False


def cvat_entries(items: list[Item], base: Path, subset: bool) -> str:
    labels = "".join(f"<label><name>{name}</name></label>" for name in NAMES)
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "<version>1.1</version>",
        f"<meta><task><labels>{labels}</labels></task></meta>",
    ]  # fmt: skip
    subsets = {"train": "Train", "val": "Validation", "test": "Test"}
    for number, item in enumerate(items):
        told = f" subset={quoteattr(subsets[item.split])}" if subset else ""
        name = quoteattr(str(item.image.relative_to(base)))
        lines.append(
            f'<image id="{number}" name={name}{told} width="{item.size[0]}" '
            f'height="{item.size[1]}">'
        )
        lines += [
            f'<box label={quoteattr(NAMES[kind])} source="manual" occluded="0" xtl="{left}" '
            f'ytl="{top}" xbr="{right}" ybr="{bottom}" z_order="0"></box>'
            for kind, left, top, right, bottom in item.boxes
        ]
        lines.append("</image>")
    return "\n".join([*lines, "</annotations>", ""])


def cvat_xml(case: Case, subset: bool = False) -> None:
    for item in case.items.values():
        save(item, case.folder / "images" / f"{item.key}.png")
        item.source = case.folder / "annotations.xml"
    text = cvat_entries(list(case.items.values()), case.folder / "images", subset)
    (case.folder / "annotations.xml").write_text(text)
    case.drawn, case.yolo = not subset, False


def cvat_subsets(case: Case) -> None:
    cvat_xml(case, subset=True)


def wrapped(case: Case) -> None:
    whole = case.folder
    case.folder = whole / "my set"
    case.folder.mkdir()
    ultralytics(case)
    case.folder = whole


LAYOUTS: list[Callable[[Case], None]] = [
    ultralytics, ultralytics_with_path, subfolders, roboflow, split_first_beside, lists,
    lists_of_another_machine, train_only, same_split_twice, label_studio, cvat_yolo, coco_single,
    coco_years, coco_roboflow, voc, voc_beside, cvat_xml, cvat_subsets, wrapped,
]  # fmt: skip


# --- oddities -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Oddity:
    """A change: ``before`` to the truth, ``after`` to the files; each says what it expects."""

    name: str
    before: Callable[[Case], None] | None = None
    after: Callable[[Case], None] | None = None
    yolo_only: bool = False
    not_yolo: bool = False


ODDITIES: list[Oddity] = []


def oddity(
    *, before: bool = False, yolo_only: bool = False, not_yolo: bool = False
) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    def register(change: Callable[[Case], None]) -> Callable[[Case], None]:
        given = {"before" if before else "after": change}
        ODDITIES.append(
            Oddity(change.__name__, **given, yolo_only=yolo_only, not_yolo=not_yolo)  # type: ignore[arg-type]
        )
        return change

    return register


def _refuse(case: Case, item: Item, *, line: bool = False) -> None:
    case.refused.add(item.key)
    if line:
        case.placed.add(item.key)


@oddity(before=True)
def a_background(case: Case) -> None:
    case.pick(1).boxes.clear()


@oddity(before=True)
def a_box_half_a_pixel_out(case: Case) -> None:
    item = case.pick(2)
    kind, _, top, _, bottom = item.boxes[0]
    item.boxes[0] = (kind, -0.5, top, item.size[0] + 0.4, bottom)
    case.said.append("clipped")


@oddity(before=True)
def a_box_five_pixels_out(case: Case) -> None:
    item = case.pick(3)
    kind, left, top, _, bottom = item.boxes[0]
    item.boxes[0] = (kind, left, top, item.size[0] + 5.0, bottom)
    _refuse(case, item, line=True)


@oddity(before=True)
def an_empty_box(case: Case) -> None:
    item = case.pick(4)
    kind, left, top, _, bottom = item.boxes[0]
    item.boxes[0] = (kind, left, top, left, bottom)
    _refuse(case, item, line=True)


@oddity(before=True)
def a_box_that_is_not_finite(case: Case) -> None:
    item = case.pick(5)
    kind, left, top, _, bottom = item.boxes[0]
    item.boxes[0] = (kind, left, top, float("nan"), bottom)
    _refuse(case, item, line=True)


@oddity(before=True)
def a_box_twice(case: Case) -> None:
    item = case.pick(6)
    item.boxes.append(item.boxes[0])
    case.duplicates += 1


def _label(item: Item) -> Path:
    assert item.label is not None
    return item.label


@oddity(yolo_only=True)
def a_byte_order_mark(case: Case) -> None:
    label = _label(case.pick(0))
    label.write_bytes(b"\xef\xbb\xbf" + label.read_bytes())


@oddity(yolo_only=True)
def windows_line_ends_and_tabs(case: Case) -> None:
    label = _label(case.pick(1))
    label.write_bytes(label.read_bytes().replace(b"\n", b"\r\n").replace(b" ", b"\t") + b"\r\n\r\n")


@oddity(yolo_only=True)
def classes_as_floats(case: Case) -> None:
    label = _label(case.pick(0, "val"))
    lines = [line.split(" ", 1) for line in label.read_text().splitlines()]
    label.write_text("\n".join(f"{kind}.0 {rest}" for kind, rest in lines))


@oddity(yolo_only=True)
def polygons(case: Case) -> None:
    item = case.pick(7)
    lines = []
    for kind, left, top, right, bottom in item.boxes:
        w, h = item.size
        corners = [
            (left, top),
            (right, top),
            (right, bottom),
            (left, bottom),
            (left, (top + bottom) / 2),
        ]
        lines.append(f"{kind} " + " ".join(f"{x / w:.7f} {y / h:.7f}" for x, y in corners))
    _label(item).write_text("\n".join(lines) + "\n")
    case.said.append("upright boxes")


@oddity(yolo_only=True)
def six_columns(case: Case) -> None:
    item = case.pick(1, "val")
    label = _label(item)
    label.write_text("".join(f"{line} 0.9\n" for line in label.read_text().splitlines()))
    _refuse(case, item, line=True)


@oddity(yolo_only=True)
def a_class_out_of_range(case: Case) -> None:
    item = case.pick(1, "test")
    label = _label(item)
    label.write_text("3" + label.read_text()[1:])
    _refuse(case, item, line=True)


@oddity(yolo_only=True)
def a_word(case: Case) -> None:
    item = case.pick(2, "val")
    label = _label(item)
    label.write_text(label.read_text().replace(label.read_text()[0], "cat", 1))
    _refuse(case, item, line=True)


@oddity(yolo_only=True)
def pixels_for_shares(case: Case) -> None:
    item = case.pick(2, "test")
    _label(item).write_text("".join(f"{b[0]} 20 20 10 10\n" for b in item.boxes))
    _refuse(case, item, line=True)


@oddity(yolo_only=True)
def latin_1_in_a_label(case: Case) -> None:
    item = case.pick(3)
    _label(item).write_bytes(b"\xe9" + _label(item).read_bytes())
    _refuse(case, item, line=True)


@oddity(yolo_only=True)
def a_label_without_image(case: Case) -> None:
    _label(case.pick(0)).with_name("nobody.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    case.extra += 1
    case.said.append("a label without an image of that name")


@oddity(yolo_only=True)
def a_look_alike_name(case: Case) -> None:
    item = case.pick(2)
    name = f"{item.image.stem}é"
    composed, apart = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    old = item.image
    item.image = old.rename(old.with_name(composed + old.suffix))
    item.label = item.source = _label(item).rename(_label(item).with_name(f"{apart}.txt"))
    _relist(case, old, item.image)
    case.said.append("Unicode form")


def _relist(case: Case, old: Path, new: Path) -> None:
    for file in case.folder.glob("*.txt"):
        file.write_text(file.read_text().replace(old.name, new.name))


@oddity(yolo_only=True)
def two_images_of_one_stem(case: Case) -> None:
    item = case.pick(3)
    other = ".png" if item.image.suffix != ".png" else ".bmp"
    twin = item.image.with_suffix(other)
    noise = Image.effect_noise(item.size, 90).convert("RGB")
    noise.save(twin)
    for file in case.folder.glob("*.txt"):
        text = file.read_text()
        line = next((x for x in text.splitlines() if x.endswith(item.image.name)), None)
        if line:
            file.write_text(f"{text}{line[: -len(item.image.name)]}{twin.name}\n")
    case.items[f"{item.key}twin"] = Item(item.key, item.split, item.size, item.boxes, twin)
    case.said.append("share")


@oddity()
def litter(case: Case) -> None:
    beside = case.pick(0).image.parent
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", f"._{case.pick(0).image.name}",
                 "train.cache", "im00.npy"):  # fmt: skip
        (beside / name).write_bytes(b"\0litter")
        case.litter.append(beside / name)
    (case.folder / "__MACOSX").mkdir(exist_ok=True)
    (case.folder / "__MACOSX" / "._im00.jpg").write_bytes(b"x")


@oddity()
def an_exif_orientation(case: Case) -> None:
    item = case.pick(4)
    shown = picture(item)
    exif = Image.Exif()
    exif[274] = 6
    stored = shown.transpose(Image.Transpose.ROTATE_90)  # 6: turn by 90° clockwise to display
    path = item.image.with_suffix(".jpg") if item.image.suffix == ".jpeg" else item.image
    stored.save(path, **({"quality": 95} if path.suffix == ".jpg" else {}), exif=exif)
    if path != item.image:
        item.image.unlink()
        item.image = path
    case.said.append("turned as EXIF says")


def _replace(item: Item, image: Image.Image, kind: str, **options: object) -> None:
    """Write another kind of picture under the same name: what counts is the content."""
    image.save(item.image, kind, **options)


@oddity()
def a_cmyk_jpeg(case: Case) -> None:
    item = case.pick(5)
    _replace(item, picture(item).convert("CMYK"), "JPEG")


@oddity()
def sixteen_bits(case: Case) -> None:
    item = case.pick(6)
    grey = np.asarray(picture(item).convert("L")).astype(np.uint16) * 257
    _replace(item, Image.fromarray(grey), "PNG")


@oddity()
def a_palette(case: Case) -> None:
    item = case.pick(7)
    _replace(item, picture(item).quantize(16), "PNG")


@oddity()
def an_alpha_channel(case: Case) -> None:
    item = case.pick(0, "test")
    _replace(item, picture(item).convert("RGBA"), "PNG")


@oddity()
def an_animation(case: Case) -> None:
    item = case.pick(0, "val")
    other = Image.effect_noise(item.size, 80).convert("RGB")
    _replace(item, picture(item), "WEBP", save_all=True, append_images=[other], lossless=True)
    case.said.append("several frames")


@oddity()
def a_gif(case: Case) -> None:
    item = case.pick(1)
    _replace(item, picture(item), "GIF")
    _refuse(case, item)


@oddity()
def a_truncated_image(case: Case) -> None:
    item = case.pick(2, "train")
    content = item.image.read_bytes()
    item.image.write_bytes(content[: len(content) * 2 // 3])
    _refuse(case, item)


@oddity()
def an_empty_image(case: Case) -> None:
    item = case.pick(3)
    item.image.write_bytes(b"")
    _refuse(case, item)


@oddity()
def a_jpeg_with_a_tail(case: Case) -> None:
    item = case.pick(4)
    _replace(item, picture(item), "JPEG")
    item.image.write_bytes(item.image.read_bytes() + b"camera's own data")
    case.said.append("proper end")


@oddity(before=True)
def a_tiny_image(case: Case) -> None:
    item = case.pick(5)
    item.size = (9, 30)
    item.boxes[:] = [(0, 1.0, 1.0, 8.0, 20.0)]
    _refuse(case, item)


@oddity()
def a_link_out_of_the_folder(case: Case) -> None:
    item = case.pick(6)
    outside = case.folder.parent / f"outside-{item.image.name}"
    shutil.move(item.image, outside)
    item.image.symlink_to(outside)
    _refuse(case, item)


@oddity()
def an_image_nobody_names(case: Case) -> None:
    (case.folder / "extra pictures").mkdir()
    path = case.folder / "extra pictures" / "extra.png"
    Image.effect_noise((50, 50), 60).save(path)
    if case.everything:
        case.items["extra"] = Item("extra", "train", (50, 50), [], path)


@oddity()
def a_name_with_spaces_and_quotes(case: Case) -> None:
    (case.folder / 'it\'s a "note".md').write_text("# hello")


def make(folder: Path, layout: Callable[[Case], None], oddities: list[Oddity]) -> Case | None:
    """Write a case; None where the layout can't have one of the oddities."""
    case = Case(folder, truth())
    for odd in oddities:
        case.touched.append(set())
        if odd.before:
            odd.before(case)
    layout(case)
    for odd in oddities:
        if (odd.yolo_only and not case.yolo) or (odd.not_yolo and case.yolo):
            return None
        if odd.after:
            case.touched.append(set())
            odd.after(case)
    if case.meeting and any(key.endswith("twin") for key in case.items):
        return None  # whether the twin is refused too depends on where the other's fault lies
    return case
