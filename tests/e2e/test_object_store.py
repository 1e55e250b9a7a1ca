"""What the object store promises, each line of docs/object-store.md on both backends, and deletion.

What works here must go on to work. For what doesn't, the table says how it fails, and the test that
it fails so; where Docker's image does it as S3 does, nobody is worse off.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from typing import Any
from urllib.request import urlopen

import pytest
import requests
from botocore.exceptions import ClientError

from tests.e2e.conftest import ROOT, Checkout, either_backend
from tests.e2e.servers import Store

pytestmark = pytest.mark.e2e

DOCUMENT = ROOT / "docs" / "object-store.md"
BUCKET = "dvc-data"
S3 = Any  # boto3's clients have no types


@pytest.fixture(scope="module", autouse=True)
def stack(checkout: Checkout) -> None:
    checkout.make("stack")


@pytest.fixture(scope="module")
def s3(checkout: Checkout) -> S3:
    """The client of an ordinary user, DVC's."""
    return Store(checkout, "dvc").s3


def outcome(call: Callable[[], Any]) -> str:
    """``works``, or the status and code of the store's answer."""
    try:
        call()
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return f"{status} {error.response['Error']['Code']}"
    return "works"


# --- What works -----------------------------------------------------------------------------------


def objects(s3: S3) -> None:
    """Put, get, head, copy and delete; metadata, content type, tags; the MD5 as ETag."""
    put = s3.put_object(
        Bucket=BUCKET,
        Key="w/größe 漢 +&=?#%.txt",
        Body=b"12345",
        Metadata={"a": "b"},
        ContentType="text/x",
        Tagging="t=1",
    )
    assert put["ETag"] == f'"{hashlib.md5(b"12345", usedforsecurity=False).hexdigest()}"'
    s3.copy_object(
        Bucket=BUCKET, Key="w/copy", CopySource={"Bucket": BUCKET, "Key": "w/größe 漢 +&=?#%.txt"}
    )
    head = s3.head_object(Bucket=BUCKET, Key="w/copy")
    assert (head["Metadata"], head["ContentType"]) == ({"a": "b"}, "text/x")
    assert s3.get_object(Bucket=BUCKET, Key="w/copy")["Body"].read() == b"12345"
    s3.delete_object(Bucket=BUCKET, Key="w/copy")
    assert outcome(lambda: s3.get_object(Bucket=BUCKET, Key="w/copy")) == "404 NoSuchKey"
    s3.delete_object(Bucket=BUCKET, Key="w/copy")  # what is gone can be deleted


def ranges(s3: S3) -> None:
    """Ranges, and conditions on reading."""
    s3.put_object(Bucket=BUCKET, Key="w/range", Body=b"12345")
    read = s3.get_object(Bucket=BUCKET, Key="w/range", Range="bytes=1-2")
    assert read["Body"].read() == b"23"
    past = outcome(lambda: s3.get_object(Bucket=BUCKET, Key="w/range", Range="bytes=9-"))
    assert past == "416 InvalidRange"
    other = outcome(lambda: s3.get_object(Bucket=BUCKET, Key="w/range", IfMatch='"other"'))
    assert other == "412 PreconditionFailed"


def listings(s3: S3) -> None:
    """Listings: pages, prefixes, delimiters, start-after, in order."""
    keys = [f"w/list/{number // 5}/{number:02}" for number in range(25)]
    for key in keys:
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix="w/list/", PaginationConfig={"PageSize": 7}
    )
    assert [item["Key"] for page in pages for item in page["Contents"]] == keys
    folders = s3.list_objects_v2(Bucket=BUCKET, Prefix="w/list/", Delimiter="/")["CommonPrefixes"]
    assert [folder["Prefix"] for folder in folders] == [f"w/list/{n}/" for n in range(5)]
    rest = s3.list_objects_v2(Bucket=BUCKET, Prefix="w/list/", StartAfter="w/list/4/22")
    assert [item["Key"] for item in rest["Contents"]] == keys[-2:]


