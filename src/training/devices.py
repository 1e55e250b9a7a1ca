"""What this machine trains on."""

from __future__ import annotations

import os


def visible() -> list[str]:
    """Return the Nvidia GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    A scheduler gives some of a machine's GPUs by that variable, or none by an empty one; CUDA takes
    its entries up to the first that can't be one, and none where one stands twice. PyTorch's import
    is not paid for.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        count = int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return [str(number) for number in range(count)]
    names: list[str] = []
    for name in map(str.strip, given.split(",")):
        known = name.startswith(("GPU-", "MIG-")) or (name.isdigit() and int(name) < count)
        if name in names:
            return []
        if not known:
            break
        names.append(name)
    return names


def gpus() -> int:
    """Return the number of Nvidia GPUs that this process may use."""
    return len(visible())
