"""Bulk deletions that the store refuses become single ones, for botocore and aiobotocore."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from src import bulk_deletion

CODE = Path(bulk_deletion.__file__)
KEYS = ["m/y/z", "m/y/locked", "a b&c"]


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>said {code}</Message></Error>".encode()


class Gateway(BaseHTTPRequestHandler):
    """Answers as JuiceFS's gateway was seen to; ``bulk`` says what DeleteObjects gets."""

    protocol_version = "HTTP/1.1"
    seen: list[str]
    bulk: tuple[int, str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, code = self.bulk
        self._answer("POST", status, error(code) if code else b"<DeleteResult></DeleteResult>")

    def do_DELETE(self) -> None:
        locked = "locked" in self.path
        self._answer("DELETE", 403 if locked else 204, error("AccessDenied") if locked else b"")

    def _answer(self, method: str, status: int, body: bytes) -> None:
        self.seen.append(f"{method} {self.path}")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[ThreadingHTTPServer]:
    Gateway.seen, Gateway.bulk = [], (400, "MissingContentMD5")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patch this process as an installed file does, and take it back afterwards."""
    import aiobotocore.client
    import botocore.client

    for module in (botocore.client, aiobotocore.client):
        client = getattr(module, bulk_deletion.CLIENTS[module.__name__])
        monkeypatch.setattr(client, "_make_api_call", client._make_api_call)
        bulk_deletion.patch(module)
        bulk_deletion.patch(module)  # a second time changes nothing


def arguments(server: ThreadingHTTPServer) -> dict[str, Any]:
    return {
        "endpoint_url": f"http://127.0.0.1:{server.server_address[1]}",
        "aws_access_key_id": "user",
        "aws_secret_access_key": "secret",
        "region_name": "us-east-1",
    }


def delete(server: ThreadingHTTPServer, library: str, **more: Any) -> dict[str, Any]:
    """Delete ``KEYS`` with one of the two libraries and return the answer."""
    wanted = {"Objects": [{"Key": key} for key in KEYS], **more}
    if library == "botocore":
        return boto3.client("s3", **arguments(server)).delete_objects(Bucket="b", Delete=wanted)

    async def run() -> dict[str, Any]:
        async with get_session().create_client("s3", **arguments(server)) as client:
            answer: dict[str, Any] = await client.delete_objects(Bucket="b", Delete=wanted)
            return answer

    return asyncio.run(run())


LIBRARIES = pytest.mark.parametrize("library", ["botocore", "aiobotocore"])


@LIBRARIES
def test_a_refused_bulk_deletion_becomes_single_ones(
    gateway: ThreadingHTTPServer, library: str
) -> None:
    answer = delete(gateway, library)
    assert answer["Deleted"] == [{"Key": "m/y/z"}, {"Key": "a b&c"}]
    assert answer["Errors"] == [
        {"Key": "m/y/locked", "Code": "AccessDenied", "Message": "said AccessDenied"}
    ]
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert Gateway.seen == [
        "POST /b?delete",
        "DELETE /b/m/y/z",
        "DELETE /b/m/y/locked",
        "DELETE /b/a%20b%26c",
    ]


@LIBRARIES
def test_a_quiet_one_names_the_failures_only(gateway: ThreadingHTTPServer, library: str) -> None:
    answer = delete(gateway, library, Quiet=True)
    assert "Deleted" not in answer
    assert len(answer["Errors"]) == 1


@LIBRARIES
def test_a_store_that_takes_bulk_deletions_keeps_them(
    gateway: ThreadingHTTPServer, library: str
) -> None:
    Gateway.bulk = (200, "")
    delete(gateway, library)
    assert Gateway.seen == ["POST /b?delete"]


@LIBRARIES
def test_another_refusal_stays_one(gateway: ThreadingHTTPServer, library: str) -> None:
    Gateway.bulk = (403, "AccessDenied")
    with pytest.raises(ClientError, match="AccessDenied"):
        delete(gateway, library)
    assert Gateway.seen == ["POST /b?delete"]


@LIBRARIES
def test_a_store_that_goes_away_is_an_error_and_no_failed_key(
    gateway: ThreadingHTTPServer, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang_up(self: Gateway) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    monkeypatch.setattr(Gateway, "do_DELETE", hang_up)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(BotoCoreError):
        delete(gateway, library)


def test_every_parameter_reaches_the_single_requests() -> None:
    deletion = bulk_deletion.Deletion(
        {
            "Bucket": "b",
            "RequestPayer": "requester",
            "Delete": {"Objects": [{"Key": "k", "VersionId": "1", "ETag": "e"}]},
        }
    )
    assert deletion.requests() == [
        {"Bucket": "b", "RequestPayer": "requester", "Key": "k", "VersionId": "1", "IfMatch": "e"}
    ]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a Python of its own in which the file is installed; it finds this one's packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    python = tmp_path / "bin" / "python"
    subprocess.run([python, CODE], check=True)
    (site,) = tmp_path.glob("lib/python3*/site-packages")
    (site / "packages.pth").write_text(f"{Path(boto3.__file__).parents[1]}\n")
    return python


def run(python: Path, code: str) -> Any:
    return json.loads(subprocess.check_output([python, "-c", f"import json, sys\n{code}"]))


@pytest.mark.parametrize("name", ["boto3", "aiobotocore.session", "s3fs"])
def test_an_installed_file_patches_whatever_program_uses_botocore(
    installed: Path, name: str
) -> None:
    code = f"""
import {name}, botocore.client
print(json.dumps(botocore.client.BaseClient._make_api_call.__module__))
"""
    assert run(installed, code) == bulk_deletion.NAME


def test_an_installed_file_patches_aiobotocore(installed: Path) -> None:
    code = """
import aiobotocore.client
print(json.dumps(aiobotocore.client.AioBaseClient._make_api_call.__module__))
"""
    assert run(installed, code) == bulk_deletion.NAME


def test_a_program_without_botocore_loads_nothing_for_it(installed: Path) -> None:
    code = "print(json.dumps(sorted(sys.modules)))"
    (pth,) = installed.parents[1].glob(f"lib/python3*/site-packages/{bulk_deletion.NAME}.pth")
    with_it = run(installed, code)
    pth.unlink()
    assert set(with_it) - set(run(installed, code)) <= {bulk_deletion.NAME, "__future__"}


def test_a_second_installation_changes_nothing(installed: Path) -> None:
    def content() -> dict[Path, bytes]:
        files = installed.parents[1].glob("lib/python3*/site-packages/*.p*")
        return {file: file.read_bytes() for file in files}

    before = content()
    subprocess.run([installed, CODE], check=True)
    assert content() == before


def test_a_copy_without_its_line_does_nothing(tmp_path: Path) -> None:
    shutil.copy(CODE, tmp_path / "other_name.py")
    code = f"sys.path.insert(0, {str(tmp_path)!r})\nimport other_name\nprint(len(sys.meta_path))"
    assert run(Path(sys.executable), code) == run(Path(sys.executable), "print(len(sys.meta_path))")
