"""Recognise a data set's layout: which images, which labels, which classes, which splits."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import yaml

from src.datasets import SPLITS
from src.datasets.importing import markup
from src.datasets.importing.account import Account, Ignored, ImportFault, Refused
from src.datasets.importing.markup import Entry, Markup
from src.datasets.importing.plan import Plan, Sample
from src.datasets.importing.tree import Tree, composed, is_image
from src.datasets.importing.yolo import read_labels

YAML_LIMIT = 1 << 20  # bytes; a data.yaml has a few lines
SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "test": "test", "testing": "test",
}  # fmt: skip
CLASS_FILES = ("classes.txt", "obj.names", "predefined_classes.txt", "_darknet.labels")
SEEN = (
    "Ultralytics' and Roboflow's layout with data.yaml, YOLO with classes.txt or obj.names, COCO "
    "JSON, Pascal VOC and CVAT XML"
)


def recognise(tree: Tree, account: Account, chosen: str | None = None) -> Plan:
    """Return a folder's plan.

    Args:
        tree: The folder.
        account: Takes what is decided, ignored and refused on the way.
        chosen: The ``data.yaml``, COCO JSON or CVAT XML to read, where there are several.

    Raises:
        ImportFault: When the layout is none of those known, or can't be read unambiguously.
    """
    if not any(tree.images()):
        raise ImportFault(f"{tree.root} holds no image: give a folder or archive of {SEEN}")
    suffix = PurePosixPath(chosen).suffix.lower() if chosen else ""
    plan = None
    if not chosen or suffix in (".yaml", ".yml"):
        plan = _from_yaml(tree, account, chosen)
    if plan is None and suffix in ("", ".json"):
        plan = _from_coco(tree, account, chosen)
    if plan is None and suffix in ("", ".xml"):
        plan = _from_xml(tree, account, chosen)
    if plan is None:
        plan = _from_folders(tree, account)
    if plan is None:
        raise ImportFault(
            f"{chosen or tree.root} is not a data set that is known here: give a folder, an "
            f"archive or a file of {SEEN}"
        )
    _check_names(plan)
    _account_for_rest(plan, tree, account)
    return plan


def _check_names(plan: Plan) -> None:
    twins = sorted({name for name in plan.names if plan.names.count(name) > 1})
    if twins:
        raise ImportFault(f"two classes have the name {twins[0]!r}: rename or merge them")
    if not plan.names:
        raise ImportFault("no class has a name: add a data.yaml with names:, or a classes.txt")
    bad = [name for name in plan.names if not name.strip() or not name.isprintable()]
    if bad:
        raise ImportFault(f"a class has the name {bad[0]!r}: give it one that can be read")


# --- data.yaml ----------------------------------------------------------------------------------


def _from_yaml(tree: Tree, account: Account, chosen: str | None) -> Plan | None:
    found = {}
    candidates = (
        [chosen] if chosen else [n for n in tree.files if n.lower().endswith((".yaml", ".yml"))]
    )
    for name in candidates:
        content = _read_yaml(tree, name, account, must=bool(chosen) or _is_data_yaml(name))
        if isinstance(content, dict) and ("names" in content or "nc" in content):
            found[name] = content
        elif chosen or _is_data_yaml(name):
            raise ImportFault(f"{name} has no names: list the classes in it, names: [cat, dog]")
    best = [name for name in found if _is_data_yaml(name)] or list(found)
    if not best:
        return None
    if len(best) > 1:
        shallow = min(name.count("/") for name in best)
        best = [name for name in best if name.count("/") == shallow]
    if len(best) > 1:
        raise ImportFault(
            f"{', '.join(sorted(best))} each describe a data set: name one, "
            f"DATASET={tree.root / sorted(best)[0]}"
        )
    return _yolo_by_yaml(tree, account, best[0], found[best[0]])


def _is_data_yaml(name: str) -> bool:
    return PurePosixPath(name).name.lower() in ("data.yaml", "data.yml", "dataset.yaml")


def _read_yaml(tree: Tree, name: str, account: Account, *, must: bool) -> Any:
    if tree.files[name].stat().st_size > YAML_LIMIT:
        if must:
            raise ImportFault(f"{name} has more than {YAML_LIMIT >> 20} MB: is it what it says?")
        return None
    text, encoding = _decode(tree.read(name))
    if encoding and must:
        account.note(f"{name} is not UTF-8: read as {encoding}")
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if not must:
            return None
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        what = " ".join((getattr(error, "problem", None) or str(error)).split())[:80]
        raise ImportFault(f"{name}{line}: no YAML ({what}): mend it") from None


def _decode(content: bytes) -> tuple[str, str]:
    """Return a text file's text, and its encoding where it isn't UTF-8."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # PowerShell's >
        return content.decode("utf-16", errors="replace"), "UTF-16"
    try:
        return content.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), "Windows-1252"