def multipart(s3: S3) -> None:
    """Uploads in parts: begun, listed, completed, aborted."""
    part = os.urandom(5 << 20)
    where = {"Bucket": BUCKET, "Key": "w/parts"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    parts = [
        {
            "PartNumber": n,
            "ETag": s3.upload_part(**where, UploadId=upload, PartNumber=n, Body=b)["ETag"],
        }
        for n, b in ((1, part), (2, b"end"))
    ]
    assert len(s3.list_parts(**where, UploadId=upload)["Parts"]) == 2
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(**where)["Body"].read() == part + b"end"
    upload = s3.create_multipart_upload(**where)["UploadId"]
    s3.abort_multipart_upload(**where, UploadId=upload)
    assert outcome(lambda: s3.list_parts(**where, UploadId=upload)) == "404 NoSuchUpload"


def presigned(s3: S3) -> None:
    """Presigned addresses."""
    s3.put_object(Bucket=BUCKET, Key="w/signed", Body=b"12345")
    address = s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "w/signed"}, 60)
    with urlopen(address) as answer:
        assert answer.read() == b"12345"


def damage(s3: S3) -> None:
    """A body that does not match its Content-MD5 is refused."""
    put = outcome(
        lambda: s3.put_object(
            Bucket=BUCKET, Key="w/md5", Body=b"1", ContentMD5="CY9rzUYh03PK3k6DJie09g=="
        )
    )
    assert put == "400 BadDigest"


def long_names(s3: S3) -> None:
    """Keys of 1,000 bytes and names of 255; upper and lower case differ."""
    for key in ("/".join(["x" * 200] * 5), f"w/{'y' * 255}", "w/Case", "w/case"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
        assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == key.encode()
    s3.delete_object(Bucket=BUCKET, Key="/".join(["x" * 200] * 5))


def deletion(s3: S3) -> None:
    """Bulk deletion from this checkout's Python, without ghosts."""
    keys = ["w/m/y/z", "w/m/y/x", "w/m/k"]
    for key in keys:
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"")
    answer = s3.delete_objects(
        Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in (*keys, "w/never/was")]}
    )
    assert {item["Key"] for item in answer["Deleted"]} == {*keys, "w/never/was"}
    assert "Errors" not in answer
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix="w/m")


WORKS = [objects, ranges, listings, multipart, presigned, damage, long_names, deletion]


@pytest.mark.parametrize("promise", WORKS, ids=lambda promise: promise.__name__)
def test_what_works(s3: S3, promise: Callable[[S3], None]) -> None:
    promise(s3)
    assert f"| {' '.join((promise.__doc__ or '').split()).rstrip('.')} |" in DOCUMENT.read_text()


# --- What doesn't ---------------------------------------------------------------------------------


def overwritten(s3: S3, **condition: str) -> str:
    """Put twice, the second time on a condition that does not hold."""
    s3.put_object(Bucket=BUCKET, Key="n/condition", Body=b"first")
    said = outcome(
        lambda: s3.put_object(Bucket=BUCKET, Key="n/condition", Body=b"second", **condition)
    )
    kept = s3.get_object(Bucket=BUCKET, Key="n/condition")["Body"].read() == b"first"
    return "as S3" if said.startswith("412") and kept else "ignored" if not kept else said


def beside(s3: S3) -> str:
    s3.put_object(Bucket=BUCKET, Key="n/ab", Body=b"")
    said = outcome(lambda: s3.put_object(Bucket=BUCKET, Key="n/ab/c", Body=b""))
    return "as S3" if said == "works" else said


def slashes(s3: S3) -> str:
    s3.put_object(Bucket=BUCKET, Key="n/slash//b", Body=b"")
    (listed,) = s3.list_objects_v2(Bucket=BUCKET, Prefix="n/slash")["Contents"]
    s3.delete_object(Bucket=BUCKET, Key="n/slash//b")
    return "as S3" if listed["Key"] == "n/slash//b" else listed["Key"]


