"""The ZenML secrets, components and stack, through ZenML's client.

Import this only after ``settings.use_stack``: ZenML reads its environment on import.
"""

from __future__ import annotations

from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.models import ComponentResponse

from src.bootstrap import Outcome, report, zenml_state
from src.bootstrap.zenml_state import STACK, Component
from src.files import write_private
from src.settings import Settings


def converge(settings: Settings) -> None:
    """Create or correct the secrets, tracker, artifact store and stack; set the stack active."""
    client = Client()
    for name, values in zenml_state.secrets(settings).items():
        _ensure_secret(client, name, values)
    orchestrator = client.get_stack_component(
        StackComponentType.ORCHESTRATOR, "default", allow_name_prefix_match=False
    )
    parts = {StackComponentType.ORCHESTRATOR: orchestrator}
    earlier = _follow_bucket(client, settings)
    for part in zenml_state.components(settings):
        new: Outcome = (
            "updated" if earlier and part.name == zenml_state.ARTIFACT_STORE else "created"
        )
        parts[StackComponentType(part.kind)] = _ensure_component(client, part, new)
    for part in zenml_state.former_stores(settings):
        _ensure_component(client, part)
    _ensure_stack(client, settings, parts)


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


def _follow_bucket(client: Client, settings: Settings) -> bool:
    """Let each artifact store keep its bucket, under another name where it is not the present one.

    Artifacts refer to theirs by its id. Returns whether there is one of an earlier bucket.
    """
    kind, name = StackComponentType.ARTIFACT_STORE, zenml_state.ARTIFACT_STORE
    held = {item.name: item for item in client.list_stack_components(type=kind)}
    former = {part.configuration["path"]: part for part in zenml_state.former_stores(settings)}
    current = held.get(name)
    if current is not None and (part := former.get(current.configuration["path"])) is not None:
        client.update_stack_component(current.id, kind, name=part.name)
        current = None
    again = held.get(zenml_state.store_of(settings.zenml_bucket))
    if current is None and again is not None:
        client.update_stack_component(again.id, kind, name=name)
    return bool(former)


def _ensure_component(
    client: Client, part: Component, new: Outcome = "created"
) -> ComponentResponse:
    kind = StackComponentType(part.kind)
    found = client.list_stack_components(name=part.name, type=kind)
    if not found:
        made = client.create_stack_component(part.name, part.flavor, kind, part.configuration)
        report(part.shown, new)
        return made
    component = found[0]
    if component.flavor_name != part.flavor:
        # A flavor can't be changed: the old one keeps its history under another name.
        client.update_stack_component(
            component.id, kind, name=f"{part.name}_{component.flavor_name}_{component.id.hex[:6]}"
        )
        component = client.create_stack_component(part.name, part.flavor, kind, part.configuration)
        report(part.shown, "updated")
        return component
    if part.holds(component.configuration):
        report(part.shown, "unchanged")
        return component
    surplus = dict.fromkeys(component.configuration.keys() - part.configuration.keys())
    component = client.update_stack_component(
        component.id, kind, configuration={**surplus, **part.configuration}
    )
    report(part.shown, "updated")
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
