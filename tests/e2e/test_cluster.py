"""A grid on two Ray nodes: each in a network namespace of its own, the servers on a third address.

The three addresses are joined by point-to-point links, so that nothing is forwarded and no setting
of this machine is touched. The second node can't see the first one's checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.e2e.conftest import Checkout, copy_checkout
from tests.e2e.servers import EXPERIMENT, MLflow, ZenML, pairs

pytestmark = pytest.mark.e2e

NET = f"198.18.{os.getpid() % 256}"  # set aside for tests of networks
SERVERS, HEAD, WORKER = f"{NET}.1", f"{NET}.2", f"{NET}.3"
ADDRESS = f"{HEAD}:6379"
SPACES = {HEAD: f"zcy{os.getpid()}a", WORKER: f"zcy{os.getpid()}b"}
CELLS = {"zenml_yolo_tiny_e1_32", "zenml_yolo_tiny_e2_32"}
REFUSED = """
import json, ray
try:
    ray.init({address!r}, logging_level="ERROR")
except ConnectionError:
    print(json.dumps("refused"))
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def pids(address: str) -> list[int]:
    listed = subprocess.run(
        ["ip", "netns", "pids", SPACES[address]], check=True, capture_output=True, text=True
    )
    return [int(pid) for pid in listed.stdout.split()]


def end_all(address: str) -> None:
    """Kill a node at once, as a power cut would."""
    for pid in pids(address):
        try:
            psutil.Process(pid).kill()
        except psutil.NoSuchProcess:
            continue


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    """Make the namespaces and their links; skip where that is not allowed."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need Linux, root and iproute2")
    head, worker = SPACES.values()
    try:
        ip("netns", "add", head)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
    try:
        ip("netns", "add", worker)
        links = [(SERVERS, HEAD, f"{head}0"), (SERVERS, WORKER, f"{worker}0")]
        for server, node, link in links:
            ip("link", "add", link, "type", "veth", "peer", "eth0", "netns", SPACES[node])
            ip("addr", "add", server, "peer", node, "dev", link)
            ip("link", "set", link, "up")
            ip("-n", SPACES[node], "addr", "add", node, "peer", server, "dev", "eth0")
        ip("-n", head, "link", "add", "eth1", "type", "veth", "peer", "eth1", "netns", worker)
        for node, other in ((HEAD, WORKER), (WORKER, HEAD)):
            ip("-n", SPACES[node], "addr", "add", node, "peer", other, "dev", "eth1")
            for link in ("lo", "eth0", "eth1"):
                ip("-n", SPACES[node], "link", "set", link, "up")
        yield
    finally:
        for address, space in SPACES.items():
            if Path("/run/netns", space).exists():
                end_all(address)
                ip("netns", "del", space)  # and with it the links


@dataclass
class Machine:
    """A checkout in a namespace."""

    checkout: Checkout
    address: str
    hidden: Path | None = None  # a folder that this machine doesn't have

    def command(self, *words: str) -> list[str]:
        inside = ["ip", "netns", "exec", SPACES[self.address]]
        if self.hidden is None:
            return [*inside, *words]
        hide = 'mount -t tmpfs none "$0" && exec "$@"'  # in the mount namespace that `ip` made
        return [*inside, "bash", "-c", hide, str(self.hidden), *words]

    def run(self, *words: str, expect: int = 0) -> str:
        return self.checkout.run(*self.command(*words), expect=expect, timeout=180)


@pytest.fixture(scope="module")
def head(checkout: Checkout, network: None) -> Iterator[Machine]:
    """The stack on the servers' address, and the cluster's head."""
    checkout.variables |= {
        "BIND_ADDRESS": SERVERS,
        "DATASET": "synthetic",
        "WEIGHTS": "scratch",
        "CPUS": "1",
    }
    base = "base:\n  batch: 16\n  seed: 0\n  optimizer: AdamW\n  lr0: 0.002\n"
    for name, epochs in {
        "grid_scratch": "[1, 2]",
        "long": "[4, 5]",
    }.items():
        grid = f"{base}grid:\n  epochs: {epochs}\n  imgsz: [32]\n"
        (checkout.root / f"configs/{name}.yaml").write_text(grid)
    checkout.make("data")
    machine = Machine(checkout, HEAD)
    machine.run("make", "ray-head", f"NODE_ADDRESS={HEAD}")
    yield machine
    machine.run("make", "ray-stop")


@pytest.fixture(scope="module")
def worker(head: Machine) -> Iterator[Machine]:
    """Another machine's checkout, which knows the head's address and token only."""
    root = head.checkout.root.parent / "worker"
    root.mkdir()
    copy_checkout(root)
    variables = {"VENV": head.checkout.variables["VENV"], "CPUS": "1"}
    machine = Machine(Checkout(root, head.checkout.home, variables), WORKER, head.checkout.root)
    machine.checkout.make("setup")
    yield machine
    machine.run("make", "ray-stop")
    shutil.rmtree(root)


@pytest.fixture
def mlflow(head: Machine) -> MLflow:
    return MLflow(head.checkout)


def start_grid(head: Machine, *words: str) -> subprocess.Popen[str]:
    command = head.command("make", "grid", f"RAY_ADDRESS={ADDRESS}", "FORCE=1", *words)
    return head.checkout.start(*command)


def ray_folder(machine: Machine) -> Path:
    code = "source scripts/lib/env.sh && source scripts/lib/ray.sh && ray_folder"
    return Path(machine.checkout.run("bash", "-c", code))


def of_cell(runs: list[dict[str, Any]], cell: str) -> dict[str, str]:
    """The status of a cell's runs by the node that they ran on."""
    return {
        pairs(run["data"]["tags"])["node"]: run["info"]["status"]
        for run in runs
        if run["info"]["run_name"] == cell
    }


