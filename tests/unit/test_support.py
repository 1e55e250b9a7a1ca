"""The archive for who is to help: what it holds, and that no secret is in it."""

import base64
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest

from src import support

ENV = """\
MODE=native
MINIO_ROOT_USER=minio-root
ZENML_S3_ACCESS_KEY=zenml
ZENML_ADMIN_PASSWORD=planted-env-1
export MINIO_ROOT_PASSWORD="planted env-2"
MYSQL_ROOT_PASSWORD=planted-env-3
SERVE_API_KEY=
COCO128_URL=https://someone:planted-env-4@example.org/coco128.zip
NOTHING_KNOWN=planted-env-5
"""
# Each place in which a secret was seen, or may stand; every one holds the word "planted".
PRIVATE = {
    ".dvc/config.local": "[remote]\n    secret_access_key = planted-dvc-1\n",
    ".stack/native/applied.env": "MLFLOW_ADMIN_PASSWORD=planted-applied-1\n",
    ".stack/native/zenml-api-key": "ZENKEY_planted-key-1\n",
    ".stack/native/settings/mlflow.env": "MLFLOW_S3_SECRET_KEY=planted-settings-1\n",
    ".stack/native/zenml-client/credentials.yaml": "url:\n  access_token: planted-client-1\n",
    ".stack/docker/secrets/mysql-root-password": "planted-docker-1",
    ".stack/docker/secrets/mysql-users.sql": "ALTER USER 'a'@'%' IDENTIFIED BY 'planted-sql-1';",
    ".stack/ray/token": "planted-ray-1",
}
KNOWN = [
    *("planted-env-1", "planted env-2", "planted-dvc-1", "planted-applied-1", "planted-settings-1"),
    *("planted-client-1", "planted-docker-1", "planted-sql-1", "planted-ray-1"),
    *("ZENKEY_planted-key-1", "planted-environment-1"),
]
FORMS = [  # of secrets that no file names
    "GET /a HTTP/1.1 Authorization: Basic cGxhbnRlZDpwbGFudGVk planted",
    "{'Authorization': 'Bearer planted-header-2'}",
    'headers: {"X-Api-Key": "planted-header-3"}',
    "Set-Cookie: session=planted-header-4; Path=/",
    "using bearer planted-header-5-and-more",
    "redirected to http://admin:planted-url-1@localhost:8080/",
    "cloned from https://planted-url-2@example.org/a.git",
    "GET /a?list-type=2&X-Amz-Signature=planted-url-3&x=1",
    "GET /login?token=planted-url-4",
    "connect(password='planted-pair-1', user='x')",
    'answer: {"access_token": "planted-pair-2", "a": 1}',
    "MLFLOW_TRACKING_TOKEN=planted-pair-3",
    "  password: planted-pair-4",
    "a session of eyJplanted00.planted-000.planted",
    "signed in with ZENKEY_planted-2",
    "-----BEGIN RSA PRIVATE KEY-----\nplanted/pem+1\nplanted\n-----END RSA PRIVATE KEY-----",
]
SENTENCES = [  # which must stay as they are
    "ZENML_ADMIN_PASSWORD: String should have at least 8 characters: change it in .env",
    "ZenML refuses this checkout's API key (401): make stack, then the same command again",
    "MLFLOW_PORT 5000 is taken by pid 812 (nginx): set MLFLOW_PORT in .env",
    "INFO: 127.0.0.1:40332 - GET /api/2.0/mlflow/runs/search?max_results=1 200",
    "see https://docs.docker.com/get-docker, or use basic authentication",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a planted secret in every place; what it runs shows all of them."""
    root = tmp_path / "a checkout"
    (root / "scripts").mkdir(parents=True)
    (root / ".env.example").write_text(
        "MODE=\nMINIO_ROOT_USER=\nZENML_S3_ACCESS_KEY=\nZENML_ADMIN_PASSWORD=\n"
        "MINIO_ROOT_PASSWORD=\nMYSQL_ROOT_PASSWORD=\nSERVE_API_KEY=\nCOCO128_URL=\n"
    )
    for name, text in (PRIVATE | {".env": ENV}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    encoded = [base64.b64encode(f"{secret}".encode()).decode() for secret in KNOWN]
    told = "\n".join([*KNOWN, *encoded, *map(quote, KNOWN), *FORMS, *SENTENCES]) + "\n"
    log = root / ".stack" / "native" / "logs" / "mlflow.log"
    log.parent.mkdir()
    log.write_text("early\n" * 1000 + told)
    (root / ".stack" / "errors.log").write_text(told)
    for script in ("check-health.sh", "show-status.sh"):
        (root / "scripts" / script).write_text("#!/bin/sh\ncat .stack/errors.log\nexit 1\n")
        (root / "scripts" / script).chmod(0o755)
    return root


def gathered(root: Path, **environment: str) -> dict[str, str]:
    archive = root / "support.tar.gz"
    support.write(archive, root, {"ZENML_STORE_API_KEY": "planted-environment-1"} | environment)
    with tarfile.open(archive) as tar:
        opened = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read().decode() for name, file in opened.items() if file}


def test_no_secret_is_in_it(checkout: Path) -> None:
    files = gathered(checkout)
    assert {"support/doctor.txt", "support/status.txt", "support/logs/errors.log"} <= set(files)
    for name, text in files.items():
        assert "planted" not in text, name
        for secret in KNOWN:
            assert base64.b64encode(secret.encode()).decode().rstrip("=") not in text, name


def test_what_is_no_secret_stays(checkout: Path) -> None:
    files = gathered(checkout, HOME="/home/somebody", MODE="production", PIP_TARGET="/elsewhere")
    for sentence in SENTENCES:
        assert sentence in files["support/logs/native-logs-mlflow.log"]
    told = files["support/settings.txt"]
    assert "ZENML_S3_ACCESS_KEY=zenml\n" in told
    assert "MINIO_ROOT_PASSWORD=(removed)\n" in told
    assert "SERVE_API_KEY=\n" in told
    assert "COCO128_URL=https://(removed)@example.org/coco128.zip\n" in told
    assert "NOTHING_KNOWN: unknown here" in told
    assert "\nMODE=production\n" in told
    assert "PIP_TARGET: set" in told


def test_it_is_private_and_small_and_its_logs_end_where_they_end(checkout: Path) -> None:
    log = checkout / ".stack" / "native" / "logs" / "zenml.log"
    log.write_text("".join(f"{os.urandom(40).hex()} {n}\n" for n in range(20_000)))
    text = gathered(checkout)["support/logs/native-logs-zenml.log"]
    assert text.endswith(" 19999\n")
    assert len(text.splitlines()) == support.LINES
    assert (checkout / "support.tar.gz").stat().st_mode & 0o777 == 0o600
    assert (checkout / "support.tar.gz").stat().st_size < 100_000


def test_a_log_is_not_cut_within_a_secret(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    secret = "0123456789abcdef" * 2
    for shift in range(len(secret) + 2):
        log.write_text(secret + "\n" + "x" * (support.LOG_BYTES - shift - 1) + "\n")
        for line in support.tail(log).splitlines():
            assert line == secret or set(line) == {"x"}


def test_a_command_that_does_not_end_is_ended(tmp_path: Path) -> None:
    said = support.run(["sh", "-c", "echo begun; sleep 60 & wait"], tmp_path, limit=0.5)
    assert "begun" in said
    assert "no end after" in said


def test_home_is_not_named(checkout: Path) -> None:
    (checkout / ".stack" / "errors.log").write_text("in /home/somebody/lab and /home/somebody2\n")
    text = gathered(checkout, HOME="/home/somebody")["support/logs/errors.log"]
    assert text == "in ~/lab and /home/somebody2\n"


def test_links_lead_nowhere(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("somebody else's")
    (checkout / ".stack" / "native" / "logs" / "zenml.log").symlink_to(tmp_path / "private")
    assert "support/logs/native-logs-zenml.log" not in gathered(checkout)


def test_it_needs_the_standard_library_only() -> None:
    code = "import src.support, sys; print({'psutil', 'pydantic', 'requests'} & set(sys.modules))"
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=support.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
