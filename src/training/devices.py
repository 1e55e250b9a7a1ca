"""What this machine trains on."""

from __future__ import annotations


def gpus() -> int:
    """Return the number of Nvidia GPUs, without paying for PyTorch's import."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
