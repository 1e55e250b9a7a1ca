"""Whatever state the services are in, `make up` mends it: each state alone, and in pairs.

`make test` runs the short form; `make test-faults`, with `MODE=docker` too, all of it, and writes
the figures of docs/reliability.md.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import combinations
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import COMPOSE, Checkout, fresh_checkout
from tests.e2e.servers import Store, ZenML

pytestmark = pytest.mark.e2e

DOCKER = os.environ.get("TEST_MODE", "native") == "docker"
State = Callable[[Checkout], None]

# --- Natively -------------------------------------------------------------------------------------


def control(checkout: Checkout, *words: str) -> str:
    """What supervisorctl says; 3 says that something does not run."""
    conf = str(checkout.root / ".stack" / "native" / "supervisord.conf")
    command = [str(checkout.interpreter), "-m", "supervisor.supervisorctl", "-c", conf, *words]
    done = subprocess.run(command, cwd=checkout.root, capture_output=True, text=True, timeout=60)
    return done.stdout


def pid_of(checkout: Checkout, service: str) -> int:
    """A service's process, 0 where it has none; supervisor's for a blank name."""
    said = control(checkout, "pid", *([service] if service else [])).strip()
    return int(said) if said.isdigit() else 0


def kill(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):  # in pairs it may be dead already
        process = psutil.Process(pid)
        process.kill()
        psutil.wait_procs([process], timeout=10)


def stopped(service: str) -> State:
    return lambda checkout: print(control(checkout, "stop", service))


def killed(service: str) -> State:
    """Supervisor is just about to start it again."""
    return lambda checkout: kill(pid_of(checkout, service))


def gave_up(checkout: Checkout) -> None:
    """MLflow died at each try, for a reason that is over."""
    settings = checkout.root / ".stack" / "native" / "settings" / "mlflow.env"
    text = settings.read_text()
    settings.write_text("torn")
    control(checkout, "restart", "mlflow")
    assert within(60, lambda: "FATAL" in control(checkout, "status", "mlflow"))
    settings.write_text(text)


def torn_settings(checkout: Checkout) -> None:
    """What a service is given is cut short, and its process dead."""
    settings = checkout.root / ".stack" / "native" / "settings" / "zenml.env"
    settings.write_text(settings.read_text()[:40])
    kill(pid_of(checkout, "zenml"))


def supervisor_killed(checkout: Checkout) -> None:
    kill(pid_of(checkout, ""))


def supervisor_halted(checkout: Checkout) -> None:
    if pid := pid_of(checkout, ""):
        os.kill(pid, signal.SIGSTOP)


def machine_restarted(checkout: Checkout) -> None:
    checkout.cut_power()


def other_venv(checkout: Checkout) -> None:
    """Another virtual environment stands where the servers' own did."""
    venv = Path(checkout.variables["VENV"])
    other = checkout.home / f"venv {len(list(checkout.home.glob('venv*')))}"
    other.symlink_to(venv.resolve())
    checkout.variables["VENV"] = str(other)


def half_a_store(checkout: Checkout) -> None:
    """`juicefs format` was killed: there is an index, without a format, and a volume's name."""
    machine_restarted(checkout)
    folder = checkout.root / ".stack" / "native" / "object-store"
    for file in folder.glob("*.db*"):
        file.unlink()
    with closing(sqlite3.connect(folder / "meta.db")) as database:
        database.execute("CREATE TABLE jfs_setting (name TEXT PRIMARY KEY, value TEXT)")
        database.commit()
    (folder / "new.db").write_bytes(b"torn")


def deleted(*names: str) -> State:
    """The servers answer on from what they hold open."""

    def delete(checkout: Checkout) -> None:
        for name in names:
            shutil.rmtree(checkout.root / ".stack" / "native" / name, ignore_errors=True)

    return delete


