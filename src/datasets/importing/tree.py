"""The files of a folder: what belongs to a data set, what is litter, what leads elsewhere."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from src.datasets.importing.account import Account, ImportFault, Refused

# Ultralytics 8.4: data/utils.py, IMG_FORMATS.
IMAGES = frozenset("avif bmp dng heic heif jp2 jpeg jpg mpo png tif tiff webp".split())
# What programs and systems leave behind; never part of a version.
LITTER = (
    ".*", "._*", "Thumbs.db", "ehthumbs.db", "desktop.ini", "*.cache", "*.npy", "__MACOSX",
)  # fmt: skip
LITTER_REASON = "litter of a program or system"
LINK_REMEDY = "put the file itself in its place"


def is_litter(name: str) -> bool:
    """Tell by its name a file or folder that no version needs."""
    return any(fnmatch(name, pattern) for pattern in LITTER)


def is_image(name: str) -> bool:
    """Tell by its suffix a file that Ultralytics takes for an image."""
    return name.rpartition(".")[2].lower() in IMAGES and "." in name


@dataclass
class Tree:
    """A folder's files by their path in it, with ``/`` between."""

    root: Path
    files: dict[str, Path] = field(default_factory=dict)
    _by_name: dict[str, list[str]] = field(default_factory=dict)

    def images(self) -> Iterator[str]:
        """Yield the files that Ultralytics would take for images."""
        return (name for name in self.files if is_image(name))

    def inside(self, prefix: str) -> list[str]:
        """Return the files below a folder, ``""`` for all."""
        start = f"{prefix}/" if prefix else ""
        return [name for name in self.files if name.startswith(start)]

    def has_folder(self, prefix: str) -> bool:
        """Whether there is a folder with files in it."""
        return prefix == "" or any(name.startswith(f"{prefix}/") for name in self.files)

    def named(self, name: str) -> list[str]:
        """Return the files of that name in any folder, whatever their Unicode form."""
        if not self._by_name:
            for file in self.files:
                self._by_name.setdefault(composed(PurePosixPath(file).name), []).append(file)
        return self._by_name.get(composed(name), [])

    def read(self, name: str, limit: int = 1 << 30) -> bytes:
        """Return a file's content; raises ``ImportFault`` when it is larger than it may be."""
        path = self.files[name]
        if path.stat().st_size > limit:
            raise ImportFault(f"{name} has more than {limit >> 20} MB: is it what it says?")
        return path.read_bytes()


def composed(name: str) -> str:
    """Return a name in the Unicode form that all look-alikes share."""
    return unicodedata.normalize("NFC", name)


def survey(root: Path, account: Account) -> Tree:
    """List a folder; litter goes to the account, and links that leave the folder are refused."""
    root = root.resolve()
    tree = Tree(root)

    def visit(folder: Path, prefix: str, above: tuple[Path, ...]) -> None:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            name = f"{prefix}{entry.name}"
            path = Path(entry.path)
            if is_litter(entry.name):
                account.ignore(name, LITTER_REASON)
                continue
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                shown = name.encode(errors="surrogateescape").decode(errors="replace")
                account.refuse([Refused(shown, "", "a name that is not UTF-8", "rename it")])
                continue
            if entry.is_symlink():
                target = path.resolve()
                if not target.is_relative_to(root):
                    account.refuse([Refused(name, "", "a link out of the folder", LINK_REMEDY)])
                    continue
                if not target.exists() or target in above:
                    account.refuse(
                        [Refused(name, "", "a link to nothing or in a circle", LINK_REMEDY)]
                    )
                    continue
            try:
                mode = path.stat().st_mode
                if stat.S_ISDIR(mode):
                    visit(path, f"{name}/", (*above, path.resolve()))
                elif stat.S_ISREG(mode):
                    if not os.access(path, os.R_OK):
                        raise PermissionError(13, "you may not read it")
                    tree.files[name] = path
                else:
                    account.ignore(name, "no file: a socket, pipe or device")
            except PermissionError:
                account.refuse([Refused(name, "", "you may not read it", "chmod u+r it")])

    visit(root, "", (root,))
    return tree
