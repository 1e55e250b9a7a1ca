"""Nobody gets in: what a running stack refuses, each with a row in docs/security.md.

First on loopback, then on an address of this machine that others can reach, with a real browser.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psutil
import pytest
import requests
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from PIL import Image

from tests.chromium import CHROMIUM, chromium, sign_in
from tests.e2e.conftest import Checkout
from tests.e2e.servers import MLflow, ZenML

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = pytest.mark.e2e

NAME, EVIL = "mlops.test", "evil.test"
SECRETS = ("_PASSWORD", "_SECRET_KEY", "_ENCRYPTION_KEY")
REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
POISON = "a file that lies outside of every bucket: root:x:0:0"


@pytest.fixture(scope="module", autouse=True)
def stack(checkout: Checkout) -> None:
    checkout.make("stack")


@pytest.fixture(scope="module")
def address() -> str:
    """An address of this machine that others can reach."""
    for addresses in psutil.net_if_addrs().values():
        for held in addresses:
            if held.family == socket.AF_INET and not held.address.startswith(("127.", "169.254.")):
                return held.address
    pytest.skip("this machine has no address but loopback")


@pytest.fixture(scope="module")
def wide(checkout: Checkout, address: str) -> str:
    """The stack on that address, and under a name; the tests above ran on loopback."""
    checkout.variables |= {"BIND_ADDRESS": address, "HOST_NAMES": NAME}
    checkout.make("stack")
    return address


def port(checkout: Checkout, name: str) -> int:
    return int(checkout.variables[name])


# --- Ports ----------------------------------------------------------------------------------------


def listeners(checkout: Checkout) -> set[str]:
    """The addresses on which this checkout's services listen."""
    ports = {int(v) for k, v in checkout.variables.items() if k.endswith("_PORT")}
    pids = {
        child.pid
        for process in checkout.processes()
        for child in (process, *process.children(recursive=True))
    }
    return {
        found.laddr.ip
        for found in psutil.net_connections("tcp")
        if found.status == psutil.CONN_LISTEN and (found.laddr.port in ports or found.pid in pids)
    }


def test_every_port_is_on_loopback_only(checkout: Checkout, address: str) -> None:
    assert listeners(checkout) == {"127.0.0.1"}
    for name in ("ZENML_PORT", "MLFLOW_PORT", "MINIO_PORT"):
        with socket.socket() as caller:
            caller.settimeout(2)
            assert caller.connect_ex((address, port(checkout, name))) != 0, name


# --- The object store -----------------------------------------------------------------------------


@pytest.mark.parametrize("keys", ["none", "unknown", "wrong secret", "another user's"])
def test_s3_is_refused_without_the_right_keys(checkout: Checkout, keys: str) -> None:
    s = checkout.settings
    access, secret = {
        "none": ("", ""),
        "unknown": ("nobody", "no-secret-at-all"),
        "wrong secret": (s["MLFLOW_S3_ACCESS_KEY"], "no-secret-at-all"),
        "another user's": (s["DVC_S3_ACCESS_KEY"], s["DVC_S3_SECRET_KEY"]),
    }[keys]
    client = boto3.client(
        "s3",
        endpoint_url=f"http://localhost:{port(checkout, 'MINIO_PORT')}",
        region_name="us-east-1",
        aws_access_key_id=access or None,
        aws_secret_access_key=secret or None,
        config=Config(signature_version=UNSIGNED) if not access else None,
    )
    bucket = s["MLFLOW_BUCKET"]
    calls = {
        "list_objects_v2": {},
        "get_object": {"Key": "a"},
        "put_object": {"Key": "a", "Body": b""},
        "delete_object": {"Key": "a"},
        "delete_objects": {"Delete": {"Objects": [{"Key": "a"}]}},
        "get_bucket_policy": {},
        "delete_bucket": {},
    }
    for call, arguments in calls.items():
        with pytest.raises(ClientError) as refusal:
            answer = getattr(client, call)(Bucket=bucket, **arguments)
            # A bulk deletion is refused key by key.
            assert {error["Code"] for error in answer["Errors"]} <= REFUSED
            raise ClientError({"ResponseMetadata": {"HTTPStatusCode": 403}}, call)
        assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403, call


