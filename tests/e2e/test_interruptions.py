"""A command that is killed at any of its points and repeated leaves what it leaves undisturbed.

``make test-faults`` kills at each point that is recorded and writes the figures of
docs/reliability.md. Natively: the database files tell all.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pytest
from minio import Minio
from minio.credentials import StaticProvider
from minio.minioadmin import MinioAdmin

from src.bootstrap.object_store import _normal
from tests.e2e.conftest import ROOT, TINY_GRID, Checkout, copy_checkout
from tests.e2e.interruptions import Points
from tests.indexes import served_indexes

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.skipif(
        os.environ.get("TEST_MODE", "native") != "native", reason="reads the native databases"
    ),
]

State = dict[str, list[str]]
DATABASES = ("mlflow/mlflow.db", "zenml/zenml.db")
SERVERS = ("mlflow", "zenml", "object-store")
FORCED = ("FORCE=1", "REASON=to see it killed")
# What a server notes of each request or start, and of who signed in.
NOTES = {"api_transaction", "api_transaction_result", "alembic_version", "server_settings"}
# A key that was killed before it was written down is made again, under the same name.
COLUMNS = {"api_key": "name, active, retain_period, service_account_id"}
# Not this project's to keep the same: logs, databases (read as such), the store's own files.
ELSEWHERE = re.compile(
    r"^\.git/|__pycache__|^\.stack/(locks/|native/(logs|mlflow|zenml|object-store|tmp)/)"
    r"|\.stack/dvc/.*cache\.db|supervisord\.(log|pid)$|\.sock$"
)
# What differs between two undisturbed runs.
SAME = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}|(?<![0-9A-Za-z])(m-)?[0-9a-f]{32,64}", "ID"),
    (r"\d{4}-?\d\d-?\d\d[ T_-]\d\d[:-]?\d\d[:-]?\d\d([.-]\d+)?", "TIME"),
    (r"\b1[0-9]{12}\b|\b1[0-9]{9}\b", "TIME"),
    (r"\.[0-9]+\.new$", ".PID.new"),
    (r"ZENKEY_\S+", "KEY"),
]


def same(text: str) -> str:
    for pattern, word in SAME:
        text = re.sub(pattern, word, text)
    return text


class Stack:
    """A checkout with its servers: what they hold, and how to go back to it."""

    def __init__(self, checkout: Checkout, kept: Path) -> None:
        self.checkout, self.kept = checkout, kept
        self.native = checkout.root / ".stack" / "native"

    # --- What there is ---

    def state(self) -> State:
        found = {"files": self.files(), "store": self._store(), "processes": self._processes()}
        for name in DATABASES:
            found |= self._rows(name)
        return found

    def files(self) -> list[str]:
        lines = []
        for file in sorted(self.checkout.root.rglob("*")):
            name = file.relative_to(self.checkout.root).as_posix()
            if ELSEWHERE.search(f"{name}/" if file.is_dir() else name) or file.is_socket():
                continue
            told = f"{name} {file.stat().st_mode & 0o777:o}"
            if file.is_file() and "zenml-client" not in name and file.stat().st_size < 100_000:
                text = file.read_bytes().decode(errors="replace")
                kind = file.suffix in ("", ".json", ".env", ".dvc", ".yaml", ".md", ".conf")
                told += f" {text}" if kind and not re.match(r"\.dvc/(tmp|cache)/", name) else ""
                told += " empty" if not text and ".lock" not in name and file.name != "lock" else ""
            lines.append(same(told.replace(str(self.checkout.root), "ROOT")))
        return sorted(lines)

    def _clients(self) -> tuple[Minio, MinioAdmin]:
        s = self.checkout.settings
        where = f"localhost:{self.checkout.variables['MINIO_PORT']}"
        user, password = s["MINIO_ROOT_USER"], s["MINIO_ROOT_PASSWORD"]
        signer = StaticProvider(user, password)
        return (
            Minio(where, user, password, secure=False),
            MinioAdmin(endpoint=where, credentials=signer, secure=False),
        )

    def _keys(self) -> dict[str, set[str]]:
        store, _ = self._clients()
        return {
            bucket.name: {
                str(item.object_name) for item in store.list_objects(bucket.name, recursive=True)
            }
            for bucket in store.list_buckets()
        }

    def _store(self) -> list[str]:
        _, admin = self._clients()
        policies = json.loads(admin.policy_list())
        lines = [f"policy {name} {_normal(rule)}" for name, rule in policies.items()]
        for name, user in json.loads(admin.user_list()).items():
            lines.append(f"user {name} {user.get('policyName')} {user.get('status')}")
        for bucket, keys in self._keys().items():
            lines += [f"bucket {bucket}", *(same(f"{bucket} {key}") for key in keys)]
        return sorted(lines)

    def _processes(self) -> list[str]:
        found = []
        for process in self.checkout.processes():
            try:
                found.append(" ".join(process.cmdline())[-60:])
            except psutil.Error:
                continue
        return sorted(found)

    def _rows(self, name: str) -> State:
        tables: State = {}
        with closing(sqlite3.connect(self.native / name)) as database:
            listed = "SELECT name FROM sqlite_master WHERE type = 'table'"
            for (table,) in database.execute(listed).fetchall():
                if table not in NOTES:
                    columns = COLUMNS.get(table, "*")
                    rows = database.execute(f'SELECT {columns} FROM "{table}"').fetchall()
                    tables[f"{Path(name).stem} {table}"] = sorted(map(_row, rows))
        return tables

    # --- And back ---

    def keep(self) -> None:
        """Note what there is now."""
        shutil.rmtree(self.kept, ignore_errors=True)
        for part in ("data", "reports", ".dvc", ".stack"):
            shutil.copytree(
                self.checkout.root / part, self.kept / part, symlinks=True, ignore=_servers_own
            )
        for name in DATABASES:
            _copy(self.native / name, self.kept / Path(name).name)
        self.keys = self._keys()

    def restore(self) -> None:
        """Go back to what was kept, while the servers run."""
        for part in ("data", "reports", ".dvc"):
            shutil.rmtree(self.checkout.root / part)
            shutil.copytree(self.kept / part, self.checkout.root / part, symlinks=True)
        wanted = {file.relative_to(self.kept) for file in (self.kept / ".stack").rglob("*")}
        for file in sorted((self.checkout.root / ".stack").rglob("*"), reverse=True):
            name = file.relative_to(self.checkout.root)
            if name not in wanted and not _server_has(name):
                file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
        shutil.copytree(self.kept / ".stack", self.checkout.root / ".stack", dirs_exist_ok=True)
        for name in DATABASES:
            _copy(self.kept / Path(name).name, self.native / name)
        store, admin = self._clients()
        for bucket, keys in self._keys().items():
            for key in keys - self.keys.get(bucket, set()):
                store.remove_object(bucket, key)
            if bucket not in self.keys:
                store.remove_bucket(bucket)
        if not self.keys:
            for name in json.loads(admin.user_list()):
                admin.user_remove(name)
            for name in json.loads(admin.policy_list()):
                if name in ("zenml", "mlflow", "dvc-user"):
                    admin.policy_remove(name)


def _row(values: tuple[Any, ...]) -> str:
    shown = [f"{len(v)} bytes" if isinstance(v, bytes) else str(v) for v in values]
    return same(" | ".join(shown))


def _server_has(name: Path) -> bool:
    """Whether a path below the checkout is a running server's own."""
    within = name.relative_to(".stack").parts
    if within[0] == "locks" or (within[0] == "native" and len(within) == 1):
        return True
    return within[:1] == ("native",) and (
        within[1] in (*SERVERS, "logs", "tmp") or within[1].startswith("supervisor")
    )


