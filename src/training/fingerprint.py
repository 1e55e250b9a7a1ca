"""What determines a training's result, apart from its recipe, data and starting weights.

``src.zenml_steps.train_steps`` puts it into the key under which ZenML looks for a
finished training. ZenML's own hashes read the files on disk when a run begins; edit one during a
grid, and the old code's results end up under the new code's key. So this looks at the code in
memory, in the process that trains.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

PACKAGES = ("torch", "torchvision", "ultralytics", "numpy")  # whose code makes them too
# Where Nvidia's, AMD's and, on WSL2, Windows' drivers show themselves.
GPU_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
# All that a grid's record names; the rest can't change a result.
RECORDED = (*PACKAGES, "zenml", "mlflow")


def determinants(*modules: ModuleType) -> dict[str, str]:
    """Return versions, threads, device kind and the code's hash, as they are on a run's tags."""
    here = {"threads": threads(), "device": device(), "code": code_hash(*modules)}
    return versions(PACKAGES) | here


@cache
def versions(packages: tuple[str, ...] = RECORDED) -> dict[str, str]:
    """Return Python's and the packages' versions."""
    names = {"ultralytics": "ultralytics-opencv-headless"}
    found = {package: version(names.get(package, package)) for package in packages}
    return {"python": platform.python_version()} | found


def threads() -> str:
    """Return how many threads a training on a CPU uses: sums depend on it."""
    return os.environ.get("OMP_NUM_THREADS", "1")


@cache
def device() -> str:
    """Return the kind of device that trains here: ``cpu``, ``mps``, or the GPU's name."""
    if sys.platform == "linux" and not any(Path(node).exists() for node in GPU_NODES):
        return f"cpu {platform.machine()}"  # no need to import PyTorch, which takes seconds
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name(0))
    if torch.backends.mps.is_available():
        return "mps"
    return f"cpu {platform.machine()}"


def machine() -> str:
    """Return the processor's or GPU's name: times on different ones don't compare."""
    cpus = Path("/proc/cpuinfo")
    if device().startswith("cpu") and cpus.is_file():
        for line in cpus.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return device()


def code_hash(*modules: ModuleType) -> str:
    """Return a hash of the modules' code as it is in memory; comments and docs don't count."""
    digest = hashlib.sha256()
    for module in modules:
        for line in described(module):
            digest.update(line.encode())
    return digest.hexdigest()[:16]


def described(module: ModuleType) -> Iterator[str]:
    """Yield a line for each function, class and plain value of a module, in order of its name."""
    for name, value in sorted(vars(module).items()):
        if not name.startswith("__"):
            yield from _lines(f"{module.__name__}.{name}", value, module.__name__)


def _lines(name: str, value: Any, module: str) -> Iterator[str]:
    value = getattr(value, "entrypoint", value)  # what ZenML's @step wraps
    value = getattr(value, "__wrapped__", value)
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, FunctionType):
        if value.__module__ == module:
            defaults = (value.__defaults__, value.__kwdefaults__)
            yield f"{name} {_plain(value.__code__)} {_plain(defaults)}\n"
    elif isinstance(value, type):
        if value.__module__ == module:
            for member, inner in sorted(vars(value).items()):
                if not member.startswith("__") or isinstance(inner, FunctionType):
                    yield from _lines(f"{name}.{member}", inner, module)
    elif _is_plain(value):
        yield f"{name} {_plain(value)}\n"


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list | set | frozenset):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(item) for pair in value.items() for item in pair)
    return value is None or isinstance(value, str | bytes | int | float | complex)


def _plain(value: Any) -> str:
    """Return a text that is equal for equal values, in every process."""
    if isinstance(value, CodeType):
        constants = [_plain(constant) for constant in value.co_consts[_has_doc(value) :]]
        parts = (value.co_code.hex(), value.co_names, value.co_varnames, value.co_freevars)
        return f"code({parts} {constants} {value.co_flags} {value.co_argcount})"
    if isinstance(value, set | frozenset):
        return f"set({sorted(map(_plain, value))})"
    if isinstance(value, dict):
        return f"dict({sorted((_plain(k), _plain(v)) for k, v in value.items())})"
    if isinstance(value, tuple | list):
        return f"list({[_plain(item) for item in value]})"
    return f"{type(value).__name__}:{value if _is_plain(value) else ''}"


def _has_doc(code: CodeType) -> bool:
    """Tell whether the first constant is a docstring."""
    if sys.version_info >= (3, 13):
        return bool(code.co_flags & inspect.CO_HAS_DOCSTRING)
    return (
        bool(code.co_consts) and isinstance(code.co_consts[0], str) and code.co_name != "<lambda>"
    )
