"""Whether the services answer, each with a request that goes through to its database, and are ours.

A server's own ``/health`` may say OK without its database; a search in MLflow, ZenML's description
of itself and a list of the store's buckets can't. Whoever else answers on a port is told apart by
what only ours answers. ``python -m src.services.health [SERVICE…]`` exits 0 when all are healthy,
by default those that ``make up`` starts.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import requests
from requests import PreparedRequest
from requests.auth import AuthBase, HTTPBasicAuth

from src import machine
from src.errors import UserError, run_command
from src.services.launcher import PROOF
from src.services.table import SERVICES, Check, Service
from src.settings import Settings, load_settings

TIMEOUT = 5.0  # seconds for one answer
INTERVAL = 0.1  # seconds between two looks
CLOCK = "its clock says"  # how the fault of a clock begins: Docker's virtual machine may have slept
DELETED = "its files were deleted"
EMPTY = hashlib.sha256(b"").hexdigest()


class Signature(AuthBase):
    """AWS' signature, version 4, of a GET without a body; botocore's takes a second to import.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
    """

    def __init__(self, user: str, secret: str) -> None:
        """Sign as a user of the store."""
        self._user, self._secret = user, secret

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Add the signature's headers."""
        host, _, path = str(request.url).removeprefix("http://").partition("/")
        now = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        signed = {"host": host, "x-amz-content-sha256": EMPTY, "x-amz-date": now}
        names = ";".join(signed)
        listed = "".join(f"{name}:{value}\n" for name, value in signed.items())
        asked = f"GET\n/{path}\n\n{listed}\n{names}\n{EMPTY}"
        scope = f"{now[:8]}/us-east-1/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(asked.encode()).hexdigest()}"
        key = f"AWS4{self._secret}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = f"Credential={self._user}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        request.headers.update(signed | {"Authorization": f"AWS4-HMAC-SHA256 {signature}"})
        return request


def check(service: Service, settings: Settings) -> str | None:
    """Return None when a service answers its health check, else what is wrong."""
    asked = service.check
    assert asked is not None
    user, password = "", ""
    if service.sign_in and asked.sign_in:
        user = getattr(settings, service.sign_in.user.lower())
        password = getattr(settings, service.sign_in.password.lower())
    signers = {"basic": HTTPBasicAuth, "signature": Signature}
    signer = signers[asked.sign_in](user, password) if asked.sign_in in signers else None
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy and no .netrc between this machine and itself
            answer = session.request(
                asked.method,
                service.url(settings) + asked.path,
                json=asked.json,
                auth=signer,
                timeout=TIMEOUT,
            )
    except requests.ConnectionError:
        return "no connection"
    except requests.RequestException as error:
        return type(error).__name__
    if b"RequestTimeTooSkewed" in answer.content:
        theirs, ours = answer.headers["Date"], f"{datetime.now(UTC):%H:%M}"
        remedy = "set the clocks alike (of Docker Desktop's engine: restart it)"
        return f"{CLOCK} {theirs}, this machine's {ours}: {remedy}"
    if not _is_ours(asked, answer, settings):
        return "not this checkout's"
    if answer.status_code not in asked.answers:
        return f"HTTP {answer.status_code}"
    return DELETED if _files_are_gone(service, settings) else None


def _is_ours(asked: Check, answer: requests.Response, settings: Settings) -> bool:
    """Tell whether the answer comes from this checkout's server."""
    if asked.sign_in != "signature":
        return answer.headers.get(PROOF) == settings.checkout
    # A store knows this root user's secret, or is too busy to say; all others refuse, or find
    # nothing.
    return answer.status_code == 200 or answer.status_code >= 500


def _files_are_gone(service: Service, settings: Settings) -> bool:
    """Tell whether a native server's data were deleted under it.

    It may answer on from a deleted database, which ends with it, and begin an empty one beside it.
    """
    files = service.files if settings.backend == "native" else ()
    folder = settings.backend_state / service.name
    return not all((folder / file).is_file() and (folder / file).stat().st_size for file in files)


def check_all(settings: Settings, names: Sequence[str] = ()) -> dict[str, str | None]:
    """Return for each service None when it is healthy, else what is wrong."""
    chosen = [s for s in SERVICES if s.check and (s.name in names if names else s.starts)]
    with ThreadPoolExecutor(max(len(chosen), 1)) as pool:
        faults = pool.map(lambda service: check(service, settings), chosen)
        return dict(zip([service.name for service in chosen], faults, strict=True))


def require(settings: Settings) -> None:
    """Raise ``UserError`` where a service that ``make up`` starts is not healthy, or not ours.

    Or where the disk is full: servers then answer, and store nothing.
    """
    if full := machine.full_disk():
        raise UserError(f"{full}: make room, then the same command again")
    faults = {service: fault for service, fault in check_all(settings).items() if fault}
    for service, fault in faults.items():
        if fault.startswith(CLOCK):
            raise UserError(f"{service}: {fault}, then the same command again")
    down = [
        service if fault == "no connection" else f"{service} ({fault})"
        for service, fault in faults.items()
    ]
    if down:
        raise UserError(f"not running: {', '.join(down)}: make up")


def wait(settings: Settings, names: Sequence[str], seconds: float) -> dict[str, str | None]:
    """Return ``check_all``'s answer as soon as all are healthy, at the latest after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        results = check_all(settings, names)
        if not any(results.values()) or time.monotonic() >= deadline:
            return results
        time.sleep(INTERVAL)


def main(arguments: list[str]) -> int:
    """Print ``service<TAB>healthy`` or what is wrong, unless ``--quiet``."""
    parser = argparse.ArgumentParser("python -m src.services.health")
    parser.add_argument("services", nargs="*", metavar="SERVICE")
    parser.add_argument("--within", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--quiet", action="store_true")
    asked = parser.parse_args(arguments)
    results = wait(load_settings(), asked.services, asked.within)
    if not asked.quiet:
        for service, fault in results.items():
            print(f"{service}\t{fault or 'healthy'}")
    return 0 if not any(results.values()) else 1


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv[1:])))