NATIVE: dict[str, State] = {
    "object store stopped": stopped("object-store"),
    "MLflow stopped": stopped("mlflow"),
    "ZenML stopped": stopped("zenml"),
    "all stopped": stopped("all"),
    "object store killed": killed("object-store"),
    "MLflow killed": killed("mlflow"),
    "MLflow gave up": gave_up,
    "ZenML's settings torn": torn_settings,
    "supervisor killed": supervisor_killed,
    "supervisor halted": supervisor_halted,
    "machine restarted": machine_restarted,
    ".venv replaced": other_venv,
    "store volume unfinished": half_a_store,
    "store's data deleted": deleted("object-store/data"),
    "all files deleted": deleted("object-store", "mlflow", "zenml"),
}

# --- In containers --------------------------------------------------------------------------------


def compose(*words: str) -> State:
    return lambda checkout: print(checkout.run(*COMPOSE, *words))


def containers(checkout: Checkout) -> dict[str, str]:
    """The id of each service's container."""
    label = f"label=com.docker.compose.project={checkout.settings['COMPOSE_PROJECT_NAME']}"
    form = '{{.Label "com.docker.compose.service"}} {{.ID}}'
    listed = checkout.run("docker", "ps", "--all", "--filter", label, "--format", form)
    return dict(line.split() for line in listed.splitlines())


def crashed(service: str) -> State:
    """A container that Docker holds to be stopped by hand, as after `docker kill`."""

    def crash(checkout: Checkout) -> None:
        if identity := containers(checkout).get(service):
            subprocess.run(["docker", "kill", identity], capture_output=True, timeout=60)

    return crash


CONTAINERS: dict[str, State] = {
    "all stopped": compose("stop"),
    "MLflow and MySQL stopped": compose("stop", "mlflow", "mysql"),
    "all killed": compose("kill"),
    "ZenML killed": crashed("zenml"),
    "store and ZenML removed": compose("rm", "-sf", "object-store", "zenml"),
    "MySQL removed": compose("rm", "-sf", "mysql"),
    "ZenML paused": compose("pause", "zenml"),
    "containers down": compose("down"),
    "volumes deleted": compose("down", "-v"),
}

# --- Each, and in pairs ---------------------------------------------------------------------------

STATES = CONTAINERS if DOCKER else NATIVE
# Each of these loses what the services hold: the stack is made again.
EMPTY = {
    "store volume unfinished",
    "store's data deleted",
    "all files deleted",
    "volumes deleted",
}
SHORT = (
    ["all killed", "store and ZenML removed", "volumes deleted"]
    if DOCKER
    else [
        "MLflow gave up",
        "supervisor killed",
        "supervisor halted",
        ".venv replaced",
        "store volume unfinished",
        "store's data deleted",
        "all files deleted",
    ]
)


