"""The cluster's driver: what it refuses, what it sends, and what a worker makes of it."""

import asyncio
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from src import client
from src import settings as settings_module
from src.datasets import versioning
from src.files import write_private
from src.inputs import SCRATCH, Inputs, InputsError
from src.settings import ROOT, Settings, load_settings
from src.zenml_pipelines import cluster
from src.zenml_pipelines.cluster import Assignment, Board
from src.zenml_pipelines.command_line import Job, NotReady
from src.zenml_pipelines.outcome import Epoch

MakeSettings = Callable[..., Settings]
HEAD, OTHER = "192.0.2.10", "192.0.2.11"


def inputs(weights: str = SCRATCH, digest: str = SCRATCH) -> Inputs:
    return Inputs(
        settled_for=("synthetic", weights, "file:///none"),
        dataset="synthetic",
        weights=weights,
        weights_sha256=digest,
        notices=[],
    )


def job(settings: Settings, settled: Inputs | None = None, address: str = f"{HEAD}:6379") -> Job:
    return Job(settings, settled or inputs(), "0123.dir", {}, False, ray_address=address)


@pytest.fixture
def cluster_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that says which machine this is and which ones the cluster has."""

    def make(here: str, nodes: set[str], open_to_all: bool = False) -> None:
        monkeypatch.setattr(cluster, "address_towards", lambda address: here)
        monkeypatch.setattr(cluster, "alive_nodes", lambda address, settings: nodes)
        monkeypatch.setattr(cluster, "open_to_all", lambda address: open_to_all)

    return make


class TestRefusals:
    @pytest.mark.parametrize("address", ["", "auto", "head", "head:", "ray://head:6379/x"])
    def test_an_address_is_a_host_and_a_port(self, settings: Settings, address: str) -> None:
        with pytest.raises(NotReady, match="write host:port"):
            cluster.alive_nodes(address, settings)

    def test_nobody_listens(self, settings: Settings) -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{held.getsockname()[1]}"
            with pytest.raises(NotReady, match=r"no Ray cluster at .*: make ray-head"):
                cluster.alive_nodes(address, settings)

    def test_a_machine_outside_is_told_how_to_join(
        self, settings: Settings, cluster_of: Callable[..., None]
    ) -> None:
        cluster_of("192.0.2.99", {HEAD})
        with pytest.raises(NotReady, match=f"make ray-worker RAY_ADDRESS={HEAD}:6379"):
            cluster.connect(job(settings))

    def test_a_cluster_without_a_token_gets_no_secrets(
        self, settings: Settings, cluster_of: Callable[..., None]
    ) -> None:
        cluster_of(HEAD, {HEAD}, open_to_all=True)
        with pytest.raises(NotReady, match="asks nobody for a token"):
            cluster.connect(job(settings))

    def test_servers_that_others_cannot_reach(
        self, settings: Settings, cluster_of: Callable[..., None]
    ) -> None:
        cluster_of(HEAD, {HEAD, OTHER})
        with pytest.raises(NotReady, match=f"{OTHER} can't reach them: set BIND_ADDRESS"):
            cluster.connect(job(settings))


def test_the_machines_own_address_is_that_of_the_way_there() -> None:
    assert cluster.address_towards("127.0.0.1:6379") == "127.0.0.1"


def test_the_board_hands_on_epochs_once_and_the_wish_to_stop() -> None:
    async def story() -> None:
        board, epoch = Board(), Epoch("run", 1, 3, 0.5)
        stopping = asyncio.ensure_future(board.stopping())
        await board.report(epoch)
        assert await board.take() == [epoch]
        assert await board.take() == []
        assert not stopping.done()
        await board.stop()
        await asyncio.wait_for(stopping, 1)

    asyncio.run(story())


def test_the_package_holds_code_and_origin_but_no_setting_or_data(
    tmp_path: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, package = tmp_path / "checkout", tmp_path / "package"
    for name in (
        "src/a.py",
        "src/__pycache__/a.pyc",
        "configs/grid.yaml",
        "reports/templates/style.css",
        ".env",
        ".stack/x",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (root / "data/tiny_person").mkdir(parents=True)
    (root / "data/tiny_person.dvc").write_text("outs:\n- md5: 0123.dir\n")
    package.mkdir()
    monkeypatch.setattr(cluster, "ROOT", root)
    monkeypatch.setattr(versioning, "POINTER", root / "data/tiny_person.dvc")
    settings = make_settings(bind_address=HEAD)
    cluster._pack(package, job(settings))
    packed = {str(file.relative_to(package)) for file in package.rglob("*") if file.is_file()}
    assert packed == {
        "src/a.py",
        "configs/grid.yaml",
        "reports/templates/style.css",
        "data/tiny_person.dvc",
        "origin.json",
    }
    text = (package / "origin.json").read_text()
    assert settings.mlflow_url in json.loads(text)["servers"]
    for name, value in settings.model_dump().items():
        if name.endswith(("_password", "_secret_key", "_encryption_key")):
            assert value not in text


def test_workers_are_given_the_secrets_that_they_use_only(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings_module, "STATE", tmp_path)
    write_private(settings.api_key_file, "ZENKEY_1\n")
    given = cluster._assignment(job(settings), ["tag"])
    assert given.api_key == "ZENKEY_1"
    held = {
        name
        for name, value in given.settings.model_dump().items()
        if name.endswith(("_password", "_secret_key", "_encryption_key")) and value
    }
    assert held == {"mlflow_admin_password", "dvc_s3_secret_key"}


class TestWorker:
    @pytest.fixture(autouse=True)
    def _folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(cluster, "DOWNLOADS", tmp_path / "downloads")
        monkeypatch.setattr("src.inputs.RECORD", tmp_path / "inputs.json")
        monkeypatch.setattr("ray.get", lambda reference: reference)
        self.folder = tmp_path
        yield

    def place(self, settings: Settings, settled: Inputs, *content: bytes) -> Inputs:
        weights: list[Any] = list(content)
        given = Assignment(settings, "ZENKEY_1", settled, weights, "0123.dir", False, [])
        cluster._place_inputs(given)
        return Inputs.model_validate_json((self.folder / "inputs.json").read_text())

    def test_weights_keep_their_name_and_content(self, settings: Settings) -> None:
        digest = hashlib.sha256(b"weights").hexdigest()
        sent = inputs("/home/somebody/my-yolo.pt", digest)
        placed = self.place(settings, sent, b"weights")
        assert Path(placed.weights).read_bytes() == b"weights"
        assert Path(placed.weights).is_relative_to(self.folder)
        assert placed.settled_for == sent.settled_for

    def test_weights_that_arrive_broken_are_refused(self, settings: Settings) -> None:
        with pytest.raises(InputsError, match="did not arrive"):
            self.place(settings, inputs("/x/yolo.pt", "0" * 64), b"broken")
        assert not list((self.folder / "downloads").glob("*.pt"))

    def test_training_from_scratch_needs_no_weights(self, settings: Settings) -> None:
        assert not self.place(settings, inputs()).pretrained


def test_a_process_without_a_file_uses_the_settings_that_it_was_given(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings_module, "STATE", tmp_path)
    monkeypatch.setattr(settings_module, "_given", None)
    monkeypatch.setattr("os.environ", {"PATH": "/bin"})
    client.give(settings, "ZENKEY_1")
    assert load_settings(env_file=tmp_path / "none") is settings
    import os

    assert os.environ["ZENML_STORE_API_KEY"] == "ZENKEY_1"


MIXED = """
import json, sys, tempfile
import ray
from ray.cluster_utils import Cluster
from src.zenml_pipelines import cluster