def _names(content: dict[str, Any], name: str) -> list[str]:
    names = content.get("names")
    if names is None:
        names = [f"class_{number}" for number in range(_whole(content.get("nc"), name))]
    if isinstance(names, dict):
        try:
            numbered = {int(key): str(value) for key, value in names.items()}
        except (TypeError, ValueError):
            raise ImportFault(f"{name}: names has keys that are not numbers: mend it") from None
        if sorted(numbered) != list(range(len(numbered))):
            raise ImportFault(
                f"{name}: names has the numbers {sorted(numbered)}, not 0 to {len(numbered) - 1}: "
                "number them without a gap"
            )
        names = [numbered[number] for number in range(len(numbered))]
    if not isinstance(names, list):
        raise ImportFault(f"{name}: names is not a list of classes: write names: [cat, dog]")
    if content.get("nc") is not None and _whole(content["nc"], name) != len(names):
        raise ImportFault(f"{name}: nc is {content['nc']}, names has {len(names)}: mend one")
    return [str(item) for item in names]


def _whole(value: Any, name: str) -> int:
    try:
        number = float(value)
        if number != int(number) or number < 0:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ImportFault(f"{name}: nc is {value!r}, no whole number: mend it") from None
    return int(number)


def _yolo_by_yaml(tree: Tree, account: Account, name: str, content: dict[str, Any]) -> Plan:
    names = _names(content, name)
    home = _parent(name)
    if content.get("download"):
        account.note(f"{name}: download: is never run")
    base = home
    given = content.get("path")
    if given is not None and not isinstance(given, str):
        raise ImportFault(f"{name}: path is not text: mend or delete it")
    followed = True
    if given:
        inside = _join(home, given)
        if inside is not None and tree.has_folder(inside):
            base = inside
        else:
            followed = False
            account.note(
                f"{name}: path: {given} is not in this folder and not followed; the splits were "
                "found in the folder itself"
            )
    keypoints = 0
    shape = content.get("kpt_shape")
    if shape is not None:
        if not (
            isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, int) for n in shape)
        ):
            raise ImportFault(f"{name}: kpt_shape is not [points, 2 or 3]: mend or delete it")
        keypoints = shape[0] * shape[1]
    used = {name}
    members: dict[str, list[str]] = {}
    for key in (*SPLITS, "validation", "valid"):
        values = content.get(key)
        if values is None or values == "":
            continue
        values = values if isinstance(values, list) else [values]
        if not all(isinstance(value, str) for value in values):
            raise ImportFault(f"{name}: {key} is not a path: mend it")
        split = SPLIT_WORDS[key]
        if split in members:
            raise ImportFault(f"{name}: names the split {split} twice: delete one")
        members[split] = []
        for value in values:
            members[split] += _members(tree, account, name, key, base, value, used, followed)
        if not members[split]:
            raise ImportFault(f"{name}: {key}: {', '.join(values)} holds no image: mend it")
    samples = _split(account, members) if "train" in members else []
    if not samples:
        if members:
            raise ImportFault(f"{name} has no train: name the folder of the training images")
        account.note(f"{name} names no split: taken from the folders")
        below = [image for image in tree.inside(base) if is_image(image)]
        samples = _by_folder(account, below)
    return _with_labels(
        Plan(f"YOLO with {PurePosixPath(name).name}", names, samples, used, keypoints),
        tree,
        account,
    )


def _members(
    tree: Tree, account: Account, name: str, key: str, base: str, value: str, used: set[str],
    followed: bool,
) -> list[str]:  # fmt: skip
    """Return the images that a split's value stands for: a folder, an image or a list of images."""
    place = _find(tree, base, value)
    if place is None:
        raise ImportFault(
            f"{name}: {key}: {value} is not in this folder"
            + ("" if followed else ", nor is path:")
            + f": write the path of its images from {tree.root / base}"
        )
    where, repaired = place
    if repaired and not value.startswith("../"):  # Roboflow's own way, which Ultralytics knows
        account.note(f"{name}: {key}: {value} is not in this folder: read {where} in its place")
    if where not in tree.files:
        return sorted(image for image in tree.inside(where) if is_image(image))
    if is_image(where):
        return [where]
    used.add(where)
    return _listed(tree, account, where)