def test_the_servers_answer_on_their_address_only_and_ask_for_a_password(head: Machine) -> None:
    port = head.checkout.variables["MLFLOW_PORT"]
    search = f":{port}/api/2.0/mlflow/experiments/search"
    answer = requests.post(f"http://{SERVERS}{search}", json={"max_results": 1}, timeout=10)
    assert answer.status_code == 401
    with pytest.raises(requests.ConnectionError):
        requests.post(f"http://127.0.0.1{search}", json={"max_results": 1}, timeout=10)


def test_who_lacks_the_token_is_refused(head: Machine, worker: Machine) -> None:
    joining = ("make", "ray-worker", f"RAY_ADDRESS={ADDRESS}")
    assert "has another token: copy RAY_SECRET_KEY" in worker.run(*joining, expect=2)
    variables = (f"RAY_SECRET_KEY={'0' * 32}", f"RAY_ADDRESS={ADDRESS}")
    assert "has another token" in head.run(
        "env", *variables, "scripts/run-pipeline.sh", "grid", expect=1
    )
    code = REFUSED.format(address=ADDRESS)
    assert '"refused"' in head.run(str(head.checkout.interpreter), "-c", code)


# What each of a node's ports serves, by Ray's own definitions (src/ray/protobuf).
RAY_METHODS = [
    "NodeInfoGcsService/GetAllNodeInfo",
    "InternalKVGcsService/InternalKVKeys",
    "NodeManagerService/GetNodeStats",
    "CoreWorkerService/GetCoreWorkerStats",
    "ObjectManagerService/Push",
    "ObjectManagerService/Pull",
]


def test_cells_run_on_both_nodes(head: Machine, worker: Machine, mlflow: MLflow) -> None:
    worker.checkout.set(RAY_SECRET_KEY=head.checkout.settings["RAY_SECRET_KEY"])
    worker.run("make", "ray-worker", f"RAY_ADDRESS={ADDRESS}")
    printed = head.run("make", "grid", f"RAY_ADDRESS={ADDRESS}")
    assert "2 cells, 2 side by side" in printed
    assert "zenml_yolo_tiny_e2_32: epoch 2/2, mAP50 " in printed
    runs = mlflow.runs()[EXPERIMENT]
    assert {run["info"]["run_name"] for run in runs} == CELLS
    assert {run["info"]["status"] for run in runs} == {"FINISHED"}
    tags = [pairs(run["data"]["tags"]) for run in runs]
    assert {tag["node"] for tag in tags} == {HEAD, WORKER}
    commit = head.checkout.run("git", "rev-parse", "HEAD").strip()
    assert {tag["git_commit"].split("+")[0] for tag in tags} == {commit}


def ray_ports(address: str) -> set[int]:
    """The ports that a node listens on, without the servers'; psutil sees this namespace's only."""
    shown = ["ip", "netns", "exec", SPACES[address], "ss", "-Htlnp"]
    found = set()
    for line in subprocess.check_output(shown, text=True).splitlines():
        pid = re.search(r"pid=(\d+)", line)
        assert pid is not None, line
        process = psutil.Process(int(pid[1]))
        server = process.name() == "juicefs" or "ZENML_CV_YOLO_CHECKOUT" in process.environ()
        if not server:
            found.add(int(line.split()[3].rpartition(":")[2]))
    return found


