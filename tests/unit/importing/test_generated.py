"""N of N generated data sets are imported with every box, or refused with file, line and remedy."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from src.datasets import SPLITS
from src.datasets.importing.account import Account
from src.datasets.importing.importer import build
from tests.unit.importing.cases import LAYOUTS, NAMES, ODDITIES, Case, Item, Oddity, make

# Every pair in one of the layouts that can have it, drawn by this seed; IMPORT_PAIRS=all tries all.
SEED = 5


def labels_of(image: Path) -> Path:
    return Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")


def trainer_sees(folder: Path) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """Return images and boxes by split as Ultralytics' own reader counts them, and its messages."""
    from ultralytics.data.utils import img2label_paths, verify_image_label

    names = yaml.safe_load((folder / "data.yaml").read_text())["names"]
    images, boxes, said = {}, {}, []
    for split in SPLITS:
        files = sorted(str(f) for f in (folder / "images" / split).rglob("*.*"))
        images[split] = boxes[split] = 0
        for file, label in zip(files, img2label_paths(files), strict=True):
            found = verify_image_label((file, label, "", False, len(names), 0, 0, False))
            images[split] += found[0] is not None
            boxes[split] += 0 if found[1] is None else len(found[1])
            said += [found[9]] if found[9] else []
    return images, boxes, said


def check_boxes(item: Item, image: Path) -> None:
    """Every box of the truth is there, within half a pixel."""
    with Image.open(image) as opened:
        assert opened.size == item.size
        assert opened.getexif().get(274, 1) == 1
    w, h = item.size
    found = []
    for line in labels_of(image).read_text().splitlines():
        kind, x, y, bw, bh = line.split()
        cx, cy, dx, dy = float(x) * w, float(y) * h, float(bw) * w / 2, float(bh) * h / 2
        found.append((int(kind), cx - dx, cy - dy, cx + dx, cy + dy))
    wanted = list(dict.fromkeys(item.boxes))
    assert len(found) == len(wanted)
    for box in wanted:
        assert any(
            other[0] == box[0]
            and max(abs(a - b) for a, b in zip(other[1:], box[1:], strict=True)) <= 0.5
            for other in found
        ), (box, found)


def check(case: Case, folder: Path) -> Account:
    folder.mkdir()
    account = build(case.folder, folder, seed=42)
    text = "\n".join([*account.notes, *account.changes, *map(str, account.refused)])
    kept = {key: item for key, item in case.items.items() if item.key not in case.refused}
    assert account.names == NAMES
    assert sum(account.images.values()) == len(kept)
    truth = sum(len(item.boxes) for item in case.items.values())
    twins = sum(len(item.boxes) for key, item in case.items.items() if key.endswith("twin"))
    assert account.boxes_found == truth + case.extra, text
    assert account.boxes_imported == sum(len(set(i.boxes)) for i in kept.values()), (text, twins)
    for item in kept.values():
        (image,) = [
            f
            for f in (folder / "images").rglob(f"*{item.key}*")
            if f.suffix == item.image.suffix or len(case.items) == 14
        ][:1]
        if not case.drawn:
            assert image.parent.name == item.split
        check_boxes(item, image)
    for refused in account.refused:
        assert refused.file and refused.what and refused.remedy
        assert not Path(refused.file).is_absolute()
    for key in case.refused:
        item = case.items[key]
        named = [r for r in account.refused if key in r.file or key in r.image or key in r.what]
        assert named, (key, text)
        if key in case.placed and not case.meeting:
            assert any(one.where for one in named), text
    for said in case.said if not case.meeting else ():
        assert said in text, (said, text)
    for file in case.litter:
        assert any(str(file).endswith(f"/{i.file}") for i in account.ignored)
        assert not list(folder.rglob(file.name))
    # What the trainer sees is what was counted; it finds nothing to mend, remove or warn about.
    before = {f: f.read_bytes() for f in folder.rglob("*.*")}
    write_layout(folder, account)
    images, boxes, said = trainer_sees(folder)
    assert images == {split: account.images[split] for split in SPLITS}
    assert boxes == {split: sum(account.boxes[split]) for split in SPLITS}
    assert said == []
    assert before.items() <= {f: f.read_bytes() for f in folder.rglob("*.*")}.items()
    return account


def write_layout(folder: Path, account: Account) -> None:
    layout = {split: f"images/{split}" for split in SPLITS}
    (folder / "data.yaml").write_text(yaml.safe_dump(layout | {"names": account.names}))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_layout_and_each_oddity_alone(tmp_path: Path, layout: Callable[[Case], None]) -> None:
    done = 0
    for odd in [None, *ODDITIES]:
        name = odd.name if odd else "plain"
        folder = tmp_path / name / "set"
        folder.mkdir(parents=True)
        case = make(folder, layout, [odd] if odd else [])
        if case is None:
            continue
        try:
            check(case, tmp_path / name / "built")
        except BaseException as error:
            error.add_note(f"{layout.__name__} with {name}")
            raise
        done += 1
    assert done >= 20


def pairs() -> list[tuple[Oddity, Oddity]]:
    return list(itertools.combinations(ODDITIES, 2))


@pytest.mark.parametrize("part", range(4))
def test_oddities_in_pairs(tmp_path: Path, part: int) -> None:
    draw = random.Random(SEED + part)
    done = 0
    for number, (one, other) in enumerate(pairs()[part::4]):
        layouts = LAYOUTS[:]
        draw.shuffle(layouts)
        if os.environ.get("IMPORT_PAIRS") != "all":
            yolo = one.yolo_only or other.yolo_only
            layouts = [
                x
                for x in layouts
                if not yolo
                or (
                    x.__name__[:4] not in ("coco", "voc", "voc_")
                    and x.__name__ not in ("voc_beside", "cvat_xml", "cvat_subsets")
                )
            ][:1]
        for layout in layouts:
            folder = tmp_path / f"{number}-{layout.__name__}" / "set"
            folder.mkdir(parents=True)
            try:
                case = make(folder, layout, [one, other])
            except (ValueError, OSError, FileNotFoundError, IndexError, AssertionError):
                case = None  # the two can't meet in one image
            if case is None:
                continue
            try:
                check(case, folder.parent / "built")
            except BaseException as error:
                error.add_note(f"{layout.__name__} with {one.name} and {other.name}")
                raise
            done += 1
    assert done > 50
