"""Which process holds a port, and which processes belong to this checkout.

Usage: ``python -m src.services.processes ports MLFLOW_PORT…`` prints a line for each that is taken
and then exits 1;
``python -m src.services.processes end [SUPERVISOR]`` ends every process that carries this
checkout's mark, but for the supervisor of that pid and its children;
``python -m src.services.processes wait PID`` waits for its end, and exits 1 where it does not come;
``python -m src.services.processes list [SUPERVISOR]`` names those on one line, if there are any;
``python -m src.services.processes ray-node`` exits 0 when this checkout runs a Ray node, and
``python -m src.services.processes end-ray-node`` ends it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime

import psutil

from src.errors import run_command
from src.services.launcher import MARK
from src.settings import ROOT, load_settings

RAY_MARK = "ZENML_CV_YOLO_RAY_NODE"  # in the environment of every process of a Ray node
RAY_GRACE = 3.0  # Ray's head does not end when asked, and keeps nothing
GRACE = 20.0  # seconds between asking a process to end and ending it
END_LIMIT = 60.0  # seconds for supervisor's end, after its services'
POLL = 0.1  # seconds between two looks
# juicefs overwrites the memory that its environment is read from, and makes its command line one
# string, cut short. Its folder comes early in that, and its working directory tells whose it is.
STORE = ".stack/native/object-store/"


def port_holder(address: str, port: int) -> str | None:
    """Return who listens where ``address:port`` is wanted, such as ``pid 812 (nginx)``, or None.

    This checkout's own servers are in nobody's way.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # macOS lets one bind 127.0.0.1 beside a listener on all addresses: ask for an answer first.
    with socket.socket(family, socket.SOCK_STREAM) as caller:
        caller.settimeout(1)
        answered = caller.connect_ex((address, port)) == 0
    if not answered:
        with socket.socket(family, socket.SOCK_STREAM) as wanted:
            wanted.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                wanted.bind((address, port))
                return None
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    return f"nobody, but it can't be bound ({error.strerror})"
    everywhere = ("::", "0.0.0.0")  # noqa: S104 - looked for, not bound
    taking = {(host, port) for host in (address, f"::ffff:{address}", *everywhere)}
    # Asked one by one, because macOS shows everybody's connections at once to root only.
    for process in psutil.process_iter():
        try:
            for listener in process.net_connections(kind="tcp"):
                if listener.status == psutil.CONN_LISTEN and listener.laddr in taking:
                    if _is_own(process, MARK):
                        return None
                    return f"pid {process.pid} ({process.name()})"
        except psutil.Error:  # ended meanwhile, or another user's
            continue
    return "another process"


def other_localhost(port: int) -> str | None:
    """Return who listens on ``[::1]``, which clients of ``localhost`` try first, or None."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as caller:
        caller.settimeout(1)
        try:
            answered = caller.connect_ex(("::1", port)) == 0
        except OSError:
            return None
    return port_holder("::1", port) if answered else None


def own_processes(mark: str = MARK) -> list[psutil.Process]:
    """Return the processes of this checkout's services, or Ray node, other than this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and _is_own(process, mark):
                found.append(process)
        except psutil.Error:  # ended meanwhile, or another user's
            continue
    return found


def _is_own(process: psutil.Process, mark: str) -> bool:
    if process.environ().get(mark) == str(ROOT):
        return True
    return mark == MARK and STORE in " ".join(process.cmdline()) and process.cwd() == str(ROOT)


def strays(supervisor: int) -> list[psutil.Process]:
    """Return processes of this checkout's services that this supervisor did not start."""
    parent = psutil.Process(supervisor)
    kept = {supervisor, *(child.pid for child in parent.children(recursive=True))}
    return [process for process in own_processes() if process.pid not in kept]


def described(process: psutil.Process) -> str:
    """Return a process as people find it: its pid, its name, and since when it lives."""
    try:
        since = datetime.fromtimestamp(process.create_time())
        return f"pid {process.pid} {process.name()} since {since:%Y-%m-%d %H:%M}"
    except psutil.Error:
        return f"pid {process.pid}, just ended"


def end_own_processes(
    mark: str = MARK, grace: float = GRACE, marked: Sequence[psutil.Process] | None = None
) -> None:
    """End what is left of this checkout's services, such as children of a killed supervisor."""
    marked = own_processes(mark) if marked is None else marked
    processes = set(marked)
    for process in marked:  # children that rename themselves lose the mark
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.update(process.children(recursive=True))
    # Parents first: a supervisor starts again what ends before it, and may have the higher number.
    ordered = sorted(processes, key=_depth)
    for process in ordered:
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
            process.terminate()
            process.resume()  # one that was halted takes no signal
    for process in still_running(ordered, grace):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _depth(process: psutil.Process) -> int:
    try:
        return len(process.parents())
    except psutil.Error:  # ended meanwhile, or another user's above it
        return 0


def still_running(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for processes to end; return those that have not.

    psutil's own waits for zombies too, which in a container without an init stay for ever.
    """
    deadline = time.monotonic() + seconds
    running = list(processes)
    while running := [process for process in running if _runs(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(POLL)
    return running


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main(arguments: list[str]) -> int:
    """Run the command line described above."""
    match arguments:
        case ["ports", *ports]:
            settings = load_settings()
            taken = False
            for name in ports:
                port = getattr(settings, name.lower())
                holder = port_holder(settings.bind_address, port)
                if holder is None and settings.host == "localhost":
                    holder = other_localhost(port)
                if holder:
                    print(f"{name} {port} is taken by {holder}: set {name} in .env")
                    taken = True
            return int(taken)
        case ["end"]:
            end_own_processes()
        case ["end", supervisor]:
            end_own_processes(marked=strays(int(supervisor)))
        case ["wait", pid]:
            with contextlib.suppress(psutil.NoSuchProcess):
                return int(bool(still_running([psutil.Process(int(pid))], END_LIMIT)))
        case ["list", *supervisor]:
            found = strays(int(supervisor[0])) if supervisor else own_processes()
            if found:
                print(", ".join(map(described, found)))
        case ["ray-node"]:
            return int(not own_processes(RAY_MARK))
        case ["end-ray-node"]:
            end_own_processes(RAY_MARK, RAY_GRACE)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv[1:])))