def _listed(tree: Tree, account: Account, name: str) -> list[str]:
    """Return the images that a list of files names; lines that name none are refused."""
    try:
        text = tree.read(name).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ImportFault(f"{name}: not UTF-8 text: save it as UTF-8") from None
    images: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        value = line.strip()
        if not value:
            continue
        place = _find(tree, _parent(name), value)
        if place is None or place[0] not in tree.files:
            same = tree.named(PurePosixPath(value.replace("\\", "/")).name)
            place = (same[0], True) if len(same) == 1 else None
        if place is None or not is_image(place[0]):
            account.refuse(
                [Refused(name, f"line {number}", f"{value[:80]} is not an image in this folder",
                         "mend the path or delete the line")]
            )  # fmt: skip
            continue
        images.append(place[0])
    return list(dict.fromkeys(images))


def _find(tree: Tree, base: str, value: str) -> tuple[str, bool] | None:
    """Return a path's place in the folder, and whether it had to be repaired.

    A path that leaves the folder, or was absolute on another machine, is never followed: what
    counts is the longest end of it that exists here, from the base or from the folder itself.
    """
    direct = _join(base, value)
    if direct is not None and (direct in tree.files or tree.has_folder(direct)):
        return direct, False
    parts = [
        p for p in re.split(r"[\\/]+", value) if p not in ("", ".", "..") and not p.endswith(":")
    ]
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        hits = {
            place
            for place in (f"{base}/{tail}" if base else tail, tail)
            if place in tree.files or tree.has_folder(place)
        }
        if len(hits) == 1:
            return hits.pop(), True
        if hits:
            return None
    return None


def _join(base: str, value: str) -> str | None:
    """Return a relative path's place, None where it leaves the folder or is absolute."""
    value = value.replace("\\", "/")
    if value.startswith("/") or re.match(r"[A-Za-z]:", value):
        return None
    parts = [part for part in base.split("/") if part]
    for part in value.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                return None
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _split(account: Account, members: dict[str, list[str]]) -> list[Sample]:
    """Return the samples of given splits; a picture named in two stays out of training."""
    sets = {split: set(images) for split, images in members.items()}
    for split in ("val", "test"):
        if split in sets and sets[split] == sets["train"]:
            account.note(f"{split} names the images of train: drawn from them instead")
            del sets[split]
            members = {key: images for key, images in members.items() if key != split}
    if "val" in sets and "test" in sets and sets["val"] == sets["test"]:
        account.note("test names the images of val: drawn from train instead")
        members = {key: images for key, images in members.items() if key != "test"}
        del sets["test"]
    samples: list[Sample] = []
    taken: dict[str, str] = {}
    for split in ("test", "val", "train"):
        shared = [image for image in dict.fromkeys(members.get(split, ())) if image in taken]
        if shared:
            account.note(
                f"{len(shared)} images stand in {split} and in {taken[shared[0]]}: left to the "
                "latter"
            )
        for image in dict.fromkeys(members.get(split, ())):
            if image not in taken:
                taken[image] = split
                samples.append(Sample(image, split))
    return samples


def _split_word(name: str) -> str | None:
    """Return the split that a path tells by a folder's name, ``train2017`` and the like too."""
    for part in PurePosixPath(name).parts[:-1]:
        word = part.lower().rstrip("0123456789")
        if word in SPLIT_WORDS:
            return SPLIT_WORDS[word]
    return None


def _by_folder(account: Account, images: Iterable[str]) -> list[Sample]:
    """Return the samples of folders named after splits; without such folders, none has a split."""
    told = {image: _split_word(image) for image in images}
    if any(told.values()):
        for image, split in told.items():
            if split is None:
                account.ignore(image, "an image in no split's folder")
        told = {image: split for image, split in told.items() if split}
        if "train" not in told.values():
            others = " and ".join(sorted({split for split in told.values() if split}))
            account.note(f"there is no train folder, only {others}: all splits are drawn")
            return [Sample(image) for image in sorted(told)]
    return [Sample(image, split) for image, split in sorted(told.items())]


# --- YOLO's labels ------------------------------------------------------------------------------


