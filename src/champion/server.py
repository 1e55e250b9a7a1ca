"""The champion behind HTTP, following its alias: ``python -m src.champion.server``.

The base is the FastAPI app of MLflow's scoring server (``/invocations``, ``/ping``, ``/version``);
``/predict``, ``/metrics`` and the page at ``/`` are ours. ``Gate`` stands before all of it: who may
ask, how much, how slowly, how many at once. Another version is loaded and tried beside the one in
use and takes its place in one assignment; a request keeps the one that it began with.

Needs the registered model's packages, fastapi, uvicorn, prometheus-client and python-multipart.
Reads MLFLOW_TRACKING_URI (and MLflow's sign-in), SERVE_HOST, SERVE_PORT, SERVE_MODEL, SERVE_CACHE
(a folder) and SERVE_TOKEN (blank: nobody is asked for one) from its environment.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextvars
import hashlib
import hmac
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import prometheus_client
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.h11_impl import H11Protocol

from src import machine
from src.champion import model
from src.champion.detector import (
    MAX_PIXELS,
    Detections,
    Detector,
    ParameterError,
    PictureError,
    Thresholds,
    TooManyPixels,
    UnknownFormat,
    decode,
    detections_table,
)
from src.errors import explain, in_short, run_command
from src.services.launcher import PROOF

PAGE = Path(__file__).with_name("page.html")
OPEN = ("/", "/ping", "/health", "/version")  # without a token: they tell nothing
WORK = {"/predict": "multipart/form-data", "/invocations": "application/json"}
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
HOW = "curl -F picture=@photo.jpg …/predict"

log = logging.getLogger("detector")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """What one process takes on; all of it fits into 1 GB."""

    upload: int = 16 << 20  # bytes of one request
    held: int = 192 << 20  # bytes of all requests that are being received or wait
    pixels: int = MAX_PIXELS  # of all pictures of one request
    pictures: int = 32  # of one request
    waiting: int = 32  # requests that wait for their turn
    connections: int = 256
    silence: float = 5.0  # seconds between two pieces of a request
    receiving: float = 20.0  # seconds for a whole request
    header: float = 10.0  # seconds for a request's first lines


@dataclass(frozen=True)
class Config:
    """What the process is given."""

    host: str
    port: int
    name: str  # of the registered model
    cache: Path
    token: str = ""
    interval: float = 1.0  # seconds between two looks at the alias
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Config:
        """Read it from the environment."""
        return cls(
            given["SERVE_HOST"],
            int(given["SERVE_PORT"]),
            given["SERVE_MODEL"],
            Path(given["SERVE_CACHE"]),
            given.get("SERVE_TOKEN", ""),
        )


class Refusal(Exception):
    """A request that is not served: an HTTP status, a word for the metrics, and what to do."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    @classmethod
    def of(cls, error: Exception) -> Refusal:
        """Return what a fault in the request is answered with."""
        if isinstance(error, Refusal):
            return error
        if isinstance(error, TooManyPixels):
            return cls(413, "pixels", str(error))
        if isinstance(error, UnknownFormat):
            return cls(415, "format", str(error))
        if isinstance(error, PictureError):
            return cls(400, "picture", str(error))
        assert isinstance(error, ParameterError)
        return cls(400, "parameter", str(error))

    def response(self) -> Response:
        """Return the answer."""
        headers = {"Retry-After": "1"} if self.status in (429, 503) else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": self.message}, self.status, headers)


