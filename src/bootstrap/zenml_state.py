"""What ZenML's server should hold, and whether it does, over its REST API.

ZenML's client takes seconds to import: ``zenml_stack`` uses it, where there is something to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from src.bootstrap.applied import former_buckets
from src.bootstrap.zenml_server import TIMEOUT, Server
from src.settings import ROOT, Settings

STACK = "mlflow_stack"
TRACKER = "mlflow_tracker"
ARTIFACT_STORE = "minio_artifacts"
STORE_SECRET = "minio_zenml_secret"
MLFLOW_SECRET = "mlflow_zenml_secret"


@dataclass(frozen=True)
class Component:
    """A component of the stack; its name and kind identify it."""

    kind: str  # ``experiment_tracker`` or ``artifact_store``
    name: str
    flavor: str
    configuration: dict[str, Any]

    @property
    def shown(self) -> str:
        """How messages call it."""
        return f"{self.kind.replace('_', ' ')} {self.name}"

    def holds(self, configuration: dict[str, Any]) -> bool:
        """Tell whether a configuration of the server is this one; blanks don't count."""
        held = {key: value for key, value in configuration.items() if value is not None}
        return held == self.configuration


def secrets(settings: Settings) -> dict[str, dict[str, str]]:
    """Return the secrets' values by name."""
    return {
        STORE_SECRET: {
            "aws_access_key_id": settings.zenml_s3_access_key,
            "aws_secret_access_key": settings.zenml_s3_secret_key,
        },
        MLFLOW_SECRET: {
            "username": settings.mlflow_admin_username,
            "password": settings.mlflow_admin_password,
        },
    }


def components(settings: Settings) -> tuple[Component, Component]:
    """Return the experiment tracker and the artifact store."""
    return (
        Component(
            "experiment_tracker",
            TRACKER,
            "mlflow",
            {
                "tracking_uri": settings.mlflow_url,
                "tracking_username": f"{{{{{MLFLOW_SECRET}.username}}}}",
                "tracking_password": f"{{{{{MLFLOW_SECRET}.password}}}}",
            },
        ),
        _artifact_store(settings, ARTIFACT_STORE, settings.zenml_bucket),
    )


def former_stores(settings: Settings) -> list[Component]:
    """Return the artifact stores of earlier buckets, which the artifacts in them refer to."""
    return [
        _artifact_store(settings, store_of(bucket), bucket) for bucket in former_buckets(settings)
    ]


def store_of(bucket: str) -> str:
    """Return the name of the artifact store of a bucket that is not the present one."""
    return f"{ARTIFACT_STORE}_{bucket}"


def _artifact_store(settings: Settings, name: str, bucket: str) -> Component:
    return Component(
        "artifact_store",
        name,
        "s3",
        {
            "path": f"s3://{bucket}",
            "authentication_secret": STORE_SECRET,
            "client_kwargs": {"endpoint_url": settings.store_url},
        },
    )


def lines(settings: Settings) -> list[str]:
    """Return what is reported on, in order."""
    parts = [part.shown for part in (*components(settings), *former_stores(settings))]
    names = [f"secret {name}" for name in secrets(settings)]
    return [*names, *parts, f"stack {STACK}", "active stack"]


def is_right(server: Server, settings: Settings) -> bool:
    """Tell whether the server, signed in at, and this checkout's client hold all of it."""
    client = settings.backend_state / "zenml-client" / "config.yaml"
    if not (client.is_file() and settings.stack_id):
        return False
    return _secrets_right(server, settings) and _stack_right(server, settings)


def _secrets_right(server: Server, settings: Settings) -> bool:
    for name, values in secrets(settings).items():
        secret: Any = server.find("secrets", name)
        if secret is None or secret["body"]["private"]:
            return False
        answer = server.http.get(f"{server.url}/secrets/{secret['id']}", timeout=TIMEOUT)
        # It fails where the server can't decrypt it: ZENML_ENCRYPTION_KEY was changed.
        if not answer.ok or answer.json()["body"]["values"] != values:
            return False
    return True


def _stack_right(server: Server, settings: Settings) -> bool:
    wanted = {"orchestrator": ["default"]}
    for part in components(settings):
        wanted[part.kind] = [part.name]
    for part in (*components(settings), *former_stores(settings)):
        held: Any = server.find("components", part.name, type=part.kind, hydrate="true")
        if held is None or held["body"]["flavor_name"] != part.flavor:
            return False
        if not part.holds(held["metadata"]["configuration"]):
            return False
    stack: Any = server.find("stacks", STACK, hydrate="true")
    if stack is None:
        return False
    parts = stack["metadata"]["components"]
    found = {kind: [item["name"] for item in parts.get(kind, ())] for kind in wanted}
    return found == wanted and _known_here(settings) == {stack["id"]}


def _known_here(settings: Settings) -> set[str]:
    """Return the ids that are ours, and active, in the files of this checkout's clients."""
    ids = {settings.stack_id}
    configured = settings.backend_state / "zenml-client" / "config.yaml"
    ids.add(str(_yaml(configured).get("active_stack_id")))
    here = ROOT / ".zen" / "config.yaml"  # of ``zenml init``, which the client prefers
    if here.is_file() and (own := _yaml(here).get("active_stack_id")):
        ids.add(str(own))
    return ids


def _yaml(file: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(file.read_bytes()) or {}
    except yaml.YAMLError:  # it may be torn
        return {}
