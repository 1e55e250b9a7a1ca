"""Free what was deleted in the pages: ``python -m src.prune [--yes]``.

MLflow and ZenML only mark what is deleted in their pages, and DVC keeps every version: the bytes
stay in the store. Here they go: MLflow's deleted runs, experiments and models (``mlflow gc``),
ZenML's artifacts that no run refers to any more, and DVC's versions that neither the checkout nor a
commit points to. What a registered version needs stays.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from src.bootstrap.object_store import Consumer, consumers
from src.client import use_stack
from src.datasets.versioning import Versions
from src.errors import UserError, run_command
from src.settings import ROOT, Settings, load_settings

BATCH = 200  # ids on one command line


class PruneError(UserError):
    """Nothing was deleted; the message says why and what to do."""


@dataclass
class Plan:
    """What would go."""

    runs: list[str] = field(default_factory=list)  # MLflow's ids
    experiments: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # deleted runs that a registered version needs
    artifacts: list[Any] = field(default_factory=list)  # ZenML's artifact versions
    objects: int = 0  # DVC's, in its cache here and in the store

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.runs or self.experiments or self.artifacts or self.objects)

    def lines(self) -> Iterator[str]:
        """Yield what would go, a line each."""
        yield f"MLflow: {len(self.runs)} deleted runs, {len(self.experiments)} deleted experiments"
        yield f"ZenML: {len(self.artifacts)} artifacts that no run refers to"
        yield f"DVC: {self.objects} files of versions that no commit and no pointer refers to"
        yield from (f"kept: {line}" for line in self.kept)


def plan() -> Plan:
    """Return what would go.

    Raises:
        PruneError: When a registered version's run lies in a deleted experiment, which would take
            it along.
    """
    found = Plan(artifacts=list(_unused_artifacts()), objects=Versions().unused())
    _plan_mlflow(found)
    return found


def _plan_mlflow(found: Plan) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    client = MlflowClient()
    needed: dict[str, str] = {}  # run id: the version that needs it
    for version in _pages(client.search_model_versions):
        needed[str(version.run_id)] = f"{version.name} version {version.version}"
    experiments = list(_pages(client.search_experiments, view_type=ViewType.ALL))
    for experiment in experiments:
        gone = experiment.lifecycle_stage == "deleted"
        runs = list(
            _pages(
                client.search_runs,
                [experiment.experiment_id],
                run_view_type=ViewType.DELETED_ONLY,
                max_results=1000,
            )
        )
        held = [run for run in runs if run.info.run_id in needed]
        if gone and held:
            version = needed[held[0].info.run_id]
            raise PruneError(
                f"the deleted experiment {experiment.name} holds {held[0].info.run_name}, which is "
                f"{version}: restore the experiment, or delete that version in MLflow's page"
            )
        found.kept += [f"{r.info.run_name}, which is {needed[r.info.run_id]}" for r in held]
        found.runs += [run.info.run_id for run in runs if run.info.run_id not in needed]
        if gone:
            found.experiments.append(experiment.experiment_id)


def _pages(search: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(*arguments, page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return


def _unused_artifacts() -> Iterator[Any]:
    """Yield ZenML's artifact versions of runs that are gone; what was saved by hand stays."""
    from zenml.client import Client
    from zenml.enums import ArtifactSaveType
    from zenml.utils.pagination_utils import depaginate

    for version in depaginate(Client().list_artifact_versions, only_unused=True, hydrate=True):
        if version.save_type == ArtifactSaveType.STEP_OUTPUT:
            yield version


def prune(found: Plan) -> None:
    """Delete for good what the plan names."""
    _prune_mlflow(found)
    from zenml.client import Client

    for version in found.artifacts:
        Client().delete_artifact_version(
            version.id, delete_metadata=True, delete_from_artifact_store=True
        )
        artifact = Client().get_artifact(version.artifact.id)
        if not artifact.versions:
            Client().delete_artifact(artifact.id)
    Versions().remove_unused()


def _prune_mlflow(found: Plan) -> None:
    """Run ``mlflow gc`` where MLflow's server runs: it needs the server's database."""
    if not found.kept:
        _gc()
    for start in range(0, len(found.runs) if found.kept else 0, BATCH):
        _gc("--run-ids", ",".join(found.runs[start : start + BATCH]))


def _gc(*options: str) -> None:
    command = [str(ROOT / "scripts" / "run-in-service.sh"), "mlflow", "gc", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise PruneError(f"mlflow gc failed: {done.stderr.strip().splitlines()[-1:]}")


def stored(settings: Settings) -> int:
    """Return how many bytes the objects in this stack's buckets take, and DVC's cache here."""
    return sum(_bucket_size(settings, consumer) for consumer in consumers(settings)) + sum(
        file.stat().st_size for file in (ROOT / ".dvc" / "cache").rglob("*") if file.is_file()
    )


def _bucket_size(settings: Settings, consumer: Consumer) -> int:
    import boto3

    s3 = boto3.client(
        "s3",
        endpoint_url=settings.store_url,
        aws_access_key_id=consumer.access_key,
        aws_secret_access_key=consumer.secret_key,
        region_name="us-east-1",
    )
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=consumer.bucket)
    return sum(item["Size"] for page in pages for item in page.get("Contents", []))


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise PruneError("nothing deleted: confirm on a terminal, or run make prune FORCE=1")
    print("Type prune to go on: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != "prune":
        raise PruneError("nothing deleted")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m src.prune", description=__doc__)
    parser.add_argument("--yes", action="store_true", help="don't ask")
    yes = parser.parse_args().yes
    settings = load_settings()
    use_stack(settings)
    found = plan()
    for line in found.lines():
        print(line)
    if found.empty:
        print("nothing to free")
        return
    if not yes:
        _confirm()
    before = stored(settings)
    prune(found)
    after = stored(settings)
    print(f"bytes before: {before:,}, after: {after:,}, freed: {before - after:,}")


if __name__ == "__main__":
    sys.exit(run_command(main))
