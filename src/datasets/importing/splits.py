"""Splits drawn from pictures: the same for everyone, near duplicates together, by class."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
LOOK_BITS = 6  # of 64 difference bits that near duplicates may differ in
TINY_LEVELS = 6.0  # grey levels that they differ by on average, on 16 by 16
# "clip_mp4-12_jpg.rf.0a1b", "clip_frame_0012", "clip.mp4_0012": what names of frames look like
_ROBOFLOW = re.compile(r"\.rf\.[0-9a-zA-Z]+$")
_FRAME = re.compile(
    r"^(?P<video>.*?(?:frame|(?:mp4|avi|mov|mkv|webm|m4v|mpe?g|wmv))[-_. ]*)(?P<number>\d+)"
    r"(?:_(?:jpe?g|png|bmp|webp))?$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Drawn:
    """What a split is drawn from: one picture."""

    name: str  # its path without suffix, as it came
    digest: str  # SHA-256 of its content
    look: int  # 64 difference bits
    classes: frozenset[int]  # that it shows


def source_name(name: str) -> str:
    """Return the name of the picture that an augmented copy was made from."""
    return _ROBOFLOW.sub("", name)


def frame_of(name: str) -> tuple[str, int] | None:
    """Return the video and the number that a picture's name tells, None for no frame."""
    found = _FRAME.match(source_name(name))
    return (found["video"], int(found["number"])) if found else None


def groups(
    pictures: Sequence[Drawn], tiny: NDArray[np.uint8], *, by_name: bool = True
) -> list[int]:
    """Return each picture's group: near duplicates, copies of one source, frames of one video.

    Args:
        pictures: N pictures.
        tiny: Their grey levels, (N, 256), 0 to 255.
        by_name: Whether names tell sources and videos.
    """
    parent = list(range(len(pictures)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    def join(one: int, other: int) -> None:
        one, other = sorted((root(one), root(other)))
        parent[other] = one

    for one, other in near_pairs(pictures, tiny):
        join(one, other)
    if by_name:
        first: dict[str, int] = {}
        for index, picture in enumerate(pictures):
            frame = frame_of(picture.name)
            join(first.setdefault(frame[0] if frame else source_name(picture.name), index), index)
    return [root(index) for index in range(len(pictures))]


def near_pairs(pictures: Sequence[Drawn], tiny: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Return pairs of near duplicates, enough of them to join every group of them."""
    looks = np.array([picture.look for picture in pictures], dtype=np.uint64)
    grey = tiny.astype(np.int16)
    pairs = []
    known = np.zeros(len(pictures), dtype=bool)  # found by an earlier one, which speaks for it
    for index in range(len(pictures)):
        differing = np.bitwise_count(looks[index + 1 :] ^ looks[index])
        candidates = np.flatnonzero(differing <= LOOK_BITS) + index + 1
        if known[index]:
            candidates = candidates[~known[candidates]]
        if not candidates.size:
            continue
        apart = np.abs(grey[candidates] - grey[index]).mean(axis=1)
        found = candidates[apart <= TINY_LEVELS]
        known[found] = True
        pairs += [(index, int(other)) for other in found]
    return pairs


def draw(
    pictures: Sequence[Drawn], group: Sequence[int], shares: Mapping[str, float], seed: int
) -> tuple[list[str], bool]:
    """Return each picture's split, and whether a group had to be cut.

    Iterative stratification (Sechidis et al. 2011) over groups: the class with the fewest pictures
    left is dealt first, each group to the split that lacks most of it. Ties are settled by a hash
    of the seed and the pictures' content, so that neither names nor their order matter. A group
    that is larger than the largest share is cut in the order of its frames.

    Args:
        pictures: N pictures.
        group: Each one's group.
        shares: The splits to draw and their shares, which need not sum to 1.
        seed: Another seed is another draw.
    """
    total = sum(shares.values())
    wanted = {split: share / total * len(pictures) for split, share in shares.items()}
    members: dict[int, list[int]] = {}
    for index, key in enumerate(group):
        members.setdefault(key, []).append(index)
    chunks, cut = _chunks(pictures, list(members.values()), wanted)
    counted = [
        Counter(kind for index in chunk for kind in pictures[index].classes) for chunk in chunks
    ]
    order = sorted(
        range(len(chunks)), key=lambda c: (-len(chunks[c]), _tie(pictures, chunks[c], seed))
    )
    left: Counter[int] = Counter()
    for counts in counted:
        left.update(counts)
    need = {
        split: {kind: share / total * count for kind, count in left.items()}
        for split, share in shares.items()
    }
    placed: dict[int, str] = {}
    sizes: Counter[str] = Counter()
    shown: dict[str, set[int]] = {split: set() for split in shares}

    def place(chunk: int, kind: int | None, coming: int) -> None:
        """Place a chunk for a class, of which it and ``coming - 1`` more are left to place."""

        def lack(split: str) -> tuple[float, float]:
            images = wanted[split] - sizes[split]
            return (images if kind is None else need[split][kind], images)

        # Where there are just enough chunks to give each split one, those without one come first.
        bare = [split for split in shares if kind is not None and kind not in shown[split]]
        empty = [split for split in shares if not sizes[split]]
        choice = list(shares)
        if bare and coming <= len(bare):
            choice = bare
        if empty and len(chunks) - len(placed) <= len(empty):
            choice = empty
        split = max(choice, key=lack)
        placed[chunk] = split
        sizes[split] += len(chunks[chunk])
        shown[split] |= set(counted[chunk])
        for name, count in counted[chunk].items():
            need[split][name] -= count
            left[name] -= count

    by_class: dict[int, list[int]] = {}
    for chunk in order:
        for kind in counted[chunk]:
            by_class.setdefault(kind, []).append(chunk)
    while by_class:
        kind = min(by_class, key=lambda k: (left[k], k))
        waiting = [chunk for chunk in by_class.pop(kind) if chunk not in placed]
        for number, chunk in enumerate(waiting):
            place(chunk, kind, len(waiting) - number)
    for chunk in order:
        if chunk not in placed:
            place(chunk, None, 0)
    splits = [""] * len(pictures)
    for chunk, split in placed.items():
        for index in chunks[chunk]:
            splits[index] = split
    return splits, cut


def _chunks(
    pictures: Sequence[Drawn], members: list[list[int]], wanted: Mapping[str, float]
) -> tuple[list[list[int]], bool]:
    """Return the groups, those cut that no split but all could hold."""
    limit = max(wanted.values())
    chunks: list[list[int]] = []
    cut = False
    for member in members:
        if len(member) <= limit or len(member) < len(wanted):
            chunks.append(member)
            continue
        cut = True
        ordered = sorted(
            member, key=lambda i: (frame_of(pictures[i].name) or ("", 0), pictures[i].digest)
        )
        whole = sum(wanted.values())
        start = 0
        reached = 0.0
        for split in wanted:
            reached += wanted[split] / whole
            end = max(start + 1, round(reached * len(ordered)))
            chunks.append(ordered[start:end])
            start = end
        if start < len(ordered):
            chunks[-1] += ordered[start:]
    return [chunk for chunk in chunks if chunk], cut


def _tie(pictures: Sequence[Drawn], chunk: Sequence[int], seed: int) -> str:
    digests = sorted(pictures[index].digest for index in chunk)
    return hashlib.sha256("\n".join([str(seed), *digests]).encode()).hexdigest()
