"""Reads server events with the official SDK's types, and allows nothing that they do not have."""

from __future__ import annotations

from typing import Any, get_args

from openai.types.beta import realtime as beta
from openai.types.realtime import RealtimeServerEvent
from openai.types.realtime.realtime_session_create_response import RealtimeSessionCreateResponse
from pydantic import BaseModel

TYPES: dict[str, type[BaseModel]] = {
    name: model
    for model in get_args(get_args(RealtimeServerEvent)[0])
    for name in get_args(model.model_fields["type"].annotation)
}


def extras(model: Any, path: str = "") -> list[str]:
    """Fields that the SDK kept without knowing them."""
    if isinstance(model, list):
        return [
            found for i, element in enumerate(model) for found in extras(element, f"{path}[{i}]")
        ]
    if not isinstance(model, BaseModel):
        return []
    found = [f"{path}.{name}" for name in (model.model_extra or {})]
    for name in type(model).model_fields:
        found += extras(getattr(model, name), f"{path}.{name}")
    return found


# The session event's type in the SDK is the request's; these three are read-only, and documented
# in the reference. The type of the client_secrets response knows two of them.
READ_ONLY = {".session.id", ".session.object", ".session.expires_at"}


BETA_TYPES: dict[str, type[BaseModel]] = {
    name: model
    for model in get_args(get_args(beta.RealtimeServerEvent)[0])
    for name in get_args(model.model_fields["type"].annotation)
}


def check_beta(event: dict[str, Any]) -> BaseModel:
    """The same with the types that the SDK has kept for the beta interface."""
    model = BETA_TYPES[event["type"]].model_validate(event)
    unknown = set(extras(model)) - READ_ONLY
    assert not unknown, f"{event['type']}: the SDK does not know {unknown}"
    assert model.model_dump(mode="json", exclude_unset=True) == event
    return model


def check(event: dict[str, Any]) -> BaseModel:
    """Parse; raises where a field is missing, mistyped or unknown, or does not survive."""
    model = TYPES[event["type"]].model_validate(event)
    unknown = set(extras(model)) - READ_ONLY
    assert not unknown, f"{event['type']}: the SDK does not know {unknown}"
    assert model.model_dump(mode="json", exclude_unset=True) == event
    if event["type"].startswith("session."):
        session = dict(event["session"])
        assert session.pop("expires_at") > 0
        assert not extras(RealtimeSessionCreateResponse.model_validate(session)), session
    return model