class Metrics:
    """What ``/metrics`` shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._make(
            Counter, "requests", "Answers by route, status and version", "route status version"
        )
        self.refused = self._make(Counter, "refused", "Requests not served, by reason", "reason")
        self.seconds = self._make(
            Histogram, "request_seconds", "Time of a request once received", "route"
        )
        self.running = self._make(Gauge, "requests_running", "Requests received, not yet answered")
        self.info = self._make(Gauge, "model_info", "The version in use", "name version run_id")
        self.registry_up = self._make(
            Gauge, "registry_up", "1 while MLflow answers; at 0 the last good version is in use"
        )
        self.looked = self._make(
            Gauge, "registry_last_answer_timestamp_seconds", "When MLflow answered last"
        )
        self.behind = self._make(
            Gauge, "model_behind", "1 while the champion can't be loaded and another is in use"
        )
        self.swaps = self._make(Counter, "swaps", "How often another version was taken into use")
        ProcessCollector(registry=self.registry)

    def _make(self, kind: Any, name: str, text: str, labels: str = "") -> Any:
        return kind(f"detector_{name}", text, labels.split(), registry=self.registry)


@dataclass(frozen=True)
class Serving:
    """A version in use."""

    version: ModelVersion
    detector: Detector


class Champion:
    """The version in use, kept in step with the registry's alias by a thread of its own."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self._config, self._metrics = config, metrics
        self._client = MlflowClient()
        self._end = threading.Event()
        self._said = ""
        self.current: Serving | None = None

    def start(self) -> None:
        """Load the champion, or the last good one while MLflow is down; then follow the alias."""
        self._look()
        if self.current is None:
            last = model.remembered(self._config.cache)
            if last is not None and last.name == self._config.name:
                self._try(last)
        threading.Thread(target=self._follow, daemon=True, name="alias").start()

    def stop(self) -> None:
        """Stop following."""
        self._end.set()

    def _follow(self) -> None:
        while not self._end.wait(self._config.interval):
            self._look()

    def _look(self) -> None:
        try:
            version = model.at_alias(self._client, self._config.name)
        except MlflowException as error:
            self._metrics.registry_up.set(0)
            self._say(f"MLflow does not answer: {in_short(error)[:200]}")
            return
        self._metrics.registry_up.set(1)
        if version is None:
            name, alias = self._config.name, model.CHAMPION
            self._say(f"{name} has no {alias} yet: make report or make promote")
            return
        self._metrics.looked.set_to_current_time()
        now = self.current
        if now is None or now.version.version != version.version:
            self._try(version)
        else:
            self._metrics.behind.set(0)
            if self._said:
                self._in_use(version)

    def _try(self, version: ModelVersion) -> None:
        """Load and warm a version, and take it into use; or say why not and keep the one in use."""
        config, metrics, old = self._config, self._metrics, self.current
        try:
            detector = model.load(version, config.cache, threads=1)
            detector.detect(np.zeros((detector.size, detector.size, 3), np.uint8))
        except Exception as error:  # noqa: BLE001 - a broken model must not end the good one
            kept = f"version {old.version.version} stays in use" if old else "nothing is served"
            said = explain(error) or in_short(error)
            self._say(f"version {version.version} can't be used, {kept}: {said}")
            metrics.behind.set(1)  # last: who sees it finds the reason in the log
            return
        self.current = Serving(version, detector)
        model.remember(version, config.cache)
        if old is not None:
            metrics.info.remove(old.version.name, old.version.version, old.version.run_id or "")
            metrics.swaps.inc()
        metrics.info.labels(version.name, version.version, version.run_id or "").set(1)
        metrics.behind.set(0)
        self._in_use(version)

    def _in_use(self, version: ModelVersion) -> None:
        """Log that all is well; a fault's line would else be the last word after its end."""
        log.info("%s version %s is in use", version.name, version.version)
        self._said = ""

    def _say(self, text: str) -> None:
        """Log a lasting fault once, not once a second."""
        if text != self._said:
            log.warning("%s", text)
            self._said = text


@dataclass
class Turn:
    """One request: the version that it began with, and its decoded pictures."""

    serving: Serving
    thresholds: Thresholds = field(default_factory=Thresholds)
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)


_turn: contextvars.ContextVar[Turn] = contextvars.ContextVar("turn")