def test_s3_users_are_no_administrators(checkout: Checkout) -> None:
    from minio.credentials import StaticProvider
    from minio.error import MinioAdminException
    from minio.minioadmin import MinioAdmin

    s = checkout.settings
    admin = MinioAdmin(
        endpoint=f"localhost:{port(checkout, 'MINIO_PORT')}",
        credentials=StaticProvider(s["ZENML_S3_ACCESS_KEY"], s["ZENML_S3_SECRET_KEY"]),
        secure=False,
    )
    for call in (admin.user_list, admin.policy_list, lambda: admin.user_add("evil", "evil-secret")):
        with pytest.raises(MinioAdminException, match="AccessDenied"):
            call()


# --- ZenML ----------------------------------------------------------------------------------------


def test_zenml_is_refused_without_a_token_and_with_a_revoked_key(checkout: Checkout) -> None:
    zenml = ZenML(checkout)
    for headers in ({}, {"Authorization": "Bearer none"}):
        for path in ("current-user", "secrets", "runs?project=default", "artifact_versions"):
            answer = requests.get(f"{zenml.url}/{path}", headers=headers, timeout=30)
            assert answer.status_code == 401, path
    account = zenml.http.post(
        f"{zenml.url}/service_accounts", json={"name": "revoked", "active": True}, timeout=30
    ).json()
    keys = f"{zenml.url}/service_accounts/{account['id']}/api_keys"
    key = zenml.http.post(keys, json={"name": "key"}, timeout=30).json()

    def login() -> requests.Response:
        form = {"password": key["body"]["key"], "grant_type": "zenml-api-key"}
        return requests.post(f"{zenml.url}/login", data=form, timeout=30)

    token = {"Authorization": f"Bearer {login().json()['access_token']}"}
    assert requests.get(f"{zenml.url}/current-user", headers=token, timeout=30).ok
    zenml.http.delete(f"{keys}/{key['id']}", timeout=30).raise_for_status()
    assert login().status_code == 401
    for path in ("current-user", "secrets"):
        answer = requests.get(f"{zenml.url}/{path}", headers=token, timeout=30)
        assert answer.status_code == 401, path


# --- MLflow: hosts and origins --------------------------------------------------------------------

CHANGES = [
    ("POST", "/api/2.0/mlflow/experiments/create"),
    ("POST", "/ajax-api/2.0/mlflow/experiments/create"),
    ("POST", "/ajax-api/2.0/mlflow/runs/delete"),
    ("PATCH", "/api/2.0/mlflow/registered-models/update"),
    ("DELETE", "/api/2.0/mlflow/registered-models/delete"),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/evil"),
    ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/evil"),
    ("POST", "/ajax-api/2.0/mlflow/upload-artifact"),
    ("POST", "/ajax-api/3.0/jobs"),
    ("POST", "/ajax-api/3.0/mlflow/assistant/message"),
]
FOREIGN_ORIGINS = [
    "http://evil.test",
    "null",
    "http://localhost.evil.test",
    "https://127.0.0.1.evil",
]


