"""Converge the whole stack: ``python -m src.bootstrap [--trust-fingerprint | --look]``."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import sys
from pathlib import Path

from src.bootstrap import mlflow_server, object_store, report, zenml_server, zenml_state
from src.client import TEMPORARY, use_stack
from src.errors import run_command
from src.files import sweep_own, write_private
from src.locks import hold
from src.settings import Settings, load_settings


def fingerprint(settings: Settings) -> str:
    """Return a hash of all that the stack is made of: the settings and this package's code."""
    digest = hashlib.sha256(settings.model_dump_json().encode())
    for module in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(module.read_bytes())
    return digest.hexdigest()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m src.bootstrap", description=__doc__)
    parser.add_argument(
        "--trust-fingerprint",
        action="store_true",
        help="do nothing when neither settings nor code have changed since the last time",
    )
    parser.add_argument(
        "--look",
        action="store_true",
        help="change nothing; print what is not as the settings say, and end with 1 if anything is",
    )
    given = parser.parse_args()
    trust = given.trust_fingerprint
    settings = load_settings()
    if given.look:
        found = faults(settings)
        sys.stdout.writelines(f"{fault}: make stack\n" for fault in found)
        return int(bool(found))
    sweep_own(TEMPORARY)  # of killed ones; where nothing is to be done nobody else would
    if trust and _is_known(settings):
        return 0
    with hold("services", "make stack"):  # two at once would both make what is missing
        if not (trust and _is_known(settings)):
            converge(settings)
    return 0


def faults(settings: Settings) -> list[str]:
    """Return what the servers, which all answer, don't hold as the settings say."""
    found = []
    if not object_store.is_reachable(settings):
        found.append("the object store lacks a bucket, or refuses the keys of .env")
    if (server := zenml_server.signed_in(settings, anew=True)) is None:
        found.append("ZenML refuses this checkout's API key, or has not given it one yet")
    elif not zenml_state.is_right(server, settings):
        found.append("the ZenML stack, its components or secrets are not as .env says")
    return found


def converge(settings: Settings) -> None:
    """Bring all in line, a line for each."""
    object_store.converge(settings)
    mlflow_server.converge(settings)
    if zenml_state.is_right(zenml_server.converge(settings), settings):
        for what in zenml_state.lines(settings):
            report(what, "unchanged")
    else:
        use_stack(settings)
        os.environ.pop("ZENML_ACTIVE_STACK_ID", None)  # it would hide which one is active
        logging.disable(logging.WARNING)  # ZenML's notes on creating its own configuration
        from src.bootstrap import zenml_stack

        zenml_stack.converge(settings)
    write_private(_record(settings), fingerprint(settings))


def _is_known(settings: Settings) -> bool:
    """Tell whether nothing has changed since the last time, and the servers hold what they did.

    They may be new and empty: their data is on volumes that can be deleted.
    """
    record = _record(settings)
    if not record.is_file() or record.read_bytes() != fingerprint(settings).encode():
        return False
    return object_store.is_reachable(settings) and zenml_server.knows_stack(settings)


def _record(settings: Settings) -> Path:
    return settings.backend_state / "stack-fingerprint"


if __name__ == "__main__":
    sys.exit(run_command(main))
