"""Runs the cells of a grid on a Ray cluster (``make ray-head``, ``make ray-worker``).

The driver runs on a machine of the cluster. No disk is shared: the code goes to the workers as a
package of ``src/`` and ``configs/``, settings and secrets as task arguments, which Ray holds in
memory, the weights through Ray's object store, and the data through DVC. A package is unpacked
once on each node, where it looks like a checkout; its name is the hash of its content, and so
other code, data, weights or servers get a folder of their own.

Import Ray only after ``_authenticate``: it reads its environment on import.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src import checkpoints
from src.client import give
from src.datasets import SET, sets, versioning
from src.errors import run_command
from src.files import private_folder, write_private
from src.inputs import DOWNLOADS, Inputs, InputsError, record_of
from src.services.outage import patience
from src.settings import ROOT, Settings, load_settings
from src.training.recipes import Cell
from src.zenml_pipelines.command_line import Job, NotReady
from src.zenml_pipelines.outcome import Epoch, Failed, Finished, Outcome, Stopped, outcome_of
from src.zenml_pipelines.progress import Progress
from src.zenml_pipelines.runs import abandoned, new_name, own

ATTEMPTS = 3  # for a cell whose node or process dies
GRACE = 30.0  # seconds that cells have to stop themselves after Ctrl-C
POLL = 0.2  # seconds between two looks at the workers' progress
TIMEOUT = 5.0  # seconds for the head's first answer
ON_GPU, ON_CPU = "GPU", "cell_on_cpu"  # Ray's resources that a cell takes one of
# Of all secrets, those that a worker uses itself; ZenML's API key opens the artifact store.
WORKERS_SECRETS = frozenset({"mlflow_admin_password", "dvc_s3_secret_key"})


@dataclass(frozen=True)
class Assignment:
    """What every cell of a grid needs on its node; secrets among it."""

    settings: Settings
    api_key: str  # ZenML's
    inputs: Inputs
    weights: list[Any]  # the reference of the checkpoint's bytes, or nothing
    dataset_md5: str
    force: bool
    tags: list[str]


@dataclass(frozen=True)
class Attempt:
    """A cell on its way."""

    cell: Cell
    number: int  # 1 for the first
    name: str  # of the ZenML run
    claim: ExitStack  # says that the run is alive while this driver is
    takes: str  # ON_GPU or ON_CPU


class Board:
    """An actor through which workers report epochs and hear that they are to stop."""

    def __init__(self) -> None:
        """Start with an empty list."""
        self._epochs: list[Epoch] = []
        self._stop = asyncio.Event()

    async def report(self, epoch: Epoch) -> None:
        """Take note of a finished epoch."""
        self._epochs.append(epoch)

    async def take(self) -> list[Epoch]:
        """Return what was reported since the last time."""
        taken, self._epochs = self._epochs, []
        return taken

    async def stop(self) -> None:
        """Ask all cells to stop."""
        self._stop.set()

    async def stopping(self) -> None:
        """Return once the cells are to stop."""
        await self._stop.wait()


def connect(job: Job) -> int:
    """Become a driver of the cluster at ``job.ray_address``; return how many cells fit on it.

    As many as its nodes have GPUs and, where a node has none, as many as fit on its cores: what
    ``make ray-head`` and ``make ray-worker`` offer.

    Raises:
        NotReady: When there is no such cluster, it does not take this checkout's token or asks for
            none, this machine is not a node of it, or its nodes can't reach the servers.
    """
    address, settings = job.ray_address, job.settings
    assert address is not None
    nodes = alive_nodes(address, settings)
    here = address_towards(address)
    if here not in nodes:
        raise NotReady(
            f"this machine ({here}) is not a node of the cluster at {address}: "
            f"make ray-worker RAY_ADDRESS={address}"
        )
    if open_to_all(address):
        raise NotReady(
            f"the cluster at {address} asks nobody for a token, and would show secrets to all: "
            "start its nodes with make ray-head and make ray-worker"
        )
    others = sorted(nodes - {here})
    if settings.loopback and others:
        raise NotReady(
            f"the servers listen on {settings.bind_address}, where {', '.join(others)} can't reach "
            "them: set BIND_ADDRESS in .env to this machine's address, then make stack"
        )
    import ray

    with tempfile.TemporaryDirectory() as folder:
        _pack(Path(folder), job)
        try:
            ray.init(
                address,
                runtime_env={"working_dir": folder},
                log_to_driver=False,
                logging_level="ERROR",
                _node_ip_address=here,
            )
        except (ConnectionError, RuntimeError) as error:
            raise NotReady(f"the cluster at {address} can't be used: {error}") from error
    return max(1, sum(offered(ray.cluster_resources()).values()))


def offered(resources: Mapping[str, float]) -> dict[str, int]:
    """Return how many cells a cluster's resources are enough for, by the resource that each takes.

    A node without GPUs offers ``ON_CPU``, so that nothing takes the cores of one with GPUs.
    """
    return {name: int(resources.get(name, 0)) for name in (ON_GPU, ON_CPU)}


def place(resources: Mapping[str, float], taken: Sequence[str]) -> str:
    """Return which resource the next cell takes, GPUs first; ``taken`` are the running ones'."""
    slots = offered(resources)
    for name, count in slots.items():
        if taken.count(name) < count:
            return name
    return ON_CPU if slots[ON_CPU] else ON_GPU  # it waits there