def _from_folders(tree: Tree, account: Account) -> Plan | None:
    """Read YOLO labels whose classes stand in a text file: CVAT's, Label Studio's, darknet's."""
    named = [n for n in tree.files if PurePosixPath(n).name.lower() in CLASS_FILES]
    named += [n for n in tree.files if n.lower().endswith(".names") and n not in named]
    if not named:
        if any(_looks_like_label(tree, name) for name in _texts(tree)):
            raise ImportFault(
                f"{tree.root} has YOLO labels, but nothing names their classes: add a data.yaml "
                "with names:, or a classes.txt with a name on each line"
            )
        return None
    lists = [tuple(_class_lines(tree, name)) for name in named]
    if len(set(lists)) > 1:
        raise ImportFault(f"{' and '.join(sorted(named))} name different classes: keep one of them")
    used = set(named)
    members: dict[str, list[str]] = {}
    for name in [n for n in tree.files if n.lower().endswith(".data")]:
        used.add(name)
        for key, value in _pairs(tree, name):
            place = _find(tree, _parent(name), value) if key in SPLIT_WORDS else None
            if place and place[0] in tree.files:
                used.add(place[0])
                members[SPLIT_WORDS[key]] = _listed(tree, account, place[0])
    if not members:
        for name in _texts(tree):
            word = PurePosixPath(name).stem.lower()
            if word in SPLIT_WORDS and name not in used and not _looks_like_label(tree, name):
                used.add(name)
                members[SPLIT_WORDS[word]] = _listed(tree, account, name)
    if not members.get("train"):
        if members:
            account.note(
                f"there is no list of train, so that of {' and '.join(members)} has no part"
            )
        samples = _by_folder(account, tree.images())
    else:
        samples = _split(account, {split: images for split, images in members.items() if images})
    kind = PurePosixPath(named[0]).name
    return _with_labels(Plan(f"YOLO with {kind}", list(lists[0]), samples, used), tree, account)


def _class_lines(tree: Tree, name: str) -> list[str]:
    text, _ = _decode(tree.read(name, YAML_LIMIT))
    return [line.strip() for line in text.rstrip().splitlines()]


def _pairs(tree: Tree, name: str) -> list[tuple[str, str]]:
    text, _ = _decode(tree.read(name, YAML_LIMIT))
    pairs = [line.partition("=") for line in text.splitlines() if "=" in line]
    return [(key.strip().lower(), value.strip()) for key, _, value in pairs]


def _texts(tree: Tree) -> list[str]:
    return [name for name in tree.files if name.lower().endswith(".txt")]


def _looks_like_label(tree: Tree, name: str) -> bool:
    """Whether a text file's first line is five numbers or more."""
    with tree.files[name].open("rb") as file:
        words = file.read(4096).decode("utf-8-sig", errors="replace").strip().splitlines()[:1]
    found = read_labels("".join(words).encode(), 1 << 30)
    return bool(found.boxes) or (
        found.found > 0 and len(words[0].split()) >= 5 and _numeric(words[0])
    )


def _numeric(line: str) -> bool:
    return all(re.fullmatch(r"[-+.\deE]+|nan|inf", word, re.I) for word in line.split())


def label_of(image: str) -> str:
    """Return where Ultralytics looks for an image's labels (``img2label_paths``)."""
    head, images, tail = f"/{image}".rpartition("/images/")
    path = f"{head}/labels/{tail}" if images else f"/{image}"
    return f"{path.rpartition('.')[0]}.txt"[1:]


def _with_labels(plan: Plan, tree: Tree, account: Account) -> Plan:
    """Give each sample its label file, and find those that were misplaced or misspelt."""
    by_form = {composed(name): name for name in _texts(tree)}
    taken: dict[str, list[Sample]] = {}
    bare: dict[str, list[Sample]] = {}
    for sample in plan.samples:
        label = label_of(sample.image)
        if label not in tree.files or label in plan.used:
            other = by_form.get(composed(label))
            if other is not None and other not in plan.used and other != label:
                account.changes["labels found under a look-alike name (another Unicode form)"] += 1
                account.note(
                    f"{sample.image} and {other} look alike, but their names are written in "
                    "different Unicode forms: taken for one name"
                )
                label = other
            else:
                bare.setdefault(composed(PurePosixPath(sample.image).stem), []).append(sample)
                continue
        sample.label = label
        taken.setdefault(label, []).append(sample)
    for label, those in taken.items():
        if len(those) > 1:
            account.note(
                f"{' and '.join(sample.image for sample in those)} share {label}: "
                "each gets its boxes"
            )
    _misplaced(plan, tree, account, set(taken), bare)
    plan.used |= set(taken)
    return plan


