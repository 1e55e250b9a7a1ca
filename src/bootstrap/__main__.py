"""Converge the whole stack: ``python -m src.bootstrap [--trust-fingerprint]``."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import sys
from pathlib import Path

from src.bootstrap import mlflow_server, object_store, zenml_server
from src.client import use_stack
from src.errors import run_command
from src.files import write_private
from src.settings import Settings, load_settings


def fingerprint(settings: Settings) -> str:
    """Return a hash of all that the stack is made of: the settings and this package's code."""
    digest = hashlib.sha256(settings.model_dump_json().encode())
    for module in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(module.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m src.bootstrap", description=__doc__)
    parser.add_argument(
        "--trust-fingerprint",
        action="store_true",
        help="do nothing when neither settings nor code have changed since the last time",
    )
    trust = parser.parse_args().trust_fingerprint
    settings = load_settings()
    record = settings.backend_state / "stack-fingerprint"
    current = fingerprint(settings)
    if trust and record.is_file() and record.read_text() == current:
        return
    object_store.converge(settings)
    mlflow_server.converge(settings)
    zenml_server.converge(settings)
    use_stack(settings)
    os.environ.pop("ZENML_ACTIVE_STACK_ID", None)  # it would hide which one is active
    logging.disable(logging.WARNING)  # ZenML's notes on creating its own configuration
    from src.bootstrap import zenml_stack

    zenml_stack.converge(settings)
    write_private(record, current)


if __name__ == "__main__":
    sys.exit(run_command(main))