def needs(takes: str) -> dict[str, Any]:
    """Return the options of a task of Ray's that takes one of a resource."""
    return {"num_gpus": 1} if takes == ON_GPU else {"resources": {ON_CPU: 1}}


def run_cells(cells: list[Cell], job: Job, jobs: int, tags: list[str], progress: Progress) -> None:
    """Run the cells on the cluster, the longest first, ``jobs`` at a time; ``connect`` first.

    A cell whose node dies is run again on another; the driver names the runs, and so knows which
    one to mark as failed.

    Raises:
        KeyboardInterrupt: After Ctrl-C, when every run is marked as stopped.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
    task = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_work)
    assignment = _assignment(job, tags)

    waiting = [(cell, 1) for cell in sorted(cells, key=lambda cell: cell.cost, reverse=True)]
    running: dict[Any, Attempt] = {}
    deadline: float | None = None  # once Ctrl-C was pressed

    def start(cell: Cell, number: int) -> None:
        name = new_name(cell.run_name)
        claim = ExitStack()
        claim.enter_context(own(job.settings, name))
        takes = place(ray.cluster_resources(), [attempt.takes for attempt in running.values()])
        future = task.options(**needs(takes)).remote(cell, name, assignment, board)
        running[future] = Attempt(cell, number, name, claim, takes)

    def end(future: Any) -> None:
        ended = running[future]
        outcome: Outcome | None
        try:
            outcome = ray.get(future)
        except RayTaskError as error:
            outcome = Failed.from_error(error.cause)
        except RayError as error:
            _mark(ended.name, "FAILED")
            outcome = Failed(f"its node or process died ({type(error).__name__})")
            if ended.number < ATTEMPTS and deadline is None:
                print(f"{ended.cell.run_name}: its node or process died; again", file=sys.stderr)
                waiting.insert(0, (ended.cell, ended.number + 1))
                outcome = None
        running.pop(future).claim.close()
        if outcome is not None:
            progress.on_outcome(ended.cell, outcome)

    with progress, patience(job.settings):
        try:
            while running or (waiting and deadline is None):
                try:
                    while waiting and len(running) < jobs and deadline is None:
                        start(*waiting.pop(0))
                    finished, _ = ray.wait(list(running), timeout=POLL)
                    for epoch in ray.get(board.take.remote()):
                        progress.on_epoch(epoch)
                    for future in finished:
                        end(future)
                    if deadline is not None and time.monotonic() > deadline:
                        break
                except KeyboardInterrupt:
                    deadline = time.monotonic() + (GRACE if deadline is None else 0)
                    board.stop.remote()
                    progress.on_interrupt()
        finally:
            for future, left in running.items():  # did not stop in time, or this driver fails
                ray.cancel(future, force=True)
                _mark(left.name, "STOPPED")
                left.claim.close()
                progress.on_outcome(left.cell, Stopped())
            ray.shutdown()
    if deadline is not None:
        raise KeyboardInterrupt


def alive_nodes(address: str, settings: Settings) -> set[str]:
    """Return the addresses of the cluster's nodes; raises ``NotReady`` where that is refused."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise NotReady(f"RAY_ADDRESS={address}: write host:port, as make ray-head says it")
    try:
        socket.create_connection((host, int(port)), TIMEOUT).close()
    except OSError as error:
        reason = error.strerror or error
        raise NotReady(f"no Ray cluster at {address} ({reason}): make ray-head there") from None
    _authenticate(settings)
    # `ray.init` tries for 20 s and doesn't say why it fails.
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        found = GcsClient(address=address).get_all_node_info(timeout=TIMEOUT)
    except AuthenticationError:
        raise NotReady(
            f"the cluster at {address} has another token: copy RAY_SECRET_KEY from its head's .env"
        ) from None
    return {node.node_manager_address for node in found.values() if node.state == node.ALIVE}


def open_to_all(address: str) -> bool:
    """Tell whether the cluster answers somebody without a token."""
    asking = "import ray._raylet, sys; ray._raylet.GcsClient(sys.argv[1]).get_all_node_info(5)"
    stranger = os.environ | {"RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", asking, address]
    return subprocess.run(command, env=stranger, capture_output=True, check=False).returncode == 0