def refuses_other_hosts_and_origins(mlflow: MLflow, *foreign: str) -> None:
    read = "/api/2.0/mlflow/experiments/search?max_results=1"
    for host in ("evil.test", f"evil.test:{mlflow.url.rsplit(':', 1)[1]}", "localhost.evil.test:1"):
        for path in ("/", read, "/static-files/index.html"):
            answer = requests.get(
                f"{mlflow.url}{path}", headers={"Host": host}, auth=mlflow.auth, timeout=30
            )
            assert answer.status_code == 403, (host, path)
            assert "DNS rebinding" in answer.text
    for origin in (*FOREIGN_ORIGINS, *foreign):
        headers = {"Origin": origin, "Content-Type": "text/plain"}  # asks for no preflight
        for method, path in CHANGES:
            answer = requests.request(
                method,
                f"{mlflow.url}{path}",
                headers=headers,
                data=json.dumps({"name": "evil"}),
                auth=mlflow.auth,
                timeout=30,
            )
            assert answer.status_code == 403, (origin, method, path)
        answer = requests.get(
            f"{mlflow.url}{read}", headers={"Origin": origin}, auth=mlflow.auth, timeout=30
        )
        assert "Access-Control-Allow-Origin" not in answer.headers, origin
        for path in ("/v1/traces", "/gateway/evil/mlflow/invocations"):  # outside of MLflow's check
            asked = {
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type,x-mlflow-experiment-id",
            }
            preflight = requests.options(f"{mlflow.url}{path}", headers=asked, timeout=30)
            assert "Access-Control-Allow-Origin" not in preflight.headers, (origin, path)


def test_mlflow_refuses_other_hosts_and_origins_on_loopback(checkout: Checkout) -> None:
    refuses_other_hosts_and_origins(MLflow(checkout))


def test_mlflow_lets_other_ports_of_localhost_through(checkout: Checkout) -> None:
    """What docs/security.md admits: MLflow's own rule, which no option changes."""
    mlflow = MLflow(checkout)
    answer = requests.get(
        f"{mlflow.url}/api/2.0/mlflow/experiments/search?max_results=1",
        headers={"Origin": "http://localhost:1"},
        timeout=30,
    )
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:1"