def within(seconds: float, happens: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def services(checkout: Checkout) -> dict[str, str]:
    """What tells one start of the services from another: processes, or containers."""
    if DOCKER:
        return containers(checkout)
    names = ("", "object-store", "mlflow", "zenml")
    return {name: str(pid_of(checkout, name)) for name in names}


def seen(checkout: Checkout, state: str) -> None:
    """`make doctor` finds the state, and names what ``mended`` types."""
    if state.endswith(" killed") and state != "supervisor killed":
        return  # supervisor may have started it again already
    said = checkout.make("doctor", expect=2)
    assert re.search(r"(?m)^FAIL  .*make (up( waits for it)?|stack)$", said), said


def mended(checkout: Checkout, *, emptied: bool) -> None:
    """`make up` ends healthy and alone; a second one changes nothing; the stack is what it was."""
    checkout.make("up")
    assert checkout.make("status").count(" healthy ") == 3
    before = services(checkout)
    checkout.make("up")
    assert services(checkout) == before
    if not DOCKER:
        supervisor = psutil.Process(int(before[""]))
        family = {supervisor.pid, *(child.pid for child in supervisor.children(recursive=True))}
        assert {process.pid for process in checkout.processes()} <= family
    made = checkout.run("scripts/converge-stack.sh", "--trust-fingerprint")
    assert ("created" in made) == emptied, made
    assert ZenML(checkout).get("stacks", name="mlflow_stack")["total"] == 1
    assert Store(checkout, "zenml").keys(checkout.settings["ZENML_BUCKET"]) is not None


@pytest.fixture(scope="module", autouse=True)
def started(checkout: Checkout) -> None:
    checkout.make("stack")


@pytest.mark.parametrize("state", SHORT)
def test_up_mends(checkout: Checkout, state: str) -> None:
    STATES[state](checkout)
    seen(checkout, state)
    mended(checkout, emptied=state in EMPTY)
    assert "FAIL" not in checkout.make("doctor")


@pytest.mark.faults
@pytest.mark.parametrize("state", [state for state in STATES if state not in SHORT])
def test_up_mends_all_others(checkout: Checkout, state: str) -> None:
    STATES[state](checkout)
    seen(checkout, state)
    mended(checkout, emptied=state in EMPTY)
    assert "FAIL" not in checkout.make("doctor")


@pytest.mark.faults
@pytest.mark.parametrize(("first", "second"), list(combinations(STATES, 2)))
def test_up_mends_pairs(checkout: Checkout, first: str, second: str) -> None:
    STATES[first](checkout)
    STATES[second](checkout)
    mended(checkout, emptied=bool({first, second} & EMPTY))


@pytest.mark.faults
@pytest.mark.skipif(DOCKER, reason="about SQLite")
@pytest.mark.parametrize("file", ["mlflow/mlflow.db", "zenml/zenml.db", "object-store/meta.db"])
def test_a_damaged_database_is_one_line_whose_remedy_mends_it(
    checkout: Checkout, file: str
) -> None:
    """As a failing disk, or half a copy, leaves it; doctor's remedy is typed."""
    checkout.make("down")
    database = checkout.root / ".stack" / "native" / file
    with database.open("r+b") as damaged:
        damaged.write(os.urandom(8192))
    before = database.read_bytes()
    (line,) = re.findall("(?m)^error: .*damaged.*$", checkout.make("up", expect=2))
    said = checkout.make("doctor", expect=2)
    (remedy,) = re.findall(r"(?m)^FAIL .*: (mkdir .*); then make up$", said)
    assert remedy in line
    assert database.read_bytes() == before
    checkout.run("bash", "-c", remedy)
    mended(checkout, emptied="mlflow" not in file)
    assert (database.parent / "damaged-1" / database.name).read_bytes() == before


# --- Two stacks on the same ports -----------------------------------------------------------------


@pytest.fixture
def other(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """Another checkout that wants the same ports."""
    ports = {k: v for k, v in checkout.variables.items() if k.endswith("_PORT")}
    with fresh_checkout(tmp_path_factory.mktemp("other"), **ports) as other:
        other.make("setup")
        yield other


def takes_no_other(checkout: Checkout) -> None:
    """A checkout whose ports another one has says so, and runs nothing there."""
    assert "_PORT" in (refused := checkout.make("up", expect=2)), refused
    assert "is taken by" in refused, refused
    assert "in .env" in refused, refused
    assert " healthy " not in checkout.make("status", expect=2)
    assert "ok    zenml" not in (said := checkout.make("doctor", expect=2)), said
    module = "src.zenml_pipelines.run_yolo_pipeline_baseline"
    said = checkout.run(str(checkout.interpreter), "-m", module, expect=1)
    assert "make up" in said, said


def test_two_stacks_on_the_same_ports(checkout: Checkout, other: Checkout) -> None:
    """The first that came keeps them; who comes second is told, whatever its state is."""
    takes_no_other(other)
    assert checkout.make("status").count(" healthy ") == 3
    (machine_restarted if not DOCKER else compose("stop"))(checkout)
    other.make("stack")
    takes_no_other(checkout)
    assert other.make("status").count(" healthy ") == 3
    other.make("down")
    mended(checkout, emptied=False)
