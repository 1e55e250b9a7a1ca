"""What a training asks of PyTorch and Ultralytics."""

import pytest

from src.training.trainer import _configure_libraries


@pytest.mark.parametrize(("variable", "threads"), [(None, 1), ("3", 3)])
def test_a_training_has_its_threads_on_a_machine_of_many_cores(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, threads: int
) -> None:
    import torch
    from ultralytics.utils import torch_utils

    monkeypatch.setattr(torch_utils, "NUM_THREADS", 7)  # Ultralytics' own choice for 8 cores
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    _configure_libraries()
    torch_utils.select_device("cpu", verbose=False)  # as each training and scoring does
    assert torch.get_num_threads() == threads