# --- MLflow: its published CVEs -------------------------------------------------------------------


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that the server natively could read, were it to follow a path."""
    file = tmp_path_factory.mktemp("outside") / "secret.txt"
    file.write_text(POISON)
    return file


@pytest.fixture(scope="module")
def run_id(checkout: Checkout) -> str:
    run = MLflow(checkout).post("runs/create", experiment_id="0", run_name="refusals")
    return str(run["run"]["info"]["run_id"])


PATHS = [  # CVE-2023-1177, -2356, -2780, -6018, -6831, -6909; 2024-1558, -1560, -1594, -3848
    "../../../../../../../..{file}",
    "..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{encoded}",
    "%252e%252e%252f%252e%252e%252f%252e%252e%252f%252e%252e%252f%252e%252e{double}",
    "..\\..\\..\\..\\..\\..\\..\\..{file}",
    "a;/../../../../../../../..{file}",
    "{file}",
    "/{file}",
    "%2f{file}",
    "file://{file}",
    "a/#/../../../../../../../..{file}",
    "a?/../../../../../../../..{file}",
]
PLACES = [
    "/api/2.0/mlflow-artifacts/artifacts/{path}",
    "/ajax-api/2.0/mlflow-artifacts/artifacts/{path}",
    "/api/2.0/mlflow-artifacts/artifacts?path={path}",
    "/get-artifact?run_uuid={run}&path={path}",
    "/ajax-api/2.0/mlflow/get-trace-artifact?request_id={path}&path={path}",
    "/ajax-api/2.0/mlflow/artifacts/list?run_id={run}&path={path}",
    "/static-files/{path}",
]


def raw(mlflow: MLflow, method: str, path: str, body: bytes = b"") -> str:
    """Send a request whose path nobody normalises, and return the whole answer."""
    host, port = mlflow.url.removeprefix("http://").split(":")
    request = (
        f"{method} {path} HTTP/1.0\r\nHost: localhost:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(request.encode() + body)
        answer = b""
        while block := connection.recv(65536):
            answer += block
    return answer.decode(errors="replace")


@pytest.mark.parametrize("place", PLACES)
def test_no_path_leads_out_of_mlflows_artifacts(
    checkout: Checkout, secret_file: Path, run_id: str, place: str
) -> None:
    mlflow = MLflow(checkout)
    for form in PATHS:
        file = str(secret_file)
        path = form.format(
            file=file, encoded=file.replace("/", "%2f"), double=file.replace("/", "%252f")
        )
        answer = raw(mlflow, "GET", place.format(path=path.replace(" ", "%20"), run=run_id))
        assert POISON not in answer, path
        assert f'"{secret_file.name}"' not in answer, path  # in a listing
    for method in ("PUT", "DELETE"):
        raw(mlflow, method, f"/api/2.0/mlflow-artifacts/artifacts/..%2f..%2f..{secret_file}", b"x")
        assert secret_file.read_text() == POISON


SOURCES = [  # CVE-2023-1177, -6975, -6977; 2024-1483, -2928, -3573, -4263; 2025-11201; 2026-2614
    "file://{folder}",
    "file:///{folder}",
    "file://localhost{folder}",
    "{folder}",
    "FILE://{folder}",
    "mlflow-artifacts:/../../../..{folder}",
    "mlflow-artifacts://localhost/..%2f..%2f..{folder}",
    "http:///#/../../../../../..{folder}",
    "http:///?/../../../../../..{folder}",
    "dbfs:/a/?/../../../..{folder}",
    "runs:/{run}/../../../../../..{folder}",
    "models:/evil/1/../../../..{folder}",
    "s3://{folder}/#/../../../..",
    "sftp://localhost{folder}",
]


@pytest.mark.parametrize("prompt", [False, True], ids=["model", "prompt"])
def test_no_registered_source_reads_the_servers_files(
    checkout: Checkout, secret_file: Path, run_id: str, prompt: bool
) -> None:
    mlflow = MLflow(checkout)
    name = f"evil-{'prompt' if prompt else 'model'}"
    tags = [{"key": "mlflow.prompt.is_prompt", "value": "true"}] if prompt else []
    mlflow.post("registered-models/create", name=name)
    for form in SOURCES:
        source = form.format(folder=secret_file.parent, run=run_id)
        answer = requests.post(
            f"{mlflow.url}/api/2.0/mlflow/model-versions/create",
            json={"name": name, "source": source, "run_id": run_id, "tags": tags},
            timeout=30,
        )
        if not answer.ok:
            continue
        version = answer.json()["model_version"]["version"]
        got = requests.get(
            f"{mlflow.url}/model-versions/get-artifact",
            params={"name": name, "version": version, "path": secret_file.name},
            timeout=60,
        )
        assert POISON not in got.text, source
        assert got.status_code >= 400, source


def test_no_experiment_reads_or_writes_the_servers_files(
    checkout: Checkout, secret_file: Path
) -> None:
    """CVE-2024-1594, -3848, -8859 and 2023-6940: through an experiment's artifact location."""
    mlflow = MLflow(checkout)
    for number, form in enumerate(SOURCES):
        answer = requests.post(
            f"{mlflow.url}/api/2.0/mlflow/experiments/create",
            json={
                "name": f"evil {number}",
                "artifact_location": form.format(folder=secret_file.parent, run="1"),
            },
            timeout=30,
        )
        if not answer.ok:
            continue
        run = mlflow.post("runs/create", experiment_id=answer.json()["experiment_id"])
        uuid = run["run"]["info"]["run_id"]
        for path in (secret_file.name, f"../../{secret_file.name}"):
            got = requests.get(
                f"{mlflow.url}/get-artifact", params={"run_uuid": uuid, "path": path}, timeout=60
            )
            assert POISON not in got.text, form
        requests.post(
            f"{mlflow.url}/ajax-api/2.0/mlflow/upload-artifact",
            params={"run_uuid": uuid, "path": "written.txt"},
            data=b"evil",
            timeout=60,
        )
    written = [file.name for file in secret_file.parent.rglob("*")]
    assert written == [secret_file.name]