def _misplaced(
    plan: Plan, tree: Tree, account: Account, taken: set[str], bare: dict[str, list[Sample]]
) -> None:
    """Refuse labels without image; an image that one of them may belong to is not a background."""
    apart: dict[tuple[str, str], int] = {}
    dropped: set[str] = set()
    pictured = {label_of(image) for image in tree.images()}
    for name in _texts(tree):
        if name in taken or name in plan.used:
            continue
        if name in pictured and name not in taken:
            continue  # of an image in no split, with which it is ignored
        stem = composed(PurePosixPath(name).stem)
        candidates = bare.get(stem, [])
        if not _looks_like_label(tree, name):
            continue
        boxes = read_labels(tree.read(name), 1 << 30).found
        account.boxes_found += boxes
        plan.used.add(name)
        if candidates:
            image = candidates[0].image
            wanted = label_of(image)
            apart[_parent(name), _parent(wanted)] = (
                apart.get((_parent(name), _parent(wanted)), 0) + 1
            )
            dropped |= {sample.image for sample in candidates}
            account.refuse(
                [Refused(name, "", f"no image there; {image} has no labels and would be taken for "
                         "a background", f"move it to {wanted}", boxes)]
            )  # fmt: skip
            account.refuse(
                Refused(
                    sample.image,
                    "",
                    f"its labels stand in {name}",
                    f"move them to {label_of(sample.image)}",
                )
                for sample in candidates
            )
        else:
            account.refuse(
                [Refused(name, "", "a label without an image of that name",
                         "bring the image or delete the label", boxes)]
            )  # fmt: skip
    if dropped:
        plan.samples = [sample for sample in plan.samples if sample.image not in dropped]
        for (there, wanted), count in apart.items():
            if count > 1 and not any(_parent(label) == wanted for label in taken):
                raise ImportFault(
                    f"{count} labels stand in {there or 'the folder itself'}, but those of their "
                    f"images are looked for in {wanted or 'the folder itself'}, which has none: is "
                    f"the folder misspelt? rename it to {wanted or 'images/ and labels/'}"
                )


# --- COCO, VOC, CVAT ----------------------------------------------------------------------------


def _from_coco(tree: Tree, account: Account, chosen: str | None) -> Plan | None:
    found: dict[str, dict[str, Any]] = {}
    for name in [chosen] if chosen else [n for n in tree.files if n.lower().endswith(".json")]:
        if not chosen and b'"annotations"' not in tree.read(name):
            continue
        content = markup.parse_json(tree.read(name), name)
        if markup.is_coco(content):
            found[name] = content
        elif chosen:
            raise ImportFault(
                f"{name} is not a COCO detection file: it needs images, annotations and categories"
            )
    if not found:
        return None
    files = {name: markup.read_coco(content, name) for name, content in found.items()}
    found.clear()
    splits = {name: _split_of_file(name) for name in files}
    if len(files) > 1:
        untold = [name for name, split in splits.items() if split is None]
        if untold:
            raise ImportFault(
                f"{', '.join(sorted(files))}: which split is {untold[0]}? Name the files after "
                f"their splits (train.json, val.json), or give one: DATASET={tree.root / untold[0]}"
            )
    else:
        # One file alone is not a split, whatever folder it lies in.
        splits = dict.fromkeys(files)
    names = sorted({tuple(file.names) for file in files.values()}, key=len, reverse=True)
    if len(names) > 1 and any(set(other) - set(names[0]) for other in names):
        raise ImportFault(
            f"{', '.join(sorted(files))} have different categories: export them together"
        )
    order = {title: number for number, title in enumerate(names[0])}
    samples = []
    for name, file in sorted(files.items()):
        _renumber(file, [order[title] for title in file.names])
        for note in file.notes:
            account.note(note)
        samples += _samples(tree, account, name, file, splits[name])
    if len(files) == 1:
        samples = _told_by_folder(samples)
    kept = [s.split for s in samples]
    if any(kept) and "train" not in kept:
        for sample in samples:
            sample.split = None
    return Plan("COCO JSON", list(names[0]), _once(account, samples), set(files))


