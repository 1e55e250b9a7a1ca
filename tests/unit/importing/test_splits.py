"""Drawn splits: the same for everyone, look-alikes and frames together, classes in each."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from src.datasets.importing.splits import SHARES, Drawn, draw, frame_of, groups, source_name


def made(
    count: int, classes: int = 3, names: list[str] | None = None
) -> tuple[list[Drawn], NDArray[np.uint8]]:
    rng = np.random.default_rng(1)
    pictures = [
        Drawn(
            names[n] if names else f"photo{n}x",
            hashlib.sha256(str(n).encode()).hexdigest(),
            int(rng.integers(0, 1 << 63)),
            frozenset({n % classes}),
        )
        for n in range(count)
    ]
    return pictures, rng.integers(0, 255, (count, 256), dtype=np.uint8)


def test_the_draw_depends_on_content_alone() -> None:
    pictures, tiny = made(60)
    before = dict(zip(pictures, draw(pictures, groups(pictures, tiny), SHARES, 42)[0], strict=True))
    order = list(range(60))
    random.Random(3).shuffle(order)
    shuffled = [pictures[i] for i in order]
    again = draw(shuffled, groups(shuffled, tiny[order]), SHARES, 42)[0]
    assert before == dict(zip(shuffled, again, strict=True))
    other = draw(pictures, groups(pictures, tiny), SHARES, 43)[0]
    assert list(before.values()) != other


def test_the_shares_hold_for_images_and_for_every_class() -> None:
    pictures, tiny = made(400, classes=8)
    splits, cut = draw(pictures, groups(pictures, tiny), SHARES, 42)
    assert not cut
    for split, share in SHARES.items():
        assert abs(splits.count(split) - share * 400) <= 12
        shown = Counter(
            kind for p, s in zip(pictures, splits, strict=True) if s == split for kind in p.classes
        )
        for kind in range(8):
            assert abs(shown[kind] - share * 50) <= 2


def test_a_rare_class_reaches_every_split() -> None:
    pictures, tiny = made(100, classes=1)
    rare = {5, 50, 95}
    pictures = [
        Drawn(p.name, p.digest, p.look, frozenset({0, 1}) if n in rare else p.classes)
        for n, p in enumerate(pictures)
    ]
    splits, _ = draw(pictures, groups(pictures, tiny), SHARES, 42)
    assert {splits[n] for n in rare} == set(SHARES)


def test_near_duplicates_stay_together() -> None:
    pictures, tiny = made(60)
    for one, other in ((3, 40), (40, 51), (7, 8)):
        tiny[other] = np.clip(tiny[one].astype(int) + 3, 0, 255)
        pictures[other] = Drawn(
            pictures[other].name, pictures[other].digest, pictures[one].look ^ 0b101, frozenset()
        )
    group = groups(pictures, tiny)
    assert group[3] == group[40] == group[51]
    assert group[7] == group[8] != group[3]
    splits, _ = draw(pictures, group, SHARES, 42)
    assert splits[3] == splits[40] == splits[51]
    assert splits[7] == splits[8]


def test_pictures_without_texture_are_no_duplicates() -> None:
    """Their differences are all 0, so only their grey levels tell."""
    pictures, tiny = made(20)
    pictures = [Drawn(p.name, p.digest, 0, p.classes) for p in pictures]
    assert len(set(groups(pictures, tiny))) == 20


def test_copies_of_one_source_and_frames_of_one_video_stay_together() -> None:
    names = [f"train/images/p{n // 3}_jpg.rf.{n:032x}" for n in range(30)]
    names += [f"clip{n // 10}_mp4-{n % 10}_jpg.rf.{n:032x}" for n in range(30)]
    names += [f"walk_frame_{n:05d}" for n in range(10)]
    pictures, tiny = made(70, names=names)
    group = groups(pictures, tiny)
    assert len(set(group)) == 10 + 3 + 1
    splits, _ = draw(pictures, group, SHARES, 42)
    for key in set(group):
        assert len({s for s, g in zip(splits, group, strict=True) if g == key}) == 1


def test_one_video_alone_is_cut_in_the_order_of_its_frames() -> None:
    pictures, tiny = made(100, names=[f"walk_frame_{n:05d}" for n in range(100)])
    splits, cut = draw(pictures, groups(pictures, tiny), SHARES, 42)
    assert cut
    changes = sum(a != b for a, b in itertools.pairwise(splits))
    assert changes == 2
    assert set(splits) == set(SHARES)


def test_camera_names_are_no_frames() -> None:
    assert frame_of("DCIM/IMG_0001") is None
    assert frame_of("000000000009") is None
    assert frame_of("video1_mp4-12_jpg.rf.0a1b") == ("video1_mp4-", 12)
    assert frame_of("cam/frame_000012") == ("cam/frame_", 12)
    assert source_name("a_jpg.rf.0a1b") == "a_jpg"


def test_few_pictures_fill_every_split() -> None:
    for count in (3, 4, 5):
        pictures, tiny = made(count)
        splits, _ = draw(pictures, groups(pictures, tiny), SHARES, 42)
        assert set(splits) == set(SHARES)