class Listener(http.server.BaseHTTPRequestHandler):
    """An address inside that a server must not be sent to."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(POISON.encode())

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def inside() -> Iterator[str]:
    Listener.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_mlflow_is_sent_to_no_address_inside(checkout: Checkout, inside: str, run_id: str) -> None:
    """CVE-2023-6974, 2024-7804's kind, 2026-2393: webhooks, the gateway, sources and locations."""
    mlflow = MLflow(checkout)
    hook = {
        "name": "evil",
        "url": f"{inside}/hook",
        "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}],
    }
    refused = requests.post(f"{mlflow.url}/api/2.0/mlflow/webhooks", json=hook, timeout=30)
    assert refused.status_code == 400
    mlflow.post("registered-models/create", name="triggers-webhooks")
    requests.post(
        f"{mlflow.url}/ajax-api/2.0/mlflow/gateway-proxy",
        json={"gateway_path": f"{inside}/proxy", "json_data": {}},
        timeout=30,
    )
    mlflow.post("registered-models/create", name="evil-address")
    created = requests.post(
        f"{mlflow.url}/api/2.0/mlflow/model-versions/create",
        json={"name": "evil-address", "source": f"{inside}/model", "run_id": run_id},
        timeout=30,
    )
    if created.ok:
        requests.get(
            f"{mlflow.url}/model-versions/get-artifact",
            params={"name": "evil-address", "version": "1", "path": "a"},
            timeout=60,
        )
    place = requests.post(
        f"{mlflow.url}/api/2.0/mlflow/experiments/create",
        json={"name": "evil address", "artifact_location": f"{inside}/place"},
        timeout=30,
    )
    if place.ok:
        run = mlflow.post("runs/create", experiment_id=place.json()["experiment_id"])
        for path in (
            "/get-artifact?run_uuid={0}&path=a",
            "/ajax-api/2.0/mlflow/artifacts/list?run_id={0}",
        ):
            requests.get(mlflow.url + path.format(run["run"]["info"]["run_id"]), timeout=60)
    assert Listener.asked == []


# --- Files and secrets ----------------------------------------------------------------------------


def secrets(checkout: Checkout) -> list[str]:
    return [v for k, v in checkout.settings.items() if k.endswith(SECRETS) and len(v) >= 16]


def test_nothing_in_the_state_is_open_to_others(checkout: Checkout) -> None:
    """Docker's secrets are 0644 in a folder of 0700: each container's user must read them."""
    root = checkout.root
    assert stat.S_IMODE((root / ".stack").stat().st_mode) == 0o700
    found = [root / ".env", root / ".dvc" / "config.local", *(root / ".stack").rglob("*")]
    mounted = root / ".stack" / "docker" / "secrets"
    loose = [
        f"{file.relative_to(root)} {stat.S_IMODE(file.lstat().st_mode):o}"
        for file in found
        if not file.is_symlink()
        and file.parent != mounted
        and stat.S_IMODE(file.lstat().st_mode) & 0o077
    ]
    assert loose == []


def test_no_secret_stands_in_a_command_line_a_log_or_before_git(checkout: Checkout) -> None:
    known = secrets(checkout)
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        assert not [secret for secret in known if secret in line], process
    for log in (checkout.root / ".stack").rglob("*.log"):
        text = log.read_text(errors="replace")
        assert not [secret for secret in known if secret in text], log
    taken = checkout.run("git", "add", "--all", "--dry-run")
    for word in taken.splitlines():
        file = checkout.root / word.removeprefix("add '").removesuffix("'")
        if file.is_file():
            text = file.read_text(errors="replace")
            assert not [secret for secret in known if secret in text], file


def test_no_secret_stands_in_an_image_or_a_containers_description(checkout: Checkout) -> None:
    if checkout.variables["MODE"] != "docker":
        pytest.skip("natively there are no images")
    label = f"label=com.docker.compose.project={checkout.settings['COMPOSE_PROJECT_NAME']}"
    ids = checkout.run("docker", "ps", "--quiet", "--filter", label).split()
    described = checkout.run("docker", "inspect", *ids)
    images = {json.loads(described)[n]["Image"] for n in range(len(ids))}
    described += "".join(
        checkout.run("docker", "history", "--no-trunc", i) + checkout.run("docker", "inspect", i)
        for i in images
    )
    assert not [secret for secret in secrets(checkout) if secret in described]


