"""What a command does while one of its servers is away, or can't write since the disk is full.

It says so in one line that names the remedy, goes on by itself when the server is back, and gives
up after ``LIMIT``. What it had begun is then as after a kill: the same command again, or ``make
up``, marks it as failed.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from src import machine
from src.services.launcher import PROOF
from src.services.table import SERVICES, Service
from src.settings import Settings

LIMIT = 600.0  # seconds without a server until a command gives up
POLL = 2.0  # seconds between two looks; who is silent at two of them is away
ANSWER = 2.0  # seconds for one answer
ROOM = "room on the disk"  # what is waited for like a server
RETRY = 0.5  # seconds between two connections to a server that is away
_OURS: set[tuple[str | None, int | None]] = set()  # where this process waits


@contextmanager
def patience(settings: Settings) -> Iterator[None]:
    """Wait for servers that are away, and tell of it; in a process without forks ahead of it."""
    be_patient(settings)
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(settings, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def be_patient(settings: Settings) -> None:
    """Have this process's connections wait where a server of ours is away.

    ZenML's client gives up after 30 s, and nothing of that can be set; MLflow's waits twice as long
    each time. Both connect through urllib3, and so do botocore and the store's own client; s3fs
    has a client of its own: see ``be_patient_with_s3fs``.
    """
    from urllib3.util import connection

    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # the watcher says it
    urls = [urlsplit(service.url(settings)) for service in _servers()]
    _OURS.update((url.hostname, url.port) for url in urls)
    original = connection.create_connection
    if getattr(original, "patient", False):
        return

    def connect(address: tuple[str, int], *others: Any, **named: Any) -> Any:
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                return original(address, *others, **named)
            except ConnectionRefusedError:
                if address not in _OURS or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY)

    connect.patient = True  # type: ignore[attr-defined]
    connection.create_connection = connect


def be_patient_with_s3fs() -> None:
    """The same for artifacts that ZenML and DVC write; it is only imported where that is paid."""
    from botocore.exceptions import EndpointConnectionError
    from s3fs import core

    core.add_retryable_error(EndpointConnectionError)
    core.S3FileSystem.retries = 50  # it waits 15 s at most between two


def _servers() -> list[Service]:
    return [service for service in SERVICES if service.check and service.starts]


def _watch(settings: Settings, over: threading.Event) -> None:
    since: dict[str, float] = {}
    told: set[str] = set()
    with ThreadPoolExecutor(len(_servers())) as pool:
        while not over.wait(POLL):
            answers = pool.map(lambda service: _answers(service, settings), _servers())
            away = {s.label for s, here in zip(_servers(), answers, strict=True) if not here}
            if full := machine.full_disk():
                away.add(ROOM)
            now = time.monotonic()
            for back in since.keys() - away:
                del since[back]
                if back in told:
                    told.remove(back)
                    here = "there is room" if back == ROOM else f"{back} answers"
                    _say(f"{here} again: going on")
            for label in away:
                since.setdefault(label, now)
            new = sorted(label for label in since.keys() - told if now - since[label] >= POLL)
            told.update(new)
            end = f"and this goes on by itself; it gives up after {LIMIT / 60:g} minutes"
            if ROOM in new:
                new.remove(ROOM)
                _say(f"{full}: make room, {end}")
            if new:
                _say(f"waiting for {', '.join(new)}: make up brings it back, {end}")
            if since and now - min(since.values()) > LIMIT:
                _give_up(sorted(since))


def _answers(service: Service, settings: Settings) -> bool:
    """Tell whether a server of ours answers; not through urllib3, which would wait for it."""
    assert service.check is not None
    url = urlsplit(service.url(settings))
    connection = HTTPConnection(str(url.hostname), url.port, timeout=ANSWER)
    with closing(connection):
        try:
            connection.request("GET", service.check.alive)
            answer = connection.getresponse()
        except (OSError, HTTPException):
            return False
    ours = service.check.sign_in == "signature" or answer.getheader(PROOF) == settings.checkout
    return answer.status < 500 and ours


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _give_up(labels: list[str]) -> None:
    """End at once: whatever else this process does would wait for the same."""
    again = "then the same command again, which marks what was begun as failed and finishes it"
    minutes = f"for {LIMIT / 60:g} minutes"
    if ROOM in labels:
        _say(f"error: the disk was full {minutes}: make room, {again}")
    else:
        _say(f"error: {', '.join(labels)} did not answer {minutes}: make up, {again}")
    sys.stdout.flush()
    os._exit(1)
