"""The ZenML secrets, components and stack, through ZenML's client.

Import this only after ``settings.use_stack``: ZenML reads its environment on import.
"""

from __future__ import annotations

from typing import Any

from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.models import ComponentResponse

from src.bootstrap import Outcome, report
from src.files import write_private
from src.settings import Settings

STACK = "mlflow_stack"
TRACKER = "mlflow_tracker"
ARTIFACT_STORE = "minio_artifacts"
STORE_SECRET = "minio_zenml_secret"
MLFLOW_SECRET = "mlflow_zenml_secret"


def converge(settings: Settings) -> None:
    """Create or correct the secrets, tracker, artifact store and stack; set the stack active."""
    client = Client()
    _ensure_secret(
        client,
        STORE_SECRET,
        {
            "aws_access_key_id": settings.zenml_s3_access_key,
            "aws_secret_access_key": settings.zenml_s3_secret_key,
        },
    )
    _ensure_secret(
        client,
        MLFLOW_SECRET,
        {
            "username": settings.mlflow_admin_username,
            "password": settings.mlflow_admin_password,
        },
    )
    tracker = _ensure_component(
        client,
        TRACKER,
        "mlflow",
        StackComponentType.EXPERIMENT_TRACKER,
        {
            "tracking_uri": settings.mlflow_url,
            "tracking_username": f"{{{{{MLFLOW_SECRET}.username}}}}",
            "tracking_password": f"{{{{{MLFLOW_SECRET}.password}}}}",
        },
    )
    store = _ensure_component(
        client,
        ARTIFACT_STORE,
        "s3",
        StackComponentType.ARTIFACT_STORE,
        {
            "path": f"s3://{settings.zenml_bucket}",
            "authentication_secret": STORE_SECRET,
            "client_kwargs": {"endpoint_url": settings.store_url},
        },
    )
    orchestrator = client.get_stack_component(
        StackComponentType.ORCHESTRATOR, "default", allow_name_prefix_match=False
    )
    _ensure_stack(
        client,
        settings,
        {
            StackComponentType.ORCHESTRATOR: orchestrator,
            StackComponentType.ARTIFACT_STORE: store,
            StackComponentType.EXPERIMENT_TRACKER: tracker,
        },
    )


def _ensure_secret(client: Client, name: str, values: dict[str, str]) -> None:
    outcome: Outcome = "unchanged"
    found = client.list_secrets(name=name)
    if not found:
        client.create_secret(name, values)
        outcome = "created"
    else:
        try:
            held = client.get_secret(found[0].id).secret_values
        except Exception as error:
            if "decrypt" not in str(error).lower():
                raise
            held = {}
        if held != values or found[0].private:
            # Written again as a whole: after a change of ZENML_ENCRYPTION_KEY the server can't
            # read the old values, which an update would need.
            client.delete_secret(str(found[0].id))
            client.create_secret(name, values)
            outcome = "updated"
    report(f"secret {name}", outcome)


def _ensure_component(
    client: Client,
    name: str,
    flavor: str,
    component_type: StackComponentType,
    configuration: dict[str, Any],
) -> ComponentResponse:
    what = f"{component_type.value.replace('_', ' ')} {name}"
    found = client.list_stack_components(name=name, type=component_type)
    if not found:
        component = client.create_stack_component(name, flavor, component_type, configuration)
        report(what, "created")
        return component
    component = found[0]
    if component.flavor_name != flavor:
        # A flavor can't be changed: the old one keeps its history under another name.
        client.update_stack_component(
            component.id,
            component_type,
            name=f"{name}_{component.flavor_name}_{component.id.hex[:6]}",
        )
        component = client.create_stack_component(name, flavor, component_type, configuration)
        report(what, "updated")
        return component
    held = component.configuration
    if {key: value for key, value in held.items() if value is not None} == configuration:
        report(what, "unchanged")
        return component
    surplus = dict.fromkeys(held.keys() - configuration.keys())
    component = client.update_stack_component(
        component.id, component_type, configuration={**surplus, **configuration}
    )
    report(what, "updated")
    return component


def _ensure_stack(
    client: Client,
    settings: Settings,
    components: dict[StackComponentType, ComponentResponse],
) -> None:
    wanted = {kind: [component.id] for kind, component in components.items()}
    found = client.list_stacks(name=STACK)
    if not found:
        client.create_stack(STACK, {kind: ids[0] for kind, ids in wanted.items()})
        report(f"stack {STACK}", "created")
    else:
        held = {kind: [c.id for c in parts] for kind, parts in found[0].components.items()}
        if {kind: held.get(kind) for kind in wanted} == wanted:
            report(f"stack {STACK}", "unchanged")
        else:
            client.update_stack(
                found[0].id, component_updates={kind: ids[0] for kind, ids in wanted.items()}
            )
            report(f"stack {STACK}", "updated")
    stack = client.get_stack(STACK, allow_name_prefix_match=False)
    write_private(settings.stack_id_file, f"{stack.id}\n")
    if client.active_stack_model.id == stack.id:
        report("active stack", "unchanged")
    else:
        client.activate_stack(stack.id)
        report(f"active stack {STACK}", "updated")
