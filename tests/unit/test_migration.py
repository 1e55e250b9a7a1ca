"""Databases of older versions: migrated whole, or left as they were."""

from __future__ import annotations

import gzip
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from src.services import migration
from src.services.launcher import package
from src.services.migration import MigrationError, ensure_current, heads, revisions

OLD = Path(__file__).parents[1] / "fixtures" / "databases"
MLFLOW_VERSIONS = package("mlflow") / "store" / "db_migrations" / "versions"
ZENML_VERSIONS = package("zenml") / "zen_stores" / "migrations" / "versions"

# Adds a column, and another revision; the database's address comes last.
SCRIPT = """\
import sqlite3, sys
with sqlite3.connect(sys.argv[-1].removeprefix("sqlite:///")) as database:
    database.execute("ALTER TABLE runs ADD COLUMN end_time TEXT")
    {}
    database.execute("UPDATE alembic_version SET version_num = 'b'")
"""


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    folder = tmp_path / "versions"
    folder.mkdir()
    (folder / "a.py").write_text('revision = "a"\ndown_revision = None\n')
    (folder / "b.py").write_text('revision: str = "b"\ndown_revision = ("a",)\n')
    (folder / "__init__.py").write_text("")
    return folder


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database at revision a, of which some is still in its log."""
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as opened:
        opened.executescript(
            "CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES "
            "('a'); CREATE TABLE runs (name TEXT); INSERT INTO runs VALUES ('one')"
        )
    return file


def rows(file: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(file)) as opened:
        return opened.execute("SELECT * FROM runs").fetchall()


def test_the_newest_revision_is_the_one_that_nothing_follows(versions: Path) -> None:
    assert heads(versions) == ({"b"}, {"a", "b"})
    for folder in (MLFLOW_VERSIONS, ZENML_VERSIONS):
        newest, known = heads(folder)
        assert len(newest) == 1
        assert len(known) > 50


def test_an_older_database_is_migrated_beside_a_copy(versions: Path, database: Path) -> None:
    ensure_current(database, "MLflow", versions, SCRIPT.format(""))
    assert revisions(database) == {"b"}
    assert rows(database) == [("one", None)]
    kept = database.with_name("mlflow.db.before-a")
    assert revisions(kept) == {"a"}
    assert sorted(file.name for file in database.parent.glob("*.db*")) == [
        database.name,
        kept.name,
    ]
    before = database.stat()
    ensure_current(database, "MLflow", versions, "raise SystemExit('not again')")
    assert database.stat() == before


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("raise SystemExit(1)", "the migration failed"),
        ("", "it is at a afterwards"),
        (SCRIPT.format("database.execute('DELETE FROM runs')"), "rows of runs are gone"),
    ],
)
def test_what_fails_leaves_every_byte(
    versions: Path, database: Path, script: str, why: str
) -> None:
    before = database.read_bytes()
    with pytest.raises(MigrationError, match=f"{why}.*as it was"):
        ensure_current(database, "MLflow", versions, script)
    assert database.read_bytes() == before
    assert not list(database.parent.glob("*.migrating*"))


def test_a_newer_database_is_refused(versions: Path, database: Path) -> None:
    (versions / "b.py").unlink()
    (versions / "a.py").write_text('revision = "0"\ndown_revision = None\n')
    before = database.read_bytes()
    with pytest.raises(MigrationError, match="newer MLflow"):
        ensure_current(database, "MLflow", versions, "")
    assert database.read_bytes() == before


def test_no_database_and_an_empty_one_are_the_servers_to_make(
    versions: Path, tmp_path: Path
) -> None:
    missing = tmp_path / "none.db"
    ensure_current(missing, "MLflow", versions, "raise SystemExit(1)")
    assert not missing.exists()
    missing.touch()
    ensure_current(missing, "MLflow", versions, "raise SystemExit(1)")


@pytest.mark.parametrize("where", [0, 4096], ids=["its head", "a page"])
def test_a_damaged_database_is_refused_and_the_remedy_mends_it(
    versions: Path, database: Path, where: int
) -> None:
    with database.open("r+b") as file:
        file.seek(where)
        file.write(b"torn" * 1024)
    before = database.read_bytes()
    with pytest.raises(MigrationError, match=r"mlflow.db is damaged \(.*\): put a copy") as failure:
        ensure_current(database, "MLflow", versions, "raise SystemExit(1)")
    assert database.read_bytes() == before
    (remedy,) = re.findall(r": (mkdir .*); then make up$", str(failure.value))
    subprocess.run(["bash", "-c", remedy], check=True)
    assert (database.parent / "damaged-1" / database.name).read_bytes() == before
    ensure_current(database, "MLflow", versions, "raise SystemExit(1)")


HALF = """
import os, sqlite3, sys
opened = sqlite3.connect(sys.argv[1], isolation_level=None)
opened.executescript("PRAGMA cache_size = 1; BEGIN; UPDATE runs SET name = 'two'")
opened.executemany("INSERT INTO runs VALUES (?)", [["x" * 2000]] * 100)
os._exit(0)
"""


def test_what_a_killed_server_was_about_to_write_is_no_damage(
    versions: Path, database: Path
) -> None:
    subprocess.run([sys.executable, "-c", HALF, database], check=True)
    journal = Path(f"{database}-journal")
    assert journal.stat().st_size
    ensure_current(database, "MLflow", versions, SCRIPT.format(""))
    assert rows(database) == [("one", None)]
    assert not journal.exists()


STEPS = [(migration, "_copy"), (migration, "_fold"), (migration.subprocess, "run")]


class Killed(BaseException):
    """As kill -9: nothing runs after it."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(6))
