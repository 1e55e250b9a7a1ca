"""The account of an import: what became of every file and box, and the table that says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from src.datasets import SPLITS, DatasetError

SHOWN = 12  # lines of a list on the terminal; the version's page has them all


class ImportFault(DatasetError):
    """A data set can't be imported at all; the message says why and what to do."""


@dataclass(frozen=True, order=True)
class Refused:
    """A file that is left out because something in it is wrong."""

    file: str  # relative to the data set's folder
    where: str  # "line 3", "annotation 7", or "" for the file as a whole
    what: str
    remedy: str
    boxes: int = 0  # that are left out with it
    image: str = ""  # that is left out with it, because it would lack a box

    def __str__(self) -> str:
        """Return it as one line."""
        place = f"{self.file} {self.where}".strip()
        lost = [self.image] if self.image not in ("", self.file) else []
        lost += [_many(self.boxes, "box", "boxes")] if self.boxes else []
        out = f" ({' with '.join(lost)} left out)" if lost else ""
        return f"{place}: {self.what}: {self.remedy}{out}"


@dataclass(frozen=True, order=True)
class Ignored:
    """A file, or a kind of annotation, that has no part in a detection data set."""

    file: str
    why: str
    boxes: int = 0


@dataclass
class Account:
    """Everything that an import has to tell.

    ``boxes_found`` is what the annotations hold. Each of them is imported, a duplicate, ignored or
    refused: ``check`` proves it.
    """

    layout: str = ""
    names: list[str] = field(default_factory=list)
    images: Counter[str] = field(default_factory=Counter)  # by split
    boxes: dict[str, list[int]] = field(default_factory=dict)  # split: boxes by class
    notes: list[str] = field(default_factory=list)  # decisions that were taken
    changes: Counter[str] = field(default_factory=Counter)  # "polygons made boxes": how many
    ignored: list[Ignored] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    boxes_found: int = 0
    boxes_duplicate: int = 0
    used: set[str] = field(default_factory=set)  # files that have a part in the version

    def note(self, text: str) -> None:
        """Add a decision, once."""
        if text not in self.notes:
            self.notes.append(text)

    def ignore(self, file: str, why: str, boxes: int = 0) -> None:
        """Leave something out that is not part of a data set."""
        self.ignored.append(Ignored(file, why, boxes))

    def refuse(self, refused: Iterable[Refused]) -> None:
        """Leave out what is wrong."""
        self.refused += refused

    @property
    def boxes_imported(self) -> int:
        """Boxes in the version."""
        return sum(map(sum, self.boxes.values()))

    def check(self, files: Iterable[str]) -> None:
        """Prove that no file and no box went missing on the way.

        Raises:
            RuntimeError: When one has, which is a fault of this program.
        """
        told = self.used | {item.file for item in self.ignored}
        told |= {name for item in self.refused for name in (item.file, item.image)}
        lost = sorted(set(files) - told)
        if lost:
            raise RuntimeError(f"nothing was said of {', '.join(lost[:5])}: please report this")
        ends = {
            "imported": self.boxes_imported,
            "duplicate": self.boxes_duplicate,
            "ignored": sum(item.boxes for item in self.ignored),
            "refused": sum(item.boxes for item in self.refused),
        }
        if sum(ends.values()) != self.boxes_found:
            raise RuntimeError(f"{self.boxes_found} boxes found, but {ends}: please report this")

    def as_json(self) -> dict[str, Any]:
        """Return what the version keeps of it, in an order that doesn't depend on the run's."""
        return {
            "layout": self.layout,
            "notes": self.notes,
            "changes": dict(sorted(self.changes.items())),
            "boxes_found": self.boxes_found,
            "boxes_duplicate": self.boxes_duplicate,
            "ignored": [[item.file, item.why, item.boxes] for item in sorted(self.ignored)],
            "refused": [
                [item.file, item.where, item.what, item.remedy, item.boxes, item.image]
                for item in sorted(self.refused)
            ],
        }


def table(account: Account, name: str) -> str:
    """Return the account as the text that ends an import."""
    lines = [
        f"{name}: {sum(account.images.values())} images, {account.boxes_imported} boxes, "
        f"{_many(len(account.names), 'class', 'classes')} ({account.layout})"
    ]
    width = max([8, *(len(class_name) for class_name in account.names)])
    lines.append(f"  {'imported':<{width}}" + "".join(f"{split:>9}" for split in SPLITS))
    lines.append(f"  {'images':<{width}}" + "".join(f"{account.images[s]:>9}" for s in SPLITS))
    rows = [
        f"  {class_name:<{width}}" + "".join(f"{account.boxes[s][number]:>9}" for s in SPLITS)
        for number, class_name in enumerate(account.names)
    ]
    lines += _cut(rows, "classes")
    lines += [f"  said: {note}" for note in account.notes]
    lines += [f"  changed: {count} {what}" for what, count in sorted(account.changes.items())]
    lines += _cut(_ignored(account.ignored), "kinds")
    lines += _cut([f"  refused: {item}" for item in sorted(account.refused)], "refusals")
    if account.refused:
        files = len({name for it in account.refused for name in (it.file, it.image) if name})
        boxes = sum(item.boxes for item in account.refused)
        lines.append(
            f"  {_many(files, 'file', 'files')} and {_many(boxes, 'box', 'boxes')} refused and left"
            " out: mend them and run the same command again to have them in"
        )
    return "\n".join(lines)


def _ignored(items: Sequence[Ignored]) -> list[str]:
    by_reason: dict[str, list[Ignored]] = {}
    for item in sorted(items):
        by_reason.setdefault(item.why, []).append(item)
    lines = []
    for why, those in sorted(by_reason.items()):
        names = list(dict.fromkeys(item.file for item in those))
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        boxes = sum(item.boxes for item in those)
        lost = f", {_many(boxes, 'box', 'boxes')}" if boxes else ""
        lines.append(f"  ignored: {shown} ({why}{lost})")
    return lines


def _cut(lines: list[str], what: str) -> list[str]:
    if len(lines) <= SHOWN + 1:
        return lines
    return [*lines[:SHOWN], f"  … and {len(lines) - SHOWN} more {what}, see the version's page"]


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"
