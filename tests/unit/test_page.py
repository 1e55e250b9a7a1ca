"""The page of a version: complete, needs no network, and nothing in a name becomes markup."""

import re
from pathlib import Path

from src.datasets import page
from src.datasets.importing.importer import build
from src.datasets.manifest import Manifest, class_names, write
from tests.unit.importing import cases


def made(tmp_path: Path) -> tuple[Path, list[str]]:
    source, version = tmp_path / "set", tmp_path / "version"
    source.mkdir()
    version.mkdir()
    case = cases.make(source, cases.ultralytics, [])
    assert case
    label = case.items["im00"].label
    assert label
    label.write_text("0 0.5 0.5 0.1 0.1 0.9\n")
    (source / "a <b> & c.md").write_text("x")
    account = build(source, version, seed=42)
    write(version, Manifest(kind="imported", seed=42), ["<i>cat</i>", *account.names[1:]])
    return version, class_names(version)


def test_the_page_shows_every_split_class_and_refusal(tmp_path: Path) -> None:
    version, names = made(tmp_path)
    text = page.render(version, names, "cats", "0123.dir", "imported", page.read_account(version))
    assert text.count("<figure>") == 13
    assert "traffic light" in text
    assert "labels/train/im00.txt line 1" in text
    assert "six columns" in text


def test_the_page_needs_nothing_else_and_runs_nothing(tmp_path: Path) -> None:
    version, names = made(tmp_path)
    text = page.render(version, names, "cats", "0123.dir", "imported", page.read_account(version))
    assert not re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,)', text)
    assert "<script" not in text
    assert "<i>cat" not in text
    assert "a &lt;b&gt; &amp; c.md" in text


def test_a_version_without_an_account_has_a_page_too(tmp_path: Path) -> None:
    version, names = made(tmp_path)
    (version / "account.json").unlink()
    text = page.render(version, names, "cats", "0123.dir", "drawn", page.read_account(version))
    assert "What the import did" not in text