def _told_by_folder(samples: list[Sample]) -> list[Sample]:
    """Give samples the splits of their folders, where every image is in one and train is there."""
    told = [_split_word(sample.image) for sample in samples]
    if all(told) and "train" in told and len(set(told)) > 1:
        for sample, split in zip(samples, told, strict=True):
            sample.split = split
    return samples


def _split_of_file(name: str) -> str | None:
    """Return the split that an annotation file's name or folder tells."""
    for word in re.split(r"[^a-z]+", PurePosixPath(name).stem.lower()):
        if word in SPLIT_WORDS:
            return SPLIT_WORDS[word]
    return _split_word(name)


def _renumber(file: Markup, order: list[int]) -> None:
    for entry in file.entries:
        entry.boxes = [(order[kind], *rest) for kind, *rest in entry.boxes]  # type: ignore[misc]


def _samples(
    tree: Tree, account: Account, name: str, file: Markup, split: str | None
) -> list[Sample]:
    """Find each entry's image; count what the file holds besides."""
    samples = []
    for kind, count in file.ignored.items():
        account.boxes_found += count
        account.ignored.append(Ignored(name, kind, count))
    if file.polygons:
        account.changes["polygons, masks or turned boxes made upright boxes"] += file.polygons
    account.boxes_found += len(file.orphans)
    account.refuse(Refused(name, where, what, fix, 1) for where, what, fix in file.orphans)
    for entry in file.entries:
        held = len(entry.boxes) + entry.lost
        account.boxes_found += held
        image = _image_of(tree, name, entry)
        if image is None:
            account.refuse(
                [Refused(name, entry.where, f"{entry.file[:80]} is not in this folder",
                         "bring the image or delete the entry", held)]
            )  # fmt: skip
            continue
        told = SPLIT_WORDS.get((entry.split or "").lower())
        samples.append(
            Sample(
                image,
                split or told,
                annotation=name,
                boxes=entry.boxes,
                faults=entry.faults,
                lost=entry.lost,
                size=entry.size,
            )
        )
    return samples


def _image_of(tree: Tree, name: str, entry: Entry) -> str | None:
    """Return the image that an entry means: from the file's folder, its neighbours, or by name."""
    home = _parent(name)
    for base in (
        home,
        f"{home}/images".strip("/"),
        _parent(home),
        f"{_parent(home)}/images".strip("/"),
    ):
        direct = _join(base, entry.file)
        if direct is not None and direct in tree.files and is_image(direct):
            return direct
    place = _find(tree, home, entry.file)
    if place is not None and place[0] in tree.files and is_image(place[0]):
        return place[0]
    same = [n for n in tree.named(PurePosixPath(entry.file.replace("\\", "/")).name) if is_image(n)]
    beside = [n for n in same if _split_word(n) == _split_of_file(name)]
    same = beside if len(same) > 1 else same
    return same[0] if len(same) == 1 else None


def _once(account: Account, samples: list[Sample]) -> list[Sample]:
    """Join the entries of one image; refuse an image that two splits claim."""
    kept: dict[str, Sample] = {}
    for sample in samples:
        first = kept.setdefault(sample.image, sample)
        if first is sample:
            continue
        if first.split != sample.split or first.size != sample.size:
            account.refuse(
                [Refused(sample.annotation, "", f"{sample.image} stands in {first.annotation} too",
                         "leave it in one of them", len(sample.boxes) + sample.lost)]
            )  # fmt: skip
            continue
        first.boxes = first.boxes + sample.boxes
        first.faults = first.faults + sample.faults
        first.lost += sample.lost
    return list(kept.values())