class Scored:
    """What MLflow's app takes for its model: predicts with the version of the request's turn."""

    def __init__(self) -> None:
        self.metadata = Model(signature=model.signature())

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the table that the registered model itself would; ``Gate`` read the pictures."""
        turn = _turn.get()
        assert len(data) == len(turn.pictures)
        found = [turn.serving.detector.detect(item, turn.thresholds) for item in turn.pictures]
        return pd.DataFrame(detections_table(found))


class Gate:
    """Who may ask, how much, how slowly, how many at once: before anything else sees a request."""

    def __init__(self, app: App, config: Config, champion: Champion, metrics: Metrics) -> None:
        self._app, self._config, self._champion, self._metrics = app, config, champion, metrics
        self._limits = config.limits
        self._held = 0  # bytes
        self._waiting = 0  # requests
        self._slots = asyncio.Semaphore(machine.cores())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it with one clear answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        serving, path, started = self._champion.current, scope["path"], time.perf_counter()
        status, whole = 500, False

        async def listen() -> Message:
            nonlocal whole
            message = await receive()
            whole = not message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                if serving is not None:
                    headers["X-Model-Name"] = serving.version.name
                    headers["X-Model-Version"] = str(serving.version.version)
            await send(message)

        try:
            self._admit(scope, Headers(scope=scope), serving)
            if path in WORK and scope["method"] == "POST":
                assert serving is not None
                started = await self._work(Turn(serving), scope, listen, answer)
            else:
                await self._app(scope, listen, answer)
        except (Refusal, PictureError, ParameterError) as error:
            refusal = Refusal.of(error)
            self._metrics.refused.labels(refusal.reason).inc()
            if refusal.reason != "slow":
                await self._drain(listen, lambda: whole)
            await refusal.response()(scope, listen, answer)
        finally:
            route = path if path in (*OPEN, *WORK, "/metrics") else "other"
            version = serving.version.version if serving else ""
            self._metrics.requests.labels(route, status, version).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    async def _drain(self, listen: Receive, whole: Callable[[], bool]) -> None:
        """Take in the rest of a refused request: who still sends doesn't hear the answer."""
        deadline, left = time.monotonic() + self._limits.silence, 4 * self._limits.upload
        while not whole() and left > 0:
            try:
                message = await asyncio.wait_for(listen(), max(deadline - time.monotonic(), 0))
            except TimeoutError:
                return
            left -= len(message.get("body", b""))

    def _admit(self, scope: Scope, headers: Headers, serving: Serving | None) -> None:
        config, path = self._config, scope["path"]
        name = re.sub(r":\d*$", "", headers.get("host", ""))
        local = name in LOCAL_NAMES or re.fullmatch(r"127(\.\d{1,3}){3}", name)
        if not config.token and not local:  # a page of another site, rebound to us
            raise Refusal(403, "host", f"ask by one of {', '.join(LOCAL_NAMES)}")
        if config.token and path not in OPEN:
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), config.token.encode()):
                raise Refusal(
                    401, "token", "send the token: Authorization: Bearer … (make credentials)"
                )
        if serving is None and (path in WORK or path in ("/ping", "/health")):
            raise Refusal(503, "no model", f"{config.name} has no usable champion: see make logs")
        if path in WORK and scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != WORK[path]:
                raise Refusal(415, "type", f"{path} takes {WORK[path]}, for example: {HOW}")
            size = headers.get("content-length", "0")
            if not size.isdigit() or int(size) > self._limits.upload:
                raise self._too_large()

    def _too_large(self) -> Refusal:
        return Refusal(413, "upload", f"more than {self._limits.upload >> 20} MB in one request")

    async def _work(self, turn: Turn, scope: Scope, receive: Receive, send: Send) -> float:
        """Receive a request, wait for its turn, do it; return when it was received whole."""
        kept = 0
        try:
            parts: list[bytes] = []
            deadline = time.monotonic() + self._limits.receiving
            more = True
            while more:
                left = min(self._limits.silence, deadline - time.monotonic())
                try:
                    message = await asyncio.wait_for(receive(), max(left, 0))
                except TimeoutError:
                    raise Refusal(408, "slow", "the request came too slowly") from None
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "gone", "the client went away")
                part = message.get("body", b"")
                more = message.get("more_body", False)
                kept += len(part)
                self._held += len(part)
                parts.append(part)
                if kept > self._limits.upload:
                    raise self._too_large()
                if self._held > self._limits.held:
                    raise self._too_many()
            body, received = b"".join(parts), time.perf_counter()
            parts.clear()
            await self._in_turn(turn, scope, body, receive, send)
            return received
        finally:
            self._held -= kept

    def _too_many(self) -> Refusal:
        return Refusal(429, "too many", "too many requests at once: try again in a second")

    async def _in_turn(
        self, turn: Turn, scope: Scope, body: bytes, receive: Receive, send: Send
    ) -> None:
        if self._waiting >= self._limits.waiting:
            raise self._too_many()
        self._waiting += 1
        try:
            async with self._slots:
                with self._metrics.running.track_inprogress():
                    if scope["path"] == "/invocations":
                        await asyncio.to_thread(read_invocation, body, turn, self._limits)
                    token = _turn.set(turn)
                    try:
                        await self._app(scope, _replay(body, receive), send)
                    finally:
                        _turn.reset(token)
        finally:
            self._waiting -= 1


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives a body which was received already, then what comes after."""
    first = True

    async def again() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def read_invocation(body: bytes, turn: Turn, limits: Limits) -> None:
    """Read what ``/invocations`` is asked, before MLflow does: its errors echo the whole request.

    Raises:
        Refusal: When it is not what the model's signature takes, or too much.
        PictureError: When a picture can't be read.
        ParameterError: When a parameter is outside its range.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "json", "not valid JSON") from None
    try:
        texts = _pictures_of(asked)
        params = asked.get("params") or {}
        unknown = set(params) - {"conf", "iou", "max_det"}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Refusal(
            400,
            "json",
            'send {"dataframe_split": {"columns": ["image"], "data": [["<base64>"]]}}, '
            'and "params" for conf, iou and max_det',
        ) from None
    if unknown:
        raise ParameterError("params are conf, iou and max_det")
    if not 1 <= len(texts) <= limits.pictures:
        raise Refusal(413, "pictures", f"1 to {limits.pictures} pictures in one request")
    turn.thresholds = Thresholds(**params)
    left = limits.pixels
    for text in texts:
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise Refusal(400, "json", "a picture is not valid base64") from None
        pixels = decode(data, left)
        left -= pixels.shape[0] * pixels.shape[1]
        turn.pictures.append(pixels)


