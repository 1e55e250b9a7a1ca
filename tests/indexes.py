"""Two package indexes on loopback, with stub wheels, and a lock of them: for the real pip."""

from __future__ import annotations

import base64
import hashlib
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LOCK = "tiny==1.0 \\\n    --hash=sha256:{}\n    # via nothing\ntorch==2.14.1\ntorchvision==0.29.1\n"


def wheel(folder: Path, name: str, version: str, requires: str = "") -> Path:
    """Write a wheel of one module that says its version."""
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    if requires:
        metadata += f"Requires-Dist: {requires}\n"
    files = {
        f"{module}.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
        for path, text in files.items()
    )
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(path, text)
    return file


@contextmanager
def served_indexes(base: Path) -> Iterator[tuple[str, str]]:
    """Serve ``/pypi`` and ``/cpu`` on loopback; yield the address and the lock."""
    tiny = wheel(base / "pypi", "tiny", "1.0")
    wheel(base / "pypi", "nvidia-stub", "13.0")
    wheel(base / "pypi", "nvidia-ml-py", "13.0")
    wheel(base / "pypi", "torch", "2.14.1", "nvidia-stub")
    wheel(base / "pypi", "torchvision", "0.29.1", "torch")
    wheel(base / "cpu", "torch", "2.14.1+cpu")
    wheel(base / "cpu", "torchvision", "0.29.1+cpu")
    handler = partial(SimpleHTTPRequestHandler, directory=str(base))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        digest = hashlib.sha256(tiny.read_bytes()).hexdigest()
        yield f"http://127.0.0.1:{server.server_port}", LOCK.format(digest)
        server.shutdown()