def test_a_kill_at_each_step_is_survived(
    versions: Path,
    database: Path,
    step: int,
    after: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The steps: two copies, the migration, twice folding a log, the move."""
    calls = 0

    def dying(real: object) -> object:
        def call(*arguments: object, **named: object) -> object:
            nonlocal calls
            calls += 1
            if calls == step + 1 and not after:
                raise Killed
            done = real(*arguments, **named)  # type: ignore[operator]
            if calls == step + 1 and after:
                raise Killed
            return done

        return call

    with monkeypatch.context() as patched:
        for owner, name in STEPS:
            patched.setattr(owner, name, dying(getattr(owner, name)))
        real = Path.replace
        patched.setattr(
            Path,
            "replace",
            lambda self, to: (
                dying(real)(self, to) if self.suffix == ".migrating" else real(self, to)
            ),
        )
        with pytest.raises(Killed):
            ensure_current(database, "MLflow", versions, SCRIPT.format(""))
        assert calls == step + 1
    whole = [("one", None)] if revisions(database) == {"b"} else [("one",)]
    assert rows(database) == whole
    ensure_current(database, "MLflow", versions, SCRIPT.format(""))
    assert revisions(database) == {"b"}
    assert rows(database) == [("one", None)]
    assert not list(database.parent.glob("*.migrating*"))


@pytest.mark.parametrize("file", sorted(OLD.glob("*.db.gz")), ids=lambda file: file.name)
def test_a_database_of_an_older_release_is_migrated(file: Path, tmp_path: Path) -> None:
    """Made by the release in its name, with an experiment and a run, a pipeline or so."""
    label = file.name.partition("-")[0]
    database = tmp_path / f"{label}.db"
    with gzip.open(file) as packed, database.open("wb") as target:
        shutil.copyfileobj(packed, target)
    versions, script = {
        "mlflow": (MLFLOW_VERSIONS, migration.MLFLOW),
        "zenml": (ZENML_VERSIONS, migration.ZENML),
    }[label]
    ensure_current(database, label, versions, script)
    assert revisions(database) == heads(versions)[0]
