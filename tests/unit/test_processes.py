"""Who holds a port, and which processes are this checkout's."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from src.services import processes
from src.services.processes import MARK, end_own_processes, own_processes, port_holder
from src.settings import Settings

SLEEPS = "import time; print(flush=True); time.sleep(60)"
IGNORES = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
FORKS = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {SLEEPS!r}], env={{}}, stdout=subprocess.DEVNULL)
{SLEEPS}
"""
ENDED = 5.0  # seconds in which a process that was ended must be gone

Start = Callable[..., subprocess.Popen[bytes]]
seen = pytest.mark.skipif(
    sys.platform == "darwin" and os.geteuid() != 0, reason="macOS shows connections to root only"
)


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port that this test listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Return a starter of processes that carry a checkout's mark, by default this one's."""
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str = SLEEPS, checkout: Path = tmp_path) -> subprocess.Popen[bytes]:
        environment = os.environ | {MARK: str(checkout)}
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()  # it runs
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@seen
def test_the_holder_of_a_port_is_named(taken: int) -> None:
    me = psutil.Process()
    assert port_holder("127.0.0.1", taken) == f"pid {me.pid} ({me.name()})"


@seen
def test_a_holder_on_all_addresses_is_found() -> None:
    with socket.create_server(("", 0)) as listener:
        holder = port_holder("127.0.0.1", listener.getsockname()[1])
    assert holder is not None
    assert f"pid {os.getpid()} " in holder


def test_a_free_port_has_no_holder(free: int) -> None:
    assert port_holder("127.0.0.1", free) is None


def test_a_port_just_closed_is_free(taken: int) -> None:
    with socket.create_connection(("127.0.0.1", taken)):
        pass
    assert port_holder("127.0.0.1", taken) is not None


def test_a_holder_that_may_not_be_seen_is_still_told(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "net_connections", refuse)
    assert port_holder("127.0.0.1", taken) == "another process"


def test_an_address_of_another_machine_cannot_be_bound(free: int) -> None:
    holder = port_holder("192.0.2.1", free)
    assert holder is not None
    assert "can't be bound" in holder


@seen
def test_every_taken_port_is_told_with_the_remedy(
    taken: int,
    free: int,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = make_settings(zenml_port=taken, mlflow_port=free)
    monkeypatch.setattr(processes, "load_settings", lambda: settings)
    assert processes.main(["ports", "MLFLOW_PORT", "ZENML_PORT"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"ZENML_PORT {taken} is taken by pid {os.getpid()} ")
    assert line.endswith(": set ZENML_PORT in .env")
    assert processes.main(["ports", "MLFLOW_PORT"]) == 0
    assert capsys.readouterr().out == ""


def test_only_this_checkouts_processes_end(start: Start, tmp_path: Path) -> None:
    own, other = start(), start(checkout=tmp_path / "another checkout")
    assert [process.pid for process in own_processes()] == [own.pid]
    end_own_processes()
    own.wait(ENDED)
    assert other.poll() is None


def test_children_end_too_even_without_the_mark(start: Start) -> None:
    parent = start(FORKS)
    (child,) = psutil.Process(parent.pid).children()
    assert child.pid not in [process.pid for process in own_processes()]
    end_own_processes()
    child.wait(ENDED)


def test_who_would_start_others_again_ends_first(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their numbers are: after the highest they begin again."""
    parents = [psutil.Process(start(FORKS).pid) for _ in range(4)]
    children = [child for parent in parents for child in parent.children()]
    order: list[int] = []
    end = psutil.Process.terminate

    def terminate(self: psutil.Process) -> None:
        order.append(self.pid)
        end(self)

    monkeypatch.setattr(psutil.Process, "terminate", terminate)
    end_own_processes(marked=[*children, *parents])
    assert set(order[:4]) == {parent.pid for parent in parents}
    assert set(order[4:]) == {child.pid for child in children}


def test_a_process_that_does_not_listen_is_killed(start: Start) -> None:
    deaf = start(IGNORES)
    end_own_processes(grace=0.5)
    deaf.wait(ENDED)


def test_a_zombie_is_not_waited_for(start: Start) -> None:
    process = start()
    process.kill()  # and nobody asks how it ended, as in a container without an init
    began = time.monotonic()
    assert processes.still_running([psutil.Process(process.pid)], 30) == []
    assert processes.main(["wait", str(process.pid)]) == 0
    assert time.monotonic() - began < 10


def test_a_process_that_ends_meanwhile_is_no_error(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, own = start(), start()
    found = [psutil.Process(gone.pid), psutil.Process(own.pid)]
    gone.kill()
    gone.wait()
    monkeypatch.setattr(processes, "own_processes", lambda _: found)
    end_own_processes()
    own.wait(ENDED)


def test_an_unknown_command_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert processes.main([]) == 2
    assert "Usage" in capsys.readouterr().err


@seen
def test_the_store_is_known_by_what_juicefs_leaves_of_its_command_line(
    start: Start, tmp_path: Path
) -> None:
    def juicefs(folder: Path) -> subprocess.Popen[bytes]:
        # As seen: one string, cut short, then NULs, also over its environment.
        name = "juicefs --no-agent gateway --log .stack/native/object-store/gateway.log --cac"
        code = ["-c", f"exec -a '{name}' sleep 60"]
        return subprocess.Popen(["bash", *code], cwd=folder, env={"PATH": os.environ["PATH"]})

    (tmp_path / "other").mkdir()
    with juicefs(tmp_path) as own, juicefs(tmp_path / "other") as other:
        deadline = time.monotonic() + 5
        while not own_processes() and time.monotonic() < deadline:
            time.sleep(0.02)
        found = [process.pid for process in own_processes()]
        own.kill()
        other.kill()
    assert found == [own.pid]


@seen
def test_own_servers_are_in_nobodys_way(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_is_own", lambda *_: True)
    assert port_holder("127.0.0.1", taken) is None


def test_strays_are_those_that_this_supervisor_did_not_start(start: Start) -> None:
    supervisor, stray = start(FORKS), start()
    (child,) = psutil.Process(supervisor.pid).children()
    assert [process.pid for process in processes.strays(supervisor.pid)] == [stray.pid]
    end_own_processes(marked=processes.strays(supervisor.pid))
    stray.wait(ENDED)
    assert supervisor.poll() is None
    end_own_processes()
    child.wait(ENDED)