def test_no_port_of_a_node_answers_without_the_token(
    head: Machine, worker: Machine, tmp_path: Path
) -> None:
    curl = shutil.which("curl")
    if curl is None or "HTTP2" not in subprocess.check_output([curl, "--version"], text=True):
        pytest.skip("needs curl with HTTP/2")
    message = tmp_path / "empty.grpc"
    message.write_bytes(bytes(5))
    for machine in (head, worker):
        ports = ray_ports(machine.address)
        assert len(ports) >= 3
        denied = set()
        for port in ports:
            url = f"http://{machine.address}:{port}"
            plain = machine.command(curl, "-s", "-m", "3", "-w", "%{http_code}", url)
            said = subprocess.run(plain, capture_output=True, text=True, check=False).stdout
            assert said[-3:] in ("000", "401"), (port, said)
            for method in RAY_METHODS:
                call = machine.command(
                    *(curl, "-s", "-i", "-m", "3", "--http2-prior-knowledge", "-X", "POST"),
                    *("-H", "content-type: application/grpc", "-H", "te: trailers"),
                    *("--data-binary", f"@{message}", f"{url}/ray.rpc.{method}"),
                )
                said = subprocess.run(call, capture_output=True, text=True, check=False).stdout
                assert "grpc-status: 0" not in said, (port, method)
                if "InvalidAuthToken" in said:
                    denied.add(method)
        assert "NodeManagerService/GetNodeStats" in denied


def test_one_machine_finds_the_clusters_cells_in_the_cache(head: Machine, mlflow: MLflow) -> None:
    assert head.checkout.make("grid").count("(from the cache)") == len(CELLS)
    assert len(mlflow.runs()[EXPERIMENT]) == len(CELLS)


def test_a_dead_nodes_cell_is_finished_by_the_other(head: Machine, mlflow: MLflow) -> None:
    driver = start_grid(head, "GRID=configs/long.yaml")
    deadline = time.monotonic() + 120
    lost = None
    while lost is None:
        assert time.monotonic() < deadline
        assert driver.poll() is None
        for run in mlflow.runs()[EXPERIMENT]:
            on_worker = pairs(run["data"]["tags"]).get("node") == WORKER
            begun = "mAP50" in pairs(run["data"].get("metrics", []))
            if on_worker and begun and run["info"]["status"] == "RUNNING":
                lost = run["info"]["run_name"]
        time.sleep(0.5)
    end_all(WORKER)
    printed, _ = driver.communicate(timeout=180)
    assert driver.returncode == 0, printed
    assert f"{lost}: its node or process died; again" in printed
    runs = mlflow.runs()[EXPERIMENT]
    assert of_cell(runs, lost) == {WORKER: "FAILED", HEAD: "FINISHED"}
    assert "RUNNING" not in {run["info"]["status"] for run in runs}
    statuses = [run["body"]["status"] for run in ZenML(head.checkout).runs()]
    assert statuses.count("failed") == 1
    assert set(statuses) == {"completed", "failed"}


def test_ctrl_c_stops_the_cells_and_marks_their_runs(head: Machine, mlflow: MLflow) -> None:
    driver = start_grid(head, "EPOCHS=50", "IMGSZ=32")
    assert driver.stdout is not None
    for line in driver.stdout:
        if "epoch 1/50" in line:
            os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(timeout=60) != 0
    runs = mlflow.runs()[EXPERIMENT]
    assert of_cell(runs, "zenml_yolo_tiny_e50_32") == {HEAD: "KILLED"}
    assert "RUNNING" not in {run["info"]["status"] for run in runs}
    statuses = {run["body"]["status"] for run in ZenML(head.checkout).runs()}
    assert statuses == {"completed", "failed", "stopped"}


def test_no_secret_is_in_a_command_line_or_log(head: Machine, worker: Machine) -> None:
    secrets = {
        value
        for name, value in head.checkout.settings.items()
        if name.endswith(("_PASSWORD", "_SECRET_KEY", "_ENCRYPTION_KEY")) and value
    }
    for pid in pids(HEAD):
        line = " ".join(psutil.Process(pid).cmdline())
        assert not [secret for secret in secrets if secret in line]
    for machine in (head, worker):
        folder = ray_folder(machine)
        assert folder.stat().st_mode & 0o077 == 0
        logs = list(folder.glob("ray/session_*/logs/*"))
        assert len(logs) > 10
        for log in filter(Path.is_file, logs):
            text = log.read_text(errors="replace")
            assert not [secret for secret in secrets if secret in text], log


def test_stopped_nodes_leave_nothing(head: Machine, worker: Machine) -> None:
    for machine in (head, worker):
        machine.run("make", "ray-stop")
        assert "not running" in machine.run("make", "ray-stop")
        assert pids(machine.address) == []
        assert not (machine.checkout.root / ".stack/ray").exists()
        assert not ray_folder(machine).exists()
    assert list(head.checkout.home.iterdir()) == []