def test_an_ordinary_local_user_gets_nothing(checkout: Checkout) -> None:
    """But MLflow on loopback, which trusts the machine's users: see the README."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    root = checkout.root
    wanted = [root / name for name in (".env", ".dvc/config.local", ".stack", ".stack/backend")]
    for process in checkout.processes():
        wanted += [
            Path(f"/proc/{process.pid}/{name}") for name in ("environ", "mem", "fd", "cwd/.env")
        ]
    assert len(wanted) > 4 or checkout.variables["MODE"] == "docker"
    look = 'for f in "$@"; do if [ -d "$f" ]; then ls -A "$f"; else head -c 99 "$f"; fi; done'
    opened = []  # the checkout's own modes are what counts, not those of the test's folders
    try:
        for folder in root.parents:
            mode = stat.S_IMODE(folder.stat().st_mode)
            if not mode & 0o001:
                folder.chmod(mode | 0o055)
                opened.append((folder, mode))
        mode = stat.S_IMODE(root.stat().st_mode)
        root.chmod(0o755)
        opened.append((root, mode))
        seen = subprocess.run(
            ["/bin/sh", "-c", look, "sh", *map(str, wanted), str(root / "README.md")],
            user="nobody",
            group="nogroup",
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for folder, mode in opened:
            folder.chmod(mode)
    assert seen.stdout == (root / "README.md").read_text()[:99]
    assert seen.stderr.count("ermission denied") >= len(wanted), seen.stderr


# --- Checkpoints ----------------------------------------------------------------------------------

LOADED = """
import json, ray, shutil, tempfile
from src.checkpoints import CheckpointError, load
def attempt():
    from src.checkpoints import CheckpointError, load
    try:
        load({file!r})
    except CheckpointError as error:
        return str(error)
short = tempfile.mkdtemp(dir="/tmp")  # a socket's path ends at 107 bytes
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
         _temp_dir=short)
said = {{"ray": ray.get(ray.remote(attempt).remote())}}
ray.shutdown()
shutil.rmtree(short)
from zenml.client import Client
from zenml.io import fileio
from src.zenml_steps.yolo_materializer import Checkpoint, YoloMaterializer
store = Client().active_stack.artifact_store
with fileio.open(store.path + "/evil/best.pt", "wb") as target:
    target.write(open({file!r}, "rb").read())
try:
    YoloMaterializer(store.path + "/evil", store).load(Checkpoint)
except CheckpointError as error:
    said["artifact store"] = str(error)
import mlflow
from mlflow import MlflowClient
from src.files import sha256
from pathlib import Path
mlflow.set_experiment("cv_yolo_tiny")
with mlflow.start_run(run_name="evil") as run:
    mlflow.log_param("imgsz", 64)
    mlflow.set_tag("trained_weights_sha256", sha256(Path({file!r})))
    Path("weights").mkdir(exist_ok=True)
    Path("weights/best.pt").write_bytes(Path({file!r}).read_bytes())
    mlflow.log_artifact("weights/best.pt", "weights")