def _servers_own(folder: str, names: list[str]) -> list[str]:
    if Path(folder).name != "native":
        return [name for name in names if name == "locks"]
    return [name for name in names if _server_has(Path(".stack/native") / name)]


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


# --- Each command, at each of its points ----------------------------------------------------------


@pytest.fixture(scope="module")
def stack(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    checkout.variables |= {"DATASET": "synthetic", "WEIGHTS": "scratch"}
    checkout.make("up")
    return Stack(checkout, tmp_path_factory.mktemp("kept") / "kept")


@pytest.fixture(scope="module")
def points(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Points:
    return Points(checkout, tmp_path_factory.mktemp("points"))


COUNTS: dict[str, tuple[int, int]] = {}


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    """`make test-faults` writes the rows of docs/reliability.md."""
    yield
    if not (page := os.environ.get("FIGURES")):
        return
    text = (ROOT / page).read_text()
    for command, (good, all_of) in COUNTS.items():
        row = f"| `make {command}` | {all_of} | {good} of {all_of} | {date.today():%Y-%m-%d} |"
        text, found = re.subn(rf"(?m)^\| `make {command}` \|.*$", row, text)
        assert found == 1, command
    (ROOT / page).write_text(text)


def differences(wanted: State, found: State) -> list[str]:
    """What is there too often, or missing."""
    lines = []
    for part in sorted(wanted.keys() | found.keys()):
        was, now = Counter(wanted.get(part, [])), Counter(found.get(part, []))
        missing, more = sorted((was - now).elements()), sorted((now - was).elements())
        if len(missing) == len(more) == 1:  # where they differ
            pair = difflib.ndiff(missing[0].split("\n"), more[0].split("\n"))
            lines += [f"{part}: {line[:400]}" for line in pair if line[0] in "+-"]
        else:
            lines += [f"{part}: - {line[:400]}" for line in missing]
            lines += [f"{part}: + {line[:400]}" for line in more]
    return lines


def killed_everywhere(
    name: str,
    words: tuple[str, ...],
    points: Points,
    state: Callable[[], State],
    reset: Callable[[], None],
) -> None:
    """Kill the command at each of its points, repeat it, and compare."""
    reset()
    recorded = points.record(*words)
    undisturbed = state()
    failed = {}
    for number, point in enumerate(recorded, 1):
        reset()
        fault = []
        if not points.kill(point, *words):
            fault = ["the command did not come there"]
        else:
            try:
                points.checkout.run(*words)
            except AssertionError as error:
                fault = str(error).splitlines()
            else:
                fault = differences(undisturbed, state())
        if fault:
            failed[point] = fault
        print(f"{number} of {len(recorded)}: {point}: {'; '.join(fault) or 'the same'}", flush=True)
    good, all_of = COUNTS.get(name, (0, 0))
    COUNTS[name] = good + len(recorded) - len(failed), all_of + len(recorded)
    told = [f"{point}\n  " + "\n  ".join(lines[:12]) for point, lines in failed.items()]
    assert not failed, "\n".join(told)


def test_setup(tmp_path: Path) -> None:
    """A small lock, from indexes on this machine; what needs the real packages is done already."""
    root, variables = tmp_path / "a checkout", {"PYTHON": sys.executable, "PIP_NO_CACHE_DIR": "1"}
    root.mkdir()
    copy_checkout(root)
    checkout = Checkout(root, tmp_path, variables | {"VENV": str(root / ".venv")})
    made = (".venv", ".env", ".stack", ".dvc/config.local")

    def reset() -> None:
        for name in made:
            shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink(True)
        (root / ".stack" / "docker").mkdir(parents=True)
        for later in (".dvc/config.local", ".stack/docker/secrets-written"):
            (root / later).touch()
            os.utime(root / later, (time.time() + 3600,) * 2)

    with served_indexes(tmp_path / "indexes") as (address, lock):
        variables = {"PIP_INDEX_URL": f"{address}/pypi", "TORCH_INDEX": f"{address}/cpu"}
        checkout.variables |= variables
        (root / "requirements.txt").write_text(lock)
        points, there = Points(checkout, tmp_path), Stack(checkout, tmp_path / "kept")
        command = ("scripts/ensure-setup.sh",)
        killed_everywhere("setup", command, points, lambda: {"files": there.files()}, reset)


# Each leaves what those below need, and each can be run alone.


def test_up(stack: Stack, points: Points) -> None:
    """A first start, over databases that are there already: it saves half of the time."""
    stack.checkout.make("down")
    native = stack.native
    for file in native.parent.iterdir():
        if file.name != "native":
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    for file in native.iterdir():
        if file.name not in SERVERS:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    kept = stack.kept.with_name("down")
    shutil.copytree(native.parent, kept, symlinks=True)

    def reset() -> None:
        stack.checkout.cut_power()
        shutil.rmtree(native.parent)
        shutil.copytree(kept, native.parent, symlinks=True)

    killed_everywhere("up", ("make", "up"), points, stack.state, reset)


def test_stack(stack: Stack, points: Points) -> None:
    stack.keep()
    command = ("scripts/converge-stack.sh",)
    killed_everywhere("stack", command, points, stack.state, stack.restore)


def test_data(stack: Stack, points: Points) -> None:
    stack.checkout.make("stack")
    stack.keep()
    command = ("scripts/ensure-dataset.sh",)
    killed_everywhere("data", command, points, stack.state, stack.restore)


def test_data_again(stack: Stack, points: Points, tmp_path: Path) -> None:
    """A set of one's own whose source has changed since: the old files give way to the new."""
    mine, command = tmp_path / "mine", "scripts/ensure-dataset.sh"
    shutil.copytree(stack.checkout.root / "data" / "tiny_person", mine)
    (mine / "manifest.json").unlink()
    words = ("env", f"DATASET={mine}", "NAME=mine", command)
    stack.checkout.run(*words)
    next(mine.glob("images/train/*")).unlink()
    stack.keep()
    killed_everywhere("data", words, points, stack.state, stack.restore)
    stack.checkout.run("env", "DATASET=synthetic", "NAME=tiny_person", command)


@pytest.fixture(scope="module")
def compared(stack: Stack) -> Stack:
    """A stack with a grid, of which one cell is the champion."""
    (stack.checkout.root / "configs" / "grid_scratch.yaml").write_text(TINY_GRID)
    stack.checkout.make("grid")
    stack.checkout.make("promote", "RUN=zenml_yolo_tiny_e1_32", *FORCED)
    stack.keep()
    return stack


def test_promote(compared: Stack, points: Points) -> None:
    command = ("make", "promote", "RUN=zenml_yolo_tiny_e1_64", *FORCED)
    killed_everywhere("promote", command, points, compared.state, compared.restore)


def test_report(compared: Stack, points: Points) -> None:
    command = ("make", "report")
    killed_everywhere("report", command, points, compared.state, compared.restore)
