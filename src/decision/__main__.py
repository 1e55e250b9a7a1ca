"""Decide on a grid's runs: ``python -m src.decision report``, ``… promote RUN``, ``… rollback``."""

from __future__ import annotations

import argparse
import sys

from src.champion.registry import (
    MODEL,
    RegistryError,
    find_run,
    is_outdated,
    promote,
    rollback,
    version_url,
)
from src.client import use_stack
from src.datasets import sets
from src.decision.filing import make_report
from src.decision.gate import check_export, judge
from src.errors import run_command
from src.locks import hold
from src.services import health
from src.services.outage import patience
from src.settings import ROOT, Settings, load_settings


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m src.decision", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    reporting = commands.add_parser("report", help="compare the latest grid, decide, write it up")
    reporting.add_argument("--force", action="store_true", help="decide on an incomplete grid")
    reporting.add_argument("--reason", default="", help="why; needed with --force")
    promotion = commands.add_parser("promote", help="make a run's weights the champion")
    promotion.add_argument("run", help="an MLflow run's id or name")
    promotion.add_argument("--force", action="store_true", help="whatever the gate says")
    promotion.add_argument("--reason", default="", help="why; needed with --force")
    commands.add_parser("rollback", help="go back to the previous champion")
    arguments = parser.parse_args()
    settings = load_settings()
    sets.require()
    use_stack(settings)
    what = f"make {arguments.command}"
    with hold("stack", what, shared=True), hold("registry", what):
        health.require(settings)
        with patience(settings):
            _decide(settings, arguments)


def _decide(settings: Settings, arguments: argparse.Namespace) -> None:
    if arguments.command == "report":
        folder = make_report(settings, force=arguments.force, reason=arguments.reason)
        print(f"report: {folder.relative_to(ROOT)}/report.html")
    elif arguments.command == "promote":
        _promote(settings, arguments.run, arguments.force, arguments.reason)
    else:
        now, replaced = rollback()
        print(f"{MODEL}: champion is version {now.version} again, was {replaced.version}")


def _promote(settings: Settings, name: str, force: bool, reason: str) -> None:
    run = find_run(name)
    if force and not reason:
        raise RegistryError("FORCE=1 needs a reason: make promote RUN=… FORCE=1 REASON='…'")
    if is_outdated(run):  # the champion already: nothing to judge
        why = reason or "the champion, as a model that anyone can load"
        version = promote(run, settings, why, force=force)
        print(f"{MODEL}: champion is version {version.version}, {version_url(settings, version)}")
        return
    verdict = check_export(judge(run, force=force), run, settings)
    for row in verdict.rows:
        print(f"  {row.scores['mAP50']:.4f}  {row.name}, test split at {row.imgsz} px")
    for line in verdict.reasons:
        print(f"  {line}")
    if not verdict.passed and not force:
        print(verdict.headline)
        return
    why = reason or "; ".join(verdict.reasons)
    if not verdict.passed:
        why = f"forced: {why}"
    version = promote(run, settings, why, force=force)
    print(f"{MODEL}: champion is version {version.version}, {version_url(settings, version)}")


if __name__ == "__main__":
    sys.exit(run_command(main))