def _pictures_of(asked: Any) -> list[str]:
    """Return the pictures of MLflow's two forms of a table, still as base64."""
    rest = set(asked) - {"params"}
    if rest == {"dataframe_split"}:
        table = asked["dataframe_split"]
        if set(table) - {"index"} != {"columns", "data"} or table["columns"] != ["image"]:
            raise ValueError
        return [text for (text,) in table["data"]]
    if rest == {"dataframe_records"}:
        rows = asked["dataframe_records"]
        if any(set(row) != {"image"} for row in rows):
            raise ValueError
        return [row["image"] for row in rows]
    raise ValueError


def make_app(config: Config, champion: Champion, metrics: Metrics) -> Gate:
    """Return the whole application."""
    from mlflow.pyfunc.scoring_server import init

    app: FastAPI = init(Scored())
    # Pages that load their scripts from another host.
    foreign = ("/docs", "/redoc")
    app.router.routes[:] = [r for r in app.router.routes if getattr(r, "path", "") not in foreign]
    page = PAGE.read_text(encoding="utf-8")
    policy = _policy(page)

    async def refused(_: Request, error: Exception) -> Response:
        refusal = Refusal.of(error)
        metrics.refused.labels(refusal.reason).inc()
        return refusal.response()

    async def wrong(_: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            where = ", ".join(str(item["loc"][-1]) for item in error.errors())
            metrics.refused.labels("parameter").inc()
            return JSONResponse({"error": f"{where}: outside its range or missing"}, 400)
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    for kind in (Refusal, PictureError, ParameterError):
        app.add_exception_handler(kind, refused)
    for other in (RequestValidationError, HTTPException):
        app.add_exception_handler(other, wrong)

    @app.get("/", include_in_schema=False)
    async def show_page() -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        return Response(
            prometheus_client.generate_latest(metrics.registry),
            media_type=prometheus_client.CONTENT_TYPE_LATEST,
        )

    @app.post("/predict", openapi_extra=_UPLOAD)
    async def predict(
        request: Request, conf: float | None = None, iou: float | None = None,
        max_det: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Detect objects in one picture, sent as the form field ``picture``."""
        given = {"conf": conf, "iou": iou, "max_det": max_det}
        thresholds = Thresholds(**{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
        turn = _turn.get()
        async with request.form(max_files=1, max_fields=1) as form:
            upload = form.get("picture")
            if not isinstance(upload, UploadFile):
                raise Refusal(400, "form", f"send one picture as the form field picture: {HOW}")
            data = await upload.read()
        started = time.perf_counter()
        found = await asyncio.to_thread(_detect, turn.serving.detector, data, thresholds, config)
        return answer_of(turn.serving.version, found, time.perf_counter() - started)

    return Gate(app, config, champion, metrics)


_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["picture"],
                    "properties": {"picture": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


def _detect(detector: Detector, data: bytes, thresholds: Thresholds, config: Config) -> Detections:
    return detector.detect(decode(data, config.limits.pixels), thresholds)


def answer_of(version: ModelVersion, found: Detections, seconds: float) -> dict[str, Any]:
    """Return what ``/predict`` answers; boxes are x1, y1, x2, y2 in px of the displayed picture."""
    return {
        "model": {"name": version.name, "version": str(version.version)},
        "milliseconds": round(seconds * 1000, 1),
        "height": found.height,
        "width": found.width,
        "detections": found.objects(),
    }


def _policy(page: str) -> str:
    """Return the page's content security policy: its own script and style, nothing else."""

    def digests(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        hashes = (hashlib.sha256(text.encode()).digest() for text in found)
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)

    return (
        f"default-src 'none'; script-src {digests('script')}; style-src {digests('style')}; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


class Protocol(H11Protocol):
    """HTTP/1.1 that closes a connection on which no request begins within ``header`` seconds."""

    header = Limits.header

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._expect_request()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._expect_request()

    def _expect_request(self) -> None:
        answered = self.cycle

        def close() -> None:
            if self.cycle is answered and not self.transport.is_closing():
                self.transport.close()

        self.loop.call_later(self.header, close)


def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT."""
    metrics = Metrics()
    champion = Champion(config, metrics)
    champion.start()
    settings = uvicorn.Config(
        make_app(config, champion, metrics),
        host=config.host,
        port=config.port,
        http=Protocol,
        ws="none",
        proxy_headers=False,
        lifespan="off",
        access_log=False,
        server_header=False,
        headers=[(PROOF, os.environ.get("SERVE_CHECKOUT", ""))],
        limit_concurrency=config.limits.connections,
        timeout_graceful_shutdown=10,
        log_level="warning",
    )
    uvicorn.Server(settings).run()
    champion.stop()


def main() -> None:
    """Serve what the environment says."""
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    for chatty in ("urllib3", "mlflow", "python_multipart"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    serve(Config.read(os.environ))


if __name__ == "__main__":
    sys.exit(run_command(main))