def wrong_checksum(s3: S3) -> str:
    said = outcome(
        lambda: s3.put_object(Bucket=BUCKET, Key="n/sum", Body=b"1", ChecksumSHA256="A" * 43 + "=")
    )
    return "ignored" if said == "works" else "as S3"


def versioning(s3: S3, root: S3) -> str:
    said = outcome(lambda: root.get_bucket_versioning(Bucket=BUCKET))
    return "as S3" if said == "works" else said


def lifecycle(s3: S3, root: S3) -> str:
    rule = {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": "x"}, "Expiration": {"Days": 1}}
    said = outcome(
        lambda: root.put_bucket_lifecycle_configuration(
            Bucket=BUCKET, LifecycleConfiguration={"Rules": [rule]}
        )
    )
    return "as S3" if said == "works" else said


NOT = {
    "PutObject with If-None-Match": (lambda s3, _: overwritten(s3, IfNoneMatch="*"), "ignored"),
    "PutObject with If-Match": (lambda s3, _: overwritten(s3, IfMatch='"other"'), "ignored"),
    "x-amz-checksum-…": (lambda s3, _: wrong_checksum(s3), "ignored"),
    "a key below another key": (lambda s3, _: beside(s3), "500 InternalError"),
    "// in a key": (lambda s3, _: slashes(s3), "n/slash/b"),
    "versioning": (versioning, "501 NotImplemented"),
    "lifecycle rules": (lifecycle, "501 NotImplemented"),
}


@pytest.mark.parametrize("name", NOT)
def test_what_does_not_work(checkout: Checkout, s3: S3, name: str) -> None:
    look, native = NOT[name]
    seen = look(s3, Store(checkout, "root").s3)
    if checkout.variables["MODE"] == "native":
        assert seen == native
    else:
        assert seen in (native, "as S3")
    assert re.search(rf"^\| {re.escape(name)} \|.*{re.escape(native)}", DOCUMENT.read_text(), re.M)


# --- Deletion, through each of the stack's clients ------------------------------------------------

GARBAGE = """
import json, logging, os, pathlib
logging.disable(logging.WARNING)
import mlflow
from mlflow import MlflowClient
client = MlflowClient()
name = os.urandom(4).hex()
experiment = client.create_experiment(name)
runs = []
for kind in ("gone", "champion"):
    run = client.create_run(experiment, run_name=kind)
    pathlib.Path("big.bin").write_bytes(os.urandom(4 << 20))
    for place in ("", "weights/deep"):
        client.log_artifact(run.info.run_id, "big.bin", place)
    runs.append(run.info.run_id)
client.create_registered_model(name)
client.create_model_version(name, f"mlflow-artifacts:/{experiment}/{runs[1]}/artifacts", runs[1])
for run in runs:
    client.delete_run(run)

from zenml import pipeline, step
from zenml.client import Client

@step(enable_cache=False)
def write() -> str:
    return "unused"

@pipeline(enable_cache=False)
def garbage():
    write()

run = garbage()
uri = run.steps["write"].outputs["output"][0].uri
Client().delete_pipeline_run(run.id)

from dvc.repo import Repo
repo, versions = Repo("."), []
for _ in range(2):
    pathlib.Path("data/mine.bin").write_bytes(os.urandom(4 << 20))
    (stage,) = repo.add("data/mine.bin")
    versions.append(stage.outs[0].hash_info.value)
    repo.push("data/mine.bin.dvc")
print(json.dumps({"experiment": experiment, "runs": runs, "uri": uri, "versions": versions}))
"""


def garbage(checkout: Checkout) -> dict[str, Any]:
    """Make what MLflow, ZenML and DVC keep though nobody wants it, and what must stay."""
    script = checkout.root / "garbage.py"  # ZenML reads a step's source
    script.write_text(GARBAGE)
    printed = checkout.run("scripts/run-client.sh", "python", script.name)
    made: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return made


def left(checkout: Checkout, made: dict[str, Any]) -> list[str]:
    """Which of it is in the store, by what it is."""
    root, prefix = Store(checkout, "root"), made["experiment"]
    zenml = made["uri"].removeprefix("s3://zenml-artifacts/")
    found = {
        "gone": [
            k for k in root.keys("mlflow-artifacts") if k.startswith(f"{prefix}/{made['runs'][0]}")
        ],
        "champion": [
            k for k in root.keys("mlflow-artifacts") if k.startswith(f"{prefix}/{made['runs'][1]}")
        ],
        "artifact": [k for k in root.keys("zenml-artifacts") if k.startswith(zenml)],
        "old": [k for k in root.keys(BUCKET) if k.endswith(made["versions"][0][2:])],
        "new": [k for k in root.keys(BUCKET) if k.endswith(made["versions"][1][2:])],
    }
    return [name for name, keys in found.items() if keys]


def disk(checkout: Checkout) -> int:
    """The bytes that the native store takes."""
    folder = checkout.root / ".stack" / "native" / "object-store" / "data"
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_prune_shows_asks_and_frees(checkout: Checkout) -> None:
    made = garbage(checkout)
    everything = ["gone", "champion", "artifact", "old", "new"]
    assert left(checkout, made) == everything
    refused = checkout.make("prune", expect=2)  # no terminal here
    assert "1 deleted runs" in refused
    assert "1 artifacts that no run refers to" in refused
    assert "kept: champion, which is" in refused
    assert "make prune FORCE=1" in refused
    assert left(checkout, made) == everything
    before = disk(checkout)
    said = checkout.make("prune", "FORCE=1")
    assert left(checkout, made) == ["champion", "new"]
    numbers = re.search(r"bytes before: ([\d,]+), after: ([\d,]+), freed: ([\d,]+)", said)
    assert numbers
    was, now, freed = (int(number.replace(",", "")) for number in numbers.groups())
    assert was - now == freed > 12 << 20  # two artifacts, an old version here and in the store
    if checkout.variables["MODE"] == "native":
        assert before - disk(checkout) > 11 << 20
    assert "nothing to free" in checkout.make("prune", "FORCE=1")


def test_the_clients_own_commands_delete(checkout: Checkout) -> None:
    made = garbage(checkout)
    client = "scripts/run-client.sh"
    checkout.run(client, "zenml", "artifact", "prune", "--yes")
    checkout.run(client, "dvc", "gc", "--workspace", "--cloud", "--force")
    checkout.run("scripts/run-in-service.sh", "mlflow", "gc", "--run-ids", made["runs"][0])
    assert left(checkout, made) == ["champion", "new"]


def test_pyarrow_writes(checkout: Checkout) -> None:
    code = """
import json
from pyarrow import fs
store = fs.S3FileSystem(
    access_key=S.dvc_s3_access_key, secret_key=S.dvc_s3_secret_key, scheme="http",
    endpoint_override=S.store_url.removeprefix("http://"), region="us-east-1",
)
with store.open_output_stream("dvc-data/w/arrow") as stream:
    stream.write(b"12345")
print(json.dumps(store.open_input_stream("dvc-data/w/arrow").read().decode()))
"""
    assert checkout.python(code) == "12345"


def test_s3fs_and_zenmls_file_operations_delete(checkout: Checkout) -> None:
    code = """
import json
from zenml.client import Client
from zenml.io import fileio
store = Client().active_stack.artifact_store
root = store.path + "/files"
for name in ("tree/a", "tree/deep/b", "one"):
    with fileio.open(f"{root}/{name}", "w") as file:
        file.write(name)
fileio.rename(f"{root}/one", f"{root}/other")
fileio.rmtree(f"{root}/tree")
import s3fs
fs = store.filesystem
fs.pipe({f"{root}/m/x": b"1", f"{root}/m/y/z": b"2", f"{root}/single": b"3"})
fs.mv(f"{root}/single", f"{root}/moved")
fs.rm([f"{root}/m/x", f"{root}/m/y/z"])
fs.invalidate_cache()
print(json.dumps(sorted(fs.find(root))))
"""
    left_over = ["zenml-artifacts/files/moved", "zenml-artifacts/files/other"]
    assert checkout.python(code) == left_over
    keys = [k for k in Store(checkout, "root").keys("zenml-artifacts") if k.startswith("files/")]
    assert [f"zenml-artifacts/{key}" for key in keys] == left_over


# --- What changes by hand, or in .env -------------------------------------------------------------

KEEP = """
import json, pathlib
import mlflow
from mlflow import MlflowClient
client = MlflowClient()
run = client.create_run(client.create_experiment("renamed"))
client.log_text(run.info.run_id, "of MLflow", "file.txt")
from zenml import save_artifact
artifact = save_artifact("of ZenML", "renamed")
from dvc.repo import Repo
pathlib.Path("data/mine.txt").write_text("of DVC")
repo = Repo(".")
repo.add("data/mine.txt")
repo.push("data/mine.txt.dvc")
print(json.dumps({"run": run.info.run_id, "artifact": str(artifact.id)}))
"""
READ = """
import json, pathlib, shutil
import mlflow
shutil.rmtree(".dvc/cache")
pathlib.Path("data/mine.txt").unlink()
from src.datasets.versioning import configure_remote
configure_remote(S)
from dvc.repo import Repo
Repo(".").pull("data/mine.txt.dvc")
from zenml.client import Client
print(json.dumps([
    mlflow.artifacts.load_text(f"runs:/{MADE['run']}/file.txt"),
    Client().get_artifact_version(MADE["artifact"]).load(),
    pathlib.Path("data/mine.txt").read_text(),
]))
"""


@either_backend
def test_renamed_buckets_keep_what_they_held_and_a_renamed_user_its_rights_no_more(
    checkout: Checkout,
) -> None:
    made = checkout.python(KEEP)
    read, whole = f"MADE = {made}\n{READ}", ["of MLflow", "of ZenML", "of DVC"]
    names = ("ZENML_BUCKET", "MLFLOW_BUCKET", "DVC_BUCKET", "ZENML_S3_ACCESS_KEY")
    before = {name: checkout.settings[name] for name in names}
    old = Store(checkout, "zenml")
    checkout.set(**{name: f"{value}-2" for name, value in before.items()})
    printed = checkout.make("stack").splitlines()
    assert "bucket zenml-artifacts-2: created" in printed
    assert "S3 user zenml, which .env names no more: deleted" in printed
    assert "artifact store minio_artifacts: updated" in printed
    assert "artifact store minio_artifacts_zenml-artifacts: unchanged" in printed
    assert old.refused("list_objects_v2", Bucket="zenml-artifacts-2")
    assert old.refused("list_objects_v2", Bucket="zenml-artifacts")
    assert checkout.python(read) == whole
    again = checkout.make("stack")
    assert not re.search(": (created|updated|deleted)", again)
    checkout.set(**before)
    checkout.make("stack")
    assert checkout.python(read) == whole
    assert not re.search(": (created|updated|deleted)", checkout.make("stack"))
    for pointer in (checkout.root / "data").glob("mine.*.dvc"):  # make clean keeps what they name
        pointer.unlink()


def test_what_was_opened_to_everybody_is_closed(checkout: Checkout) -> None:
    root = Store(checkout, "root").s3
    anybody = {"Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": ["s3:GetObject"]}
    rule = {
        "Version": "2012-10-17",
        "Statement": [anybody | {"Resource": "arn:aws:s3:::dvc-data/*"}],
    }
    root.put_object(Bucket=BUCKET, Key="w/public", Body=b"1")
    root.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(rule))
    address = f"{root.meta.endpoint_url}/{BUCKET}/w/public"
    assert requests.get(address, timeout=10).status_code == 200
    assert "bucket dvc-data: updated" in checkout.make("stack")
    assert requests.get(address, timeout=10).status_code == 403
    assert "bucket dvc-data: unchanged" in checkout.make("stack")
