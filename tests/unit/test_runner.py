"""The runner contract: what runs a grid's cells here, and on a cluster, can be exchanged."""

import inspect
from types import ModuleType

import pytest

from src.zenml_pipelines import cluster, grid_workers
from src.zenml_pipelines.runner import Runner


@pytest.mark.parametrize("runner", [cluster, grid_workers], ids=lambda module: module.__name__)
@pytest.mark.parametrize("name", ["connect", "run_cells"])
def test_a_runner_keeps_the_contract(runner: ModuleType, name: str) -> None:
    contract = inspect.signature(getattr(Runner, name))
    own = inspect.signature(getattr(runner, name))
    assert list(own.parameters.values()) == list(contract.parameters.values())[1:]  # self
    assert own.return_annotation == contract.return_annotation