def _from_xml(tree: Tree, account: Account, chosen: str | None) -> Plan | None:
    voc: dict[str, Entry] = {}
    cvat: dict[str, Markup] = {}
    numbers: dict[str, int] = {}
    polygons = 0
    for name in sorted(
        [chosen] if chosen else [n for n in tree.files if n.lower().endswith(".xml")]
    ):
        content = tree.read(name)
        if not chosen and b"<annotation" not in content:
            continue
        document = markup.parse_xml(content, name)
        if document.root.tag == "annotation":
            entry, rest = markup.read_voc(document, PurePosixPath(name).stem, numbers)
            voc[name] = entry
            polygons += rest.polygons
        elif document.root.tag == "annotations":
            cvat[name] = markup.read_cvat(document, name)
        elif chosen:
            raise ImportFault(f"{name} is neither Pascal VOC nor CVAT XML: export it again")
    if voc and cvat:
        raise ImportFault(
            f"{min(voc)} is Pascal VOC and {min(cvat)} is CVAT XML: keep one of the two"
        )
    if cvat:
        return _cvat_plan(tree, account, cvat)
    if not voc:
        return None
    names = sorted(numbers)
    order = [names.index(title) for title in numbers]
    splits = _voc_splits(tree)
    samples = []
    if polygons:
        account.changes["polygons, masks or turned boxes made upright boxes"] += polygons
    for name, entry in voc.items():
        file = Markup(names, [entry])
        _renumber(file, order)
        split = splits.get(PurePosixPath(name).stem) if splits else _split_word(name)
        samples += _samples_of_voc(tree, account, name, file, split)
    told = [sample.split for sample in samples]
    if any(told) and not all(told):
        apart = [sample for sample in samples if sample.split is None]
        for sample in apart:
            account.ignore(
                sample.image, "an image in no split's list", len(sample.boxes) + sample.lost
            )
        samples = [sample for sample in samples if sample.split is not None]
    if any(told) and "train" not in told:
        for sample in samples:
            sample.split = None
    used = set(voc) | {n for n in tree.files if "/ImageSets/" in f"/{n}" and n.endswith(".txt")}
    return Plan("Pascal VOC", names, _once(account, samples), used)


def _samples_of_voc(
    tree: Tree, account: Account, name: str, file: Markup, split: str | None
) -> list[Sample]:
    """Find the image of a VOC file: what it names, else what bears the XML file's own name."""
    (entry,) = file.entries
    stem = PurePosixPath(name).stem
    home = _parent(name)
    twins = [
        f"{base}/{stem}".strip("/")
        for base in (home, f"{_parent(home)}/JPEGImages", f"{_parent(home)}/images")
    ]
    own = [image for image in tree.images() if image.rpartition(".")[0] in twins] if twins else []
    named = _join(home, entry.file)
    if (named is None or named not in tree.files) and len(own) == 1:
        entry.file = PurePosixPath(own[0]).name
        account.boxes_found += len(entry.boxes) + entry.lost
        return [Sample(own[0], split, annotation=name, boxes=entry.boxes, faults=entry.faults,
                       lost=entry.lost, size=entry.size)]  # fmt: skip
    return _samples(tree, account, name, file, split)


def _voc_splits(tree: Tree) -> dict[str, str]:
    """Return each stem's split after ``ImageSets/Main``."""
    splits: dict[str, str] = {}
    for name in tree.files:
        stem = PurePosixPath(name).stem.lower()
        if "/ImageSets/" in f"/{name}" and name.endswith(".txt") and stem in SPLIT_WORDS:
            for line in tree.read(name).decode("utf-8-sig", errors="replace").splitlines():
                if line.strip():
                    splits[line.split()[0]] = SPLIT_WORDS[stem]
    return splits


def _cvat_plan(tree: Tree, account: Account, files: dict[str, Markup]) -> Plan:
    if len({tuple(file.names) for file in files.values()}) > 1:
        raise ImportFault(f"{', '.join(sorted(files))} have different labels: export them together")
    samples = []
    for name, file in sorted(files.items()):
        samples += _samples(tree, account, name, file, None)
    told = [sample.split for sample in samples]
    if "train" not in told or not all(told):
        for sample in samples:
            sample.split = None
        samples = _told_by_folder(samples)
    names = next(iter(files.values())).names
    return Plan("CVAT XML", names, _once(account, samples), set(files))


# --- what is left -------------------------------------------------------------------------------


def _account_for_rest(plan: Plan, tree: Tree, account: Account) -> None:
    """Say of every file that the plan doesn't use why it doesn't."""
    wanted = {sample.image for sample in plan.samples}
    told = {item.file for item in account.ignored} | {item.file for item in account.refused}
    yolo = plan.layout.startswith("YOLO")
    for name in tree.files:
        if name in wanted or name in plan.used or name in told:
            continue
        if is_image(name):
            account.ignore(name, "an image in no split" if yolo else "an image without annotations")
        elif yolo and name.lower().endswith(".txt") and _looks_like_label(tree, name):
            boxes = read_labels(tree.read(name), 1 << 30).found
            account.boxes_found += boxes
            account.ignore(name, "a label of an image in no split", boxes)
        else:
            account.ignore(name, "no part of a detection data set")