client = MlflowClient()
client.create_registered_model("person-detector")
source = run.info.artifact_uri + "/weights"
version = client.create_model_version("person-detector", source, run.info.run_id)
client.set_registered_model_alias("person-detector", "champion", version.version)
print(json.dumps(said))
"""


class Poison:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch '{self.marker}'",))


def test_a_poisoned_checkpoint_is_refused_on_every_road(checkout: Checkout, tmp_path: Path) -> None:
    import torch

    marker, file = tmp_path / "ran", tmp_path / "it's evil.pt"
    torch.save({"model": Poison(marker)}, file)
    picture = tmp_path / "a.png"
    Image.new("RGB", (64, 64)).save(picture)
    said = checkout.python(LOADED.format(file=str(file)))
    assert isinstance(said, dict)
    served = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/it's%20evil.pt"
        roads = {
            "path": ["data", f"WEIGHTS={file}"],
            "address": ["data", f"WEIGHTS={address}"],
            "predict": ["predict", f"SOURCE={picture}"],
        }
        for road, words in roads.items():
            printed = checkout.make(*words, expect=2).splitlines()
            (said[road],) = [line for line in printed if line.startswith("error:")]
        server.shutdown()
    assert all("holds more than a YOLO model (posix.system)" in line for line in said.values()), (
        said
    )
    assert set(said) == {"ray", "artifact store", "path", "address", "predict"}
    assert not marker.exists()
    torch.load(file, weights_only=False)
    assert marker.exists()  # it would have


# --- Off loopback ---------------------------------------------------------------------------------


def test_off_loopback_only_the_named_address_is_listened_on(checkout: Checkout, wide: str) -> None:
    assert listeners(checkout) - {"127.0.0.1"} == {wide}


@pytest.mark.parametrize("password", ["none", "wrong"])
def test_mlflow_off_loopback_asks_for_a_password(
    checkout: Checkout, wide: str, password: str
) -> None:
    """CVE-2026-0545, -2652 and -2651: on its newer routes too."""
    mlflow = MLflow(checkout)
    auth = None if password == "none" else (mlflow.auth[0], "not-the-password")
    routes = [
        ("GET", "/"),
        ("POST", "/api/2.0/mlflow/experiments/search"),
        ("POST", "/graphql"),
        ("GET", "/get-artifact?path=a&run_uuid=1"),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/a"),
        ("POST", "/api/2.0/mlflow-artifacts/mpu/create/a"),
        ("POST", "/ajax-api/3.0/jobs"),
        ("POST", "/ajax-api/3.0/jobs/search"),
        ("POST", "/v1/traces"),
        ("POST", "/gateway/evil/mlflow/invocations"),
        ("POST", "/ajax-api/3.0/mlflow/assistant/message"),
        ("POST", "/api/2.0/mlflow/users/create"),
        ("GET", "/api/2.0/mlflow/users/get?username=admin"),
    ]
    for method, path in routes:
        answer = requests.request(method, f"{mlflow.url}{path}", auth=auth, json={}, timeout=30)
        assert answer.status_code in (401, 403), (method, path, answer.status_code)


def test_mlflow_refuses_other_hosts_and_origins_off_loopback(checkout: Checkout, wide: str) -> None:
    other = port(checkout, "ZENML_PORT")
    refuses_other_hosts_and_origins(
        MLflow(checkout), f"http://{wide}:{other}", f"http://{NAME}:{other}", f"http://{wide}"
    )


# --- In a browser ---------------------------------------------------------------------------------

ATTACK = """
async ([mlflow, zenml]) => {
  const seen = {};
  const attempt = async (name, url, options) => {
    try {
      const answer = await fetch(url, {credentials: 'include', ...options});
      seen[name] = answer.type === 'opaque' ? 'sent blindly' : 'read ' + answer.status;
    } catch (error) { seen[name] = 'blocked'; }
  };
  const body = JSON.stringify({name: 'evil from a page'});
  const plain = {method: 'POST', headers: {'Content-Type': 'text/plain'}, body};
  const typed = {method: 'POST', headers: {'Content-Type': 'application/json'}, body};
  const create = mlflow + '/ajax-api/2.0/mlflow/experiments/create';
  await attempt('mlflow plain', create, plain);
  await attempt('mlflow json', create, typed);
  await attempt('mlflow blind', create, {...plain, mode: 'no-cors'});
  await attempt('mlflow read', mlflow + '/ajax-api/2.0/mlflow/experiments/search?max_results=1');
  await attempt('mlflow trace', mlflow + '/v1/traces',
                {method: 'POST', headers: {'x-mlflow-experiment-id': '0'}, body});
  await attempt('zenml json', zenml + '/api/v1/projects', typed);
  await attempt('zenml plain', zenml + '/api/v1/projects', plain);
  await attempt('zenml blind', zenml + '/api/v1/projects', {...plain, mode: 'no-cors'});
  await attempt('zenml read', zenml + '/api/v1/current-user');
  await attempt('zenml delete', zenml + '/api/v1/users/evil', {method: 'DELETE'});
  return seen;
}
"""


@pytest.fixture(scope="module")
def pages(checkout: Checkout, wide: str) -> Iterator[BrowserContext]:
    """Windows of a browser that knows MLflow's password, and both names of this machine."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    s, mlflow = checkout.settings, MLflow(checkout)
    mlflow.post("experiments/create", name="seen in a browser")
    with chromium(f"--host-resolver-rules=MAP {NAME} {wide}, MAP {EVIL} {wide}") as browser:
        context = browser.new_context(
            http_credentials={
                "username": s["MLFLOW_ADMIN_USERNAME"],
                "password": s["MLFLOW_ADMIN_PASSWORD"],
            }
        )
        context.set_default_timeout(90_000)
        yield context


