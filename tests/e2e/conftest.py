"""A checkout of its own for each test module: own folder, own ports, own home, the same code."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.chromium import CHROMIUM, chromium

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
# For tests of code that does not know the backend.
either_backend = pytest.mark.skipif(
    os.environ.get("TEST_MODE") == "docker" and not os.environ.get("TEST_LONG"),
    reason="the native run shows it; TEST_LONG=1 make test-docker",
)
COMPOSE = ("docker", "compose", "-f", "compose/compose.yaml", "--env-file", ".env")
# Two cells of drawn people that train in seconds.
TINY_GRID = """
base: {batch: 16, seed: 0, optimizer: AdamW, lr0: 0.002, mosaic: 0}
grid: {epochs: [1], imgsz: [32, 64]}
"""
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_ports = itertools.count(20_000 + 1500 * _worker + random.randrange(1000))
PORTS = re.findall(r"(?m)^(\w+_PORT)=", (ROOT / ".env.example").read_text())


@dataclass
class Checkout:
    """A working copy to run make in."""

    root: Path
    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    def make(self, *words: str, timeout: float = 1200, expect: int = 0) -> str:
        """Run make without a terminal and return what it printed, stdout and stderr together."""
        return self.run("make", *words, timeout=timeout, expect=expect)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own; read what it says as it says it."""
        return subprocess.Popen(
            words,
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, timeout: float = 600, expect: int = 0) -> str:
        command = self.start(*words)
        try:
            printed, _ = command.communicate(timeout=timeout)
        except BaseException:  # too slow, or Ctrl-C, which does not reach another process group
            os.killpg(command.pid, signal.SIGKILL)
            raise
        sys.stdout.write(f"$ {' '.join(words)}\n{printed}")
        assert command.returncode == expect, f"{words}: exit {command.returncode}\n{printed}"
        return printed

    def python(self, code: str) -> object:
        """Run code as a client of this checkout's stack; its last line printed is JSON."""
        prelude = (
            "from src.client import use_stack\n"
            "from src.settings import load_settings\nS = load_settings()\nuse_stack(S)\n"
        )
        printed = self.run(str(self.interpreter), "-c", prelude + code)
        return json.loads(printed.strip().splitlines()[-1])

    @property
    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "DOCKER_HOST")}
        return inherited | {"HOME": str(self.home)} | self.variables

    @property
    def interpreter(self) -> Path:
        return Path(self.variables["VENV"]) / "bin" / "python"

    @property
    def settings(self) -> dict[str, str]:
        lines = (self.root / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    def set(self, **settings: str) -> None:
        """Change settings in .env."""
        text = (self.root / ".env").read_text()
        for name, value in settings.items():
            text, count = re.subn(rf"(?m)^{name}=.*$", f"{name}={value}", text)
            assert count == 1, name
        (self.root / ".env").write_text(text)

    def processes(self) -> list[psutil.Process]:
        """The native backend's processes of this checkout."""
        found = []
        for process in psutil.process_iter():
            try:
                # The working directory tells too: juicefs overwrites its environment.
                if process.environ().get("ZENML_CV_YOLO_CHECKOUT") == str(self.root) or (
                    process.name() == "juicefs" and process.cwd() == str(self.root)
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def cut_power(self) -> None:
        """End the native backend's processes at once: none starts another one again."""
        while left := self.processes():
            # Supervisor is the oldest; once numbers begin again at 300, it may have the highest.
            oldest = min(left, key=lambda process: process.create_time())
            with suppress(psutil.NoSuchProcess):
                oldest.kill()
            psutil.wait_procs([oldest], timeout=10)


@pytest.fixture
def pages() -> Iterator[BrowserContext]:
    """The windows of a browser; a test of them is repeated where a changed network disturbs it."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with chromium() as browser:
        context = browser.new_context()
        context.set_default_timeout(60_000)  # a busy machine takes over 30 s
        yield context


def copy_checkout(target: Path) -> None:
    """Copy what git tracks, or would, and make it a repository of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if re.fullmatch(r"data/[^/]+\.dvc", name) or name.startswith(("reports/2", "predictions/")):
            continue  # made here, not part of the project
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "copy"]):
        subprocess.run([*git, *words], cwd=target, check=True)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, and nobody else is given while a service is down.

    Connections get higher ones, the tests' other processes others, and each is returned once.
    """
    found: list[int] = []
    while len(found) < count:
        port = next(_ports)
        with socket.socket() as candidate, suppress(OSError):
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            candidate.bind(("127.0.0.1", port))
            found.append(port)
    return found


@contextmanager
def fresh_checkout(folder: Path, **variables: str) -> Iterator[Checkout]:
    """Yield a checkout in a path with a space, cleaned up whatever happens."""
    root, home = folder / "the stack", folder / "home"
    root.mkdir()
    home.mkdir()
    copy_checkout(root)
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    given = {
        "VENV": os.environ.get("VENV", str(ROOT / ".venv")),
        "MODE": os.environ.get("TEST_MODE", "native"),
        # Compose may be a plugin in the real home.
        "DOCKER_CONFIG": os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker")),
    }
    checkout = Checkout(root, home, given | ports | variables)
    try:
        yield checkout
    finally:
        subprocess.run(
            ["make", "clean", "FORCE=1"],
            cwd=root,
            env=os.environ | checkout.variables,
            stdin=subprocess.DEVNULL,
            check=True,
        )
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout for a module's tests, each of which builds on those above it."""
    with fresh_checkout(tmp_path_factory.mktemp("e2e")) as checkout:
        yield checkout
