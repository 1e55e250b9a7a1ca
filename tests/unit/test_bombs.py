"""Archives and pictures that are small outside and without end inside."""

import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from src.datasets import SPLITS, DatasetError
from src.datasets.coco128 import build_coco128
from src.datasets.validation import validate


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("coco128/labels/train2017/0.txt", "0 0.5 0.5 1 1\n")
        with packed.open("coco128/images/train2017/0.jpg", "w", force_zip64=True) as member:
            for _ in range(17):
                member.write(bytes(64 << 20))
    assert archive.stat().st_size < 2 << 20
    with pytest.raises(DatasetError, match="unpacks to 1088 MB: refused"):
        build_coco128(tmp_path / "built", archive)
    assert not (tmp_path / "built").exists()


def png(width: int, height: int) -> bytes:
    """A picture whose header tells a size and whose content is a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", content)
        + chunk(b"IEND", b"")
    )


def test_a_picture_of_endless_size_is_refused(tmp_path: Path) -> None:
    """Pillow refuses more than 179 million pixels; the largest cameras make 150."""
    (tmp_path / "data.yaml").write_text("names: [person]\n")
    for split in SPLITS:
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "images" / split / "a.png").write_bytes(png(60_000, 60_000))
    with pytest.raises(DatasetError, match=r"a\.png: unreadable image \(more than 178,956,970 pix"):
        validate(tmp_path)