@pytest.mark.parametrize("host", ["address", "name"])
def test_the_pages_work_in_a_browser(
    checkout: Checkout, wide: str, pages: BrowserContext, host: str
) -> None:
    s = checkout.settings
    where = wide if host == "address" else NAME
    page = pages.new_page()
    refused: list[str] = []
    page.on("response", lambda r: refused.append(r.url) if r.status == 403 else None)
    page.goto(f"http://{where}:{port(checkout, 'MLFLOW_PORT')}/#/experiments")
    page.get_by_text("seen in a browser").first.wait_for(timeout=60_000)
    assert refused == []
    zenml = f"http://{where}:{port(checkout, 'ZENML_PORT')}"
    sign_in(page, zenml, s["ZENML_ADMIN_USERNAME"], s["ZENML_ADMIN_PASSWORD"])
    assert page.evaluate("fetch('/api/v1/current-user').then(answer => answer.status)") == 200
    assert refused == []
    page.close()


@pytest.mark.parametrize("host", ["another host", "another port of the same"])
def test_a_page_of_another_origin_changes_nothing(
    checkout: Checkout, wide: str, pages: BrowserContext, host: str
) -> None:
    mlflow, zenml = MLflow(checkout), ZenML(checkout)
    ports = (port(checkout, "MLFLOW_PORT"), port(checkout, "ZENML_PORT"))
    users, projects = zenml.get("users")["total"], zenml.get("projects")["total"]
    with http.server.ThreadingHTTPServer((wide, 0), Listener) as server:
        Listener.asked = []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        page = pages.new_page()
        page.goto(f"http://{EVIL if host == 'another host' else wide}:{server.server_port}/")
        seen = page.evaluate(ATTACK, [f"http://{wide}:{port}" for port in ports])
        page.close()
        server.shutdown()
    assert seen.pop("mlflow blind") == seen.pop("zenml blind") == "sent blindly"
    assert set(seen.values()) == {"blocked"}, seen
    assert "evil from a page" not in mlflow.runs()
    assert (zenml.get("users")["total"], zenml.get("projects")["total"]) == (users, projects)


def test_rebinding_a_name_to_the_server_gets_nothing(
    checkout: Checkout, wide: str, pages: BrowserContext
) -> None:
    page = pages.new_page()
    answer = page.goto(f"http://{EVIL}:{port(checkout, 'MLFLOW_PORT')}/")
    assert answer.status == 403
    # ZenML looks at no Host header, but its session belongs to the name it was begun under.
    page.goto(f"http://{EVIL}:{port(checkout, 'ZENML_PORT')}/")
    assert page.evaluate("fetch('/api/v1/current-user').then(answer => answer.status)") == 401
    page.close()
