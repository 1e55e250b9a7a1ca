"""Files are whole and private."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from src.files import sha256, write_private


def test_a_private_file_is_replaced_in_one_move_and_readable_by_nobody_else(
    tmp_path: Path, mode_of: Callable[[Path], str]
) -> None:
    file = tmp_path / "folder" / "file"
    write_private(file, "one")
    file.chmod(0o644)
    before = file.stat().st_ino
    write_private(file, "two")
    assert file.read_text() == "two"
    assert file.stat().st_ino != before
    assert mode_of(file) == "600"
    assert mode_of(file.parent) == "700"
    assert list(file.parent.iterdir()) == [file]


def test_a_digest_is_the_files_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert sha256(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()
