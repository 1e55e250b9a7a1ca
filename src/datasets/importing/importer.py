"""Import a folder: check every picture and label, draw splits, write the version."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from src.datasets import SPLITS
from src.datasets.importing import layouts, pictures, splits, yolo
from src.datasets.importing.account import Account, Ignored, ImportFault, Refused
from src.datasets.importing.pictures import Picture, PictureFault
from src.datasets.importing.plan import Plan, Sample
from src.datasets.importing.splits import Drawn
from src.datasets.importing.tree import LITTER_REASON, Tree, composed, is_litter, survey
from src.datasets.importing.yolo import Box
from src.machine import cores

ACCOUNT_FILE = "account.json"
FILE_LIMIT = 1 << 30  # bytes of one picture
NAME_LIMIT = 120  # bytes of a file's stem
DRAWN_INSTEAD = ", or leave that split out of data.yaml to have it drawn"
AHEAD = 8  # pictures in work for each thread, which bounds the memory
# Parts of a path that say nothing but where images stand.
PLAIN_PARTS = frozenset(
    "images jpegimages obj_train_data obj_validation_data obj_test_data".split()
)


@dataclass
class Read:
    """A sample after its picture and labels were checked."""

    sample: Sample
    picture: Picture
    boxes: list[Box]
    staged: Path
    duplicates: int

    @property
    def suffix(self) -> str:
        """Of the file in the version."""
        return self.picture.suffix or PurePosixPath(self.sample.image).suffix.lower()


@dataclass
class Outcome:
    """What became of one sample: read, or refused."""

    read: Read | None
    refused: list[Refused]
    found: int  # boxes, of those that are not counted yet
    changes: Counter[str]


def build(
    source: Path, target: Path, *, seed: int, chosen: str | None = None, movable: bool = False
) -> Account:
    """Write ``images/{split}``, ``labels/{split}``, ``data.yaml`` and the account into ``target``.

    The same files give the same bytes, wherever they come from.

    Args:
        source: The folder to import; nothing in it is written.
        target: An empty folder on the disk of the version.
        seed: Of the draw of missing splits.
        chosen: The annotation file to read, relative to ``source``, where there are several.
        movable: Whether pictures may be moved instead of copied: ``source`` is ours.

    Raises:
        ImportFault: When nothing can be built: an unknown layout, no class names, no train images,
            a split without a box.
    """
    account = Account()
    tree = survey(_root(source, account) if chosen is None else source, account)
    plan = layouts.recognise(tree, account, chosen)
    account.layout, account.names = plan.layout, plan.names
    staging = target / ".staging"
    staging.mkdir()
    reads = []
    for outcome in _all(tree, plan, staging, movable):
        account.refuse(outcome.refused)
        account.boxes_found += outcome.found
        account.changes.update(outcome.changes)
        if outcome.read:
            account.boxes_duplicate += outcome.read.duplicates
            reads.append(outcome.read)
    if not reads:
        raise ImportFault(_with_refusals("every image is refused", account))
    reads.sort(key=lambda read: read.sample.image)
    reads = _without_leaks(reads, account)
    _assign(reads, account, seed)
    _write(reads, plan, target, account)
    staging.rmdir()
    _require_boxes(account)
    account.used = plan.used | {read.sample.image for read in reads}
    account.check(tree.files)
    (target / ACCOUNT_FILE).write_text(
        json.dumps(account.as_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return account


def _root(folder: Path, account: Account) -> Path:
    """Return the folder that holds the files: archives like to wrap it in another."""
    while True:
        with os.scandir(folder) as entries:
            listed = list(entries)
        inside = [entry for entry in listed if not is_litter(entry.name)]
        if len(inside) != 1 or not inside[0].is_dir(follow_symlinks=False):
            return folder
        for entry in listed:
            if is_litter(entry.name):
                account.ignore(entry.name, LITTER_REASON)
        folder = Path(inside[0].path)


def _all(tree: Tree, plan: Plan, staging: Path, movable: bool) -> Iterator[Outcome]:
    """Check the samples in the order of the plan, a few ahead on every core."""
    workers = cores()
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(plan.samples), desc="importing", unit="image", disable=None) as bar,
    ):
        waiting: list[Future[Outcome]] = []
        queue = iter(enumerate(plan.samples))
        try:
            while True:
                while len(waiting) < workers * AHEAD:
                    following = next(queue, None)
                    if following is None:
                        break
                    number, sample = following
                    place = staging / str(number)
                    waiting.append(pool.submit(_one, tree, plan, sample, place, movable))
                if not waiting:
                    return
                yield waiting.pop(0).result()
                bar.update()
        finally:
            for future in waiting:
                future.cancel()


def _one(tree: Tree, plan: Plan, sample: Sample, staged: Path, movable: bool) -> Outcome:
    """Check one picture and its labels, and put the picture into the staging folder."""
    changes: Counter[str] = Counter()
    refused: list[Refused] = []
    labels = yolo.Labels()
    if sample.label:
        labels = yolo.read_labels(tree.read(sample.label), len(plan.names), plan.keypoints)
    own = labels.found if sample.label else len(sample.boxes) + sample.lost
    found = labels.found if sample.label else 0  # of the others' boxes the layout has kept count
    picture = None
    try:
        path = tree.files[sample.image]
        if path.stat().st_size > FILE_LIMIT:
            raise PictureFault(f"more than {FILE_LIMIT >> 20} MB", "make it smaller")
        content = path.read_bytes()
        picture = pictures.examine(content)
    except PictureFault as fault:
        refused.append(Refused(sample.image, "", fault.what, fault.remedy))
    except OSError as error:
        refused.append(Refused(sample.image, "", f"{error.strerror}", "bring it again"))
    label_file = sample.label or sample.annotation
    refused += [Refused(label_file, f"line {n}", what, fix) for n, what, fix in labels.faults]
    refused += [Refused(label_file, where, what, fix) for where, what, fix in sample.faults]
    boxes: list[Box] = []
    if picture is not None:
        boxes, faults = _boxes(sample, labels, picture, changes)
        refused += faults
    if refused or picture is None:
        # One line is wrong, so the image would lack a box: it is left out with all of them.
        first, *rest = refused
        counted = replace(first, boxes=own, image=sample.image)
        return Outcome(None, [counted, *rest], found, Counter())
    unique = list(dict.fromkeys(_float32(box) for box in boxes))
    duplicates = len(boxes) - len(unique)
    if duplicates:
        kept = {_float32(box): box for box in reversed(boxes)}
        boxes = [kept[key] for key in unique]
        changes["duplicate boxes left out"] += duplicates
    if labels.polygons:
        changes["polygons, masks or turned boxes made upright boxes"] += labels.polygons
    if labels.keypoints:
        changes["poses of which the box is kept"] += labels.keypoints
    changes.update(picture.changes)
    if picture.content is not None:
        staged.write_bytes(picture.content)
    elif movable and not path.is_symlink() and path.stat().st_nlink == 1:
        path.rename(staged)
    else:
        staged.write_bytes(content)
    picture.content = None
    return Outcome(Read(sample, picture, boxes, staged, duplicates), [], found, changes)


def _float32(box: Box) -> tuple[float, ...]:
    """Return a box as the trainer compares it: written, then read as float32."""
    return tuple(float(np.float32(f"{value:.8g}")) for value in box)


def _boxes(
    sample: Sample, labels: yolo.Labels, picture: Picture, changes: Counter[str]
) -> tuple[list[Box], list[Refused]]:
    """Return an image's boxes as shares, and those that don't fit."""
    if sample.label:
        given, places = labels.boxes, [f"line {number}" for number in labels.lines]
    else:
        places = [box[5] for box in sample.boxes]
        scaled = _shares(sample, picture, changes)
        if isinstance(scaled, Refused):
            return [], [scaled]
        given = scaled
    fitting: list[Box] = []
    faults: list[Refused] = []
    for box, place in zip(given, places, strict=True):
        kept, clipped = yolo.fit(box, picture.width, picture.height)
        if kept is None:
            what, remedy = yolo.outside(box, picture.width, picture.height)
            faults.append(Refused(sample.label or sample.annotation, place, what, remedy))
            continue
        if clipped:
            changes["boxes clipped that left the image by up to a pixel"] += 1
        fitting.append(kept)
    return fitting, faults


def _shares(sample: Sample, picture: Picture, changes: Counter[str]) -> list[Box] | Refused:
    """Return boxes in pixels as shares of the picture as it is displayed."""
    shown = (picture.width, picture.height)
    width, height = sample.size or shown
    turned = False
    if (width, height) != shown:
        if (width, height) == picture.raw_size:
            turned = True  # drawn on the picture as it is stored, before EXIF turned it
        elif abs(width * shown[1] - height * shown[0]) > max(width, height) * max(
            1.0, 0.01 * max(shown)
        ):
            return Refused(
                sample.annotation,
                "",
                f"{sample.image} is annotated as {width} × {height} pixels, but has "
                f"{shown[0]} × {shown[1]}",
                "export the annotations again, with their images",
            )
        else:
            changes["images of another size than annotated, the boxes scaled"] += 1
    turn = pictures.turn(picture.orientation)
    boxes: list[Box] = []
    for kind, left, top, right, bottom, _ in sample.boxes:
        edges: tuple[float, ...] = (left / width, top / height, right / width, bottom / height)
        if turned and right > left and bottom > top:
            edges = turn(*edges)
        x1, y1, x2, y2 = edges
        boxes.append((kind, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1))
    return boxes


def _without_leaks(reads: list[Read], account: Account) -> list[Read]:
    """Leave copies of one picture in one split: else it is scored on what it was trained on."""
    rank = {"test": 0, "val": 1, "train": 2, None: 3}
    by_digest: dict[str, list[Read]] = {}
    for read in reads:
        by_digest.setdefault(read.picture.digest, []).append(read)
    dropped: set[int] = set()
    for twins in by_digest.values():
        if len(twins) < 2:
            continue
        first = min(twins, key=lambda read: (rank[read.sample.split], read.sample.image))
        for twin in twins:
            if twin is first:
                continue
            same = sorted(map(_float32, twin.boxes)) == sorted(map(_float32, first.boxes))
            if twin.sample.split == first.sample.split:
                if not same:
                    account.note(
                        f"{twin.sample.image} and {first.sample.image} are the same picture with "
                        "different boxes"
                    )
                continue
            count = len(twin.boxes)
            if same:
                account.ignored.append(
                    Ignored(
                        twin.sample.image,
                        f"the same picture as {first.sample.image} in {first.sample.split}",
                        count,
                    )
                )
            else:
                account.refuse(
                    [
                        Refused(
                            twin.sample.image,
                            "",
                            f"the same picture as {first.sample.image} in {first.sample.split}, "
                            "with other boxes",
                            "delete the one that is wrong",
                            count,
                        )
                    ]
                )
            dropped.add(id(twin))
            twin.staged.unlink()
    return [read for read in reads if id(read) not in dropped]


def _assign(reads: list[Read], account: Account, seed: int) -> None:
    """Draw the splits that are missing, and say so."""
    drawn = [
        Drawn(
            str(PurePosixPath(read.sample.image).with_suffix("")),
            read.picture.digest,
            read.picture.look,
            frozenset(box[0] for box in read.boxes),
        )
        for read in reads
    ]
    tiny = np.stack([read.picture.tiny for read in reads])
    given = {read.sample.split for read in reads} - {None}
    missing = [split for split in SPLITS if split not in given]
    if not missing:
        _say_lookalikes(reads, drawn, tiny, account)
        return
    pool = [i for i, read in enumerate(reads) if read.sample.split in (None, "train")]
    if len(pool) <= len(missing):
        raise ImportFault(
            f"{len(pool)} images are too few to draw {', '.join(missing)} from: bring more"
        )
    shares = {split: splits.SHARES[split] for split in missing}
    if "train" in given:
        # Shares of the whole set; what is given already has its own.
        whole = splits.SHARES["train"] + sum(splits.SHARES[split] for split in missing)
        shares = {"train": whole - sum(shares.values()), **shares}
    chosen = [drawn[i] for i in pool]
    group = splits.groups(chosen, tiny[pool])
    if len(set(group)) < len(shares):
        group = splits.groups(chosen, tiny[pool], by_name=False)
    if len(set(group)) < len(shares):
        group = list(range(len(chosen)))
        account.note("nearly all images look alike: drawn one by one")
    assigned, cut = splits.draw(chosen, group, shares, seed)
    for index, split in zip(pool, assigned, strict=True):
        reads[index].sample.split = split
    together = len(chosen) - len(set(group))
    percent = ", ".join(
        f"{split} {100 * assigned.count(split) / len(assigned):.0f} %" for split in shares
    )
    origin = "train" if "train" in given else "all images"
    *first, last = missing
    listed = f"{', '.join(first)} and {last}" if first else last
    account.note(f"{listed} drawn from {origin} (seed {seed}): {percent}")
    if together:
        account.note(
            f"{together} near duplicates, copies or frames were kept in the split of the first"
        )
    if cut:
        account.note("one video or series is so large that it was cut, in the order of its frames")


def _say_lookalikes(
    reads: list[Read], drawn: list[Drawn], tiny: np.ndarray, account: Account
) -> None:
    pairs = splits.near_pairs(drawn, tiny)
    across = [
        (one, other) for one, other in pairs if reads[one].sample.split != reads[other].sample.split
    ]
    if across:
        one, other = across[0]
        account.note(
            f"{len(across)} pairs of near duplicates stand in different splits, such as "
            f"{reads[one].sample.image} and {reads[other].sample.image}: scores may flatter"
        )


def _write(reads: Iterable[Read], plan: Plan, target: Path, account: Account) -> None:
    """Move the staged pictures into their splits and write their labels."""
    for name in SPLITS:
        for kind in ("images", "labels"):
            (target / kind / name).mkdir(parents=True)
        account.boxes[name] = [0] * len(plan.names)
    taken: set[tuple[str, str]] = set()
    for read in reads:
        split = read.sample.split
        assert split is not None
        stem = _stem(read, split, taken)
        read.staged.rename(target / "images" / split / f"{stem}{read.suffix}")
        (target / "labels" / split / f"{stem}.txt").write_text(yolo.write_labels(read.boxes))
        account.images[split] += 1
        for box in read.boxes:
            account.boxes[split][box[0]] += 1


def _stem(read: Read, split: str, taken: set[tuple[str, str]]) -> str:
    """Return a name that no other image of the split has, on any file system."""
    parts = list(PurePosixPath(read.sample.image).with_suffix("").parts)
    while len(parts) > 1 and (
        parts[0].lower() in PLAIN_PARTS
        or parts[0].lower().rstrip("0123456789") in layouts.SPLIT_WORDS
    ):
        parts.pop(0)
    if len(parts) > 1:
        parts = [part for part in parts[:-1] if part.lower() not in PLAIN_PARTS] + parts[-1:]
    # Ultralytics drops apostrophes from some paths, and other systems refuse these.
    stem = "".join(
        c if c.isprintable() and c not in "'\"\\/:*?<>|" else "_" for c in composed("_".join(parts))
    )
    digest = read.picture.digest[:8]
    if len(stem.encode()) > NAME_LIMIT:
        stem = f"{stem.encode()[: NAME_LIMIT - 9].decode(errors='ignore')}_{digest}"
    if (split, stem.casefold()) in taken:
        stem = f"{stem}_{digest}"
    number = 2
    unique = stem
    while (split, unique.casefold()) in taken:
        unique = f"{stem}_{number}"
        number += 1
    taken.add((split, unique.casefold()))
    return unique


def _require_boxes(account: Account) -> None:
    """Refuse a set that can't be trained or scored; say which classes a split lacks."""
    if not account.boxes_imported:
        raise ImportFault(
            _with_refusals(
                f"{sum(account.images.values())} images and not one box: bring their labels, "
                "labels/train/x.txt for images/train/x.jpg, or label some",
                account,
            )
        )
    for split in SPLITS:
        if not account.images[split]:
            raise ImportFault(_with_refusals(f"no image is left in {split}", account))
        if not sum(account.boxes[split]):
            raise ImportFault(
                _with_refusals(
                    f"{split} has {account.images[split]} images and not one box: label some"
                    + ("" if split == "train" else DRAWN_INSTEAD),
                    account,
                )
            )
    for split in SPLITS:
        lacking = [
            name for number, name in enumerate(account.names) if not account.boxes[split][number]
        ]
        if lacking:
            account.note(f"{split} has no box of {', '.join(lacking)}")


def _with_refusals(what: str, account: Account) -> str:
    listed = sorted(account.refused)
    lines = [what, *(f"  refused: {item}" for item in listed[:20])]
    if len(listed) > 20:
        lines.append(f"  … and {len(listed) - 20} more")
    return "\n".join(lines)
