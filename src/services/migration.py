"""Brings a database of an older MLflow or ZenML to the installed one's schema, or leaves it be.

MLflow refuses an older schema and migrates nothing by itself; ZenML migrates in place. Here a copy
is migrated, proven to hold what the original holds, and put in its place in one move: whatever
fails or is killed on the way, the original is untouched. What it was stays beside it, as
``NAME.db.before-REVISION``. In containers the database is MySQL's, whose volume
``scripts/backends/docker.sh`` copies beforehand. Standard library only, but for the migration.
"""

from __future__ import annotations

import ast
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

_ASSIGNED = re.compile(r"^(revision|down_revision)(?::[^=]*)? = (.+)$", re.MULTILINE)
_BESIDE = ("-wal", "-shm", "-journal")  # files that belong to a SQLite database

# What brings a database at an address, the last argument, to the newest schema.
MLFLOW = """\
import sys
from mlflow.store.db.utils import _upgrade_db, create_sqlalchemy_engine_with_retry
_upgrade_db(create_sqlalchemy_engine_with_retry(sys.argv[-1]))
"""
ZENML = """\
import sys
from zenml.zen_stores.sql_zen_store import SqlZenStore, SqlZenStoreConfiguration
SqlZenStore(config=SqlZenStoreConfiguration(url=sys.argv[-1]), skip_default_registrations=True)
"""


class MigrationError(Exception):
    """A database can't be used, and is as it was; the message says what to do."""


def heads(folder: Path) -> tuple[set[str], set[str]]:
    """Return the newest of Alembic's revisions in a folder, and all of them."""
    known: set[str] = set()
    followed: set[str] = set()
    for file in folder.glob("*.py"):
        found = dict(_ASSIGNED.findall(file.read_text(encoding="utf-8")))
        if "revision" not in found:
            continue
        known.add(ast.literal_eval(found["revision"]))
        before = ast.literal_eval(found["down_revision"])
        followed.update([before] if isinstance(before, str) else before or ())
    return known - followed, known


def revisions(database: Path, table: str = "alembic_version") -> set[str]:
    """Return the schema's revisions that a SQLite database notes; empty where it has none."""
    with closing(sqlite3.connect(database)) as opened:
        try:
            return {row[0] for row in opened.execute(f"SELECT version_num FROM {table}")}  # noqa: S608
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return set()


def require_sound(database: Path) -> None:
    """Raise ``MigrationError`` where a SQLite database is damaged, as a failing disk leaves it.

    It is opened for reading, which leaves a damaged one as it is, and for writing only where a
    killed server's last transaction is to be taken back first.
    """
    try:
        said = _checked(database, "ro")
    except sqlite3.OperationalError as error:
        if not error.sqlite_errorname.startswith("SQLITE_READONLY"):
            raise
        said = _checked(database, "rw")
    if said == "ok":
        return
    earlier = len(list(database.parent.glob("damaged-*")))
    aside = database.with_name(f"damaged-{earlier + 1}")
    files = [f"{database}{end}" for end in ("", *_BESIDE) if Path(f"{database}{end}").exists()]
    raise MigrationError(
        f"{database} is damaged ({said}): put a copy of it back, or begin with an empty one: "
        f"mkdir {aside} && mv {' '.join(files)} {aside}; then make up"
    )


def _checked(database: Path, mode: str) -> str:
    """Return ``ok``, or what is wrong with a database."""
    try:
        address = f"{database.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, uri=True)) as opened:
            (said,) = opened.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if not error.sqlite_errorname.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise
        said = str(error)
    return " ".join(said.split())


def ensure_current(database: Path, label: str, versions: Path, script: str) -> None:
    """Migrate a SQLite database where an older ``label`` has made it.

    Args:
        database: The file; where it is missing, the server makes a new one.
        label: The server's name for people.
        versions: The folder of the installed server's revisions.
        script: Python that migrates the database whose address is its last argument.

    Raises:
        MigrationError: When it can't be done, or is damaged; the database is as it was.
    """
    fresh = database.with_name(f"{database.name}.migrating")
    _remove(fresh)  # of a migration that was killed
    if not database.exists():
        return
    require_sound(database)
    newest, known = heads(versions)
    found = revisions(database)
    if not found or found == newest:
        return
    if not found <= known:
        raise MigrationError(
            f"{database.name} was made by a newer {label} ({_said(found)}): check out the version "
            "of this project that made it, then make up"
        )
    kept = database.with_name(f"{database.name}.before-{'-'.join(sorted(found))}")
    print(
        f"{label}: bringing its database from {_said(found)} to {_said(newest)}; what it was stays "
        f"in {kept.name}",
        flush=True,
    )
    _copy(database, kept)
    _copy(kept, fresh)
    done = subprocess.run(
        [sys.executable, "-c", script, f"sqlite:///{fresh}"], env=os.environ, check=False
    )
    fault = _fault(kept, fresh, newest) if done.returncode == 0 else "the migration failed"
    if fault:
        _remove(fresh)
        raise MigrationError(
            f"{label}'s database could not be brought to {_said(newest)} ({fault}) and is as it "
            "was: check out the version of this project that made it, then make up"
        )
    _fold(fresh)
    _fold(database)
    fresh.replace(database)


def _copy(source: Path, target: Path) -> None:
    """Copy a database, what its log holds included, whole or not at all."""
    partial = target.with_name(f".{target.name}.new")
    _remove(partial)
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(partial)) as new:
        old.backup(new)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)


def _fold(database: Path) -> None:
    """Leave nothing of a database in files beside it."""
    with closing(sqlite3.connect(database)) as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        opened.execute("PRAGMA journal_mode=DELETE")


def _remove(database: Path) -> None:
    for suffix in ("", *_BESIDE):
        with suppress(FileNotFoundError):
            Path(f"{database}{suffix}").unlink()


def _fault(old: Path, new: Path, newest: set[str]) -> str:
    """Return what is wrong with a migrated database, blank for nothing."""
    if revisions(new) != newest:
        return f"it is at {_said(revisions(new))} afterwards"
    with closing(sqlite3.connect(old)) as before, closing(sqlite3.connect(new)) as after:
        (said,) = after.execute("PRAGMA integrity_check").fetchone()
        if said != "ok":
            return str(said)
        counts, now = _counts(before), _counts(after)
    lost = [table for table, rows in counts.items() if table in now and now[table] < rows]
    return f"rows of {', '.join(lost)} are gone" if lost else ""


def _counts(database: sqlite3.Connection) -> dict[str, int]:
    """Return the number of rows of each table but the one of the revision."""
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    names = [row[0] for row in database.execute(tables) if row[0] != "alembic_version"]
    return {
        name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608
        for name in names
    }


def _said(found: Iterable[str]) -> str:
    return ", ".join(sorted(found)) or "no schema"


def migrate_mysql(address: str, versions: Path) -> None:
    """Bring MLflow's tables in MySQL to the newest schema, in this process."""
    from sqlalchemy import create_engine, inspect, text

    engine = create_engine(address)
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return
        found = {
            row[0] for row in connection.execute(text("SELECT version_num FROM alembic_version"))
        }
    newest, known = heads(versions)
    if not found or found == newest:
        return
    if not found <= known:
        raise MigrationError(
            f"the database was made by a newer MLflow ({_said(found)}): check out the version of "
            "this project that made it, then make up"
        )
    print(f"MLflow: bringing its database from {_said(found)} to {_said(newest)}", flush=True)
    from mlflow.store.db.utils import _upgrade_db

    _upgrade_db(engine)
    engine.dispose()