nodes = Cluster()
nodes.add_node(num_cpus=1, num_gpus=1, include_dashboard=False)
nodes.add_node(num_cpus=2, num_gpus=0, resources={cluster.ON_CPU: 2})
ray.init(nodes.address, logging_level="ERROR", log_to_driver=False)
nodes.wait_for_nodes()

@ray.remote
class Together:
    def __init__(self): self.came = []
    def come(self, node): self.came.append(node)
    def all(self): return self.came

together = Together.options(num_cpus=0).remote()

@ray.remote
def cell(together):
    import os, time
    here = ray.get_runtime_context().get_node_id()
    ray.get(together.come.remote(here))
    while len(ray.get(together.all.remote())) < 3:  # all three at once
        time.sleep(0.05)
    return here, os.environ.get("CUDA_VISIBLE_DEVICES", "")

resources, taken, running = ray.cluster_resources(), [], []
for _ in range(3):
    taken.append(cluster.place(resources, taken))
    running.append(cell.options(num_cpus=1, **cluster.needs(taken[-1])).remote(together))
ended = ray.get(running, timeout=60)
print(json.dumps({"offered": cluster.offered(resources), "taken": taken, "ended": ended,
                  "next": cluster.place(resources, taken)}))
"""


def test_a_cluster_in_which_some_nodes_have_gpus_uses_the_others_too(tmp_path: Path) -> None:
    """Ray's own nodes; a GPU is what a node says that it has."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    # Ray's sockets lie deep, and a path to one is short.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        environment |= {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
        done = subprocess.run(
            [sys.executable, "-c", MIXED], cwd=ROOT, env=environment, capture_output=True,
            text=True, timeout=180, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["offered"] == {"GPU": 1, "cell_on_cpu": 2}
    assert told["taken"] == ["GPU", "cell_on_cpu", "cell_on_cpu"]
    (gpu, shown), (one, none), (other, nothing) = told["ended"]
    assert one == other != gpu
    assert (shown, none, nothing) == ("0", "", "")
    assert told["next"] == "cell_on_cpu"


@pytest.mark.parametrize(
    ("resources", "taken", "place"),
    [
        ({"CPU": 4, "cell_on_cpu": 4}, [], "cell_on_cpu"),
        ({"CPU": 2, "GPU": 2}, ["GPU"], "GPU"),
        ({"CPU": 2, "GPU": 2}, ["GPU", "GPU"], "GPU"),
        ({"CPU": 4, "GPU": 1, "cell_on_cpu": 3}, ["GPU"], "cell_on_cpu"),
        ({"CPU": 4, "GPU": 1, "cell_on_cpu": 3}, ["cell_on_cpu"], "GPU"),
        ({}, [], "GPU"),  # the last node has gone: Ray waits for another
    ],
)
def test_a_cell_takes_a_gpu_that_is_free(
    resources: dict[str, float], taken: list[str], place: str
) -> None:
    assert cluster.place(resources, taken) == place