def address_towards(address: str) -> str:
    """Return this machine's address as the host of ``address`` sees it; sends nothing."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))
        return str(probe.getsockname()[0])


def _authenticate(settings: Settings) -> None:
    if not settings.ray_secret_key:
        raise NotReady("RAY_SECRET_KEY is not set: make setup")
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = settings.ray_secret_key
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def _pack(folder: Path, job: Job) -> None:
    """Write what the workers unpack: the code, the data set's pointer, where both come from."""
    from src.training.provenance import ORIGIN, git_commit

    for name in ("src", "configs", "reports/templates"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    pointer = folder / versioning.POINTER.relative_to(ROOT)
    pointer.parent.mkdir()
    shutil.copy(versioning.POINTER, pointer)
    # Read on import: other code of that name must find the same data set in use.
    if SET.name != sets.LAB:
        sets.write_record(sets.Record(in_use=SET.name), folder / ".stack" / sets.RECORD.name)
    origin = {
        "git_commit": git_commit(),
        "servers": [job.settings.zenml_url, job.settings.mlflow_url, job.settings.store_url],
        "inputs": job.inputs.model_dump(mode="json"),
    }
    (folder / ORIGIN.name).write_text(json.dumps(origin, indent=2) + "\n")


def _assignment(job: Job, tags: list[str]) -> Assignment:
    import ray

    hidden = {
        name: ""
        for name in Settings.model_fields
        if name.endswith(("_password", "_secret_key", "_encryption_key"))
        and name not in WORKERS_SECRETS
    }
    weights = [ray.put(Path(job.inputs.model).read_bytes())] if job.inputs.pretrained else []
    return Assignment(
        settings=job.settings.model_copy(update=hidden),
        api_key=job.settings.api_key,
        inputs=job.inputs,
        weights=weights,
        dataset_md5=job.dataset_md5,
        force=job.force,
        tags=tags,
    )


def _mark(name: str, how: str) -> None:
    """Mark a run that could not do so itself; what was not begun, or has completed, stays."""
    from zenml.enums import ExecutionStatus

    from src.zenml_pipelines.recovery import mark_ended

    mark_ended(name, ExecutionStatus[how], "KILLED" if how == "STOPPED" else how)


def _work(cell: Cell, name: str, assignment: Assignment, board: Any) -> Outcome:
    """Run one cell in a worker process."""
    import ray

    stopping = board.stopping.remote()

    def report(run_name: str, epoch: int, epochs: int, values: dict[str, Any]) -> None:
        board.report.remote(Epoch(run_name, epoch, epochs, values["mAP50"]))

    def run() -> Finished:
        _prepare(assignment)
        from src.training.trainer import WATCH
        from src.zenml_pipelines.yolo_training_pipeline import run_cell

        WATCH.node = ray.util.get_node_ip_address()
        WATCH.on_epoch = report
        WATCH.stopped = lambda: bool(ray.wait([stopping], timeout=0)[0])
        return run_cell(
            cell,
            assignment.inputs,
            assignment.dataset_md5,
            force=assignment.force,
            tags=assignment.tags,
            name=name,
        )

    return outcome_of(run)


def _prepare(assignment: Assignment) -> None:
    """Give the unpacked code settings, weights, data and a ZenML stack; what is there, stays."""
    give(assignment.settings, assignment.api_key)
    with (ROOT / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process of this node at a time
        with abandoned(assignment.settings):
            pass  # deletes what killed processes left here; the driver has marked their runs
        _place_inputs(assignment)
        versioning.bring(assignment.settings)
        from zenml.client import Client

        from src.bootstrap.zenml_state import STACK

        if Client().active_stack_model.name != STACK:
            Client().activate_stack(STACK)


def _place_inputs(assignment: Assignment) -> None:
    """Record the settled inputs with the checkpoint's place here, where ``settle`` finds them."""
    import ray

    inputs = assignment.inputs
    if inputs.pretrained:
        place = DOWNLOADS / f"{inputs.weights_sha256[:8]}-{inputs.weights_name}"
        if not place.is_file():
            private_folder(place.parent)
            partial = place.with_suffix(".part")
            partial.write_bytes(ray.get(assignment.weights[0]))
            if checkpoints.keep(partial) != inputs.weights_sha256:
                raise InputsError("the weights did not arrive as they were sent: try again")
            partial.replace(place)
        inputs = inputs.model_copy(update={"weights": str(place)})
    write_private(record_of(inputs.dataset), inputs.model_dump_json(indent=2) + "\n")


def main() -> None:
    """Prove that the cluster at the address takes this checkout's token."""
    alive_nodes(sys.argv[1], load_settings())


if __name__ == "__main__":
    sys.exit(run_command(main))
