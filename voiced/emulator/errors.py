"""The `error` events of the Realtime server, with the texts that real servers send.

Codes and messages: OpenAI Realtime reference, and reports by users where the reference is silent.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "HttpRefused",
    "Refused",
    "invalid_value",
    "missing",
    "refusal",
    "unknown_item",
    "unknown_parameter",
]


class Refused(Exception):
    """What a client asked for is not done; the client gets an `error` event, nothing changes."""

    def __init__(
        self,
        code: str | None,
        message: str,
        param: str | None = None,
        *,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.kind = kind

    def body(self, event_id: str | None) -> dict[str, Any]:
        """Return the `error` object; `event_id` is that of the client's event, if it had one."""
        return {
            "type": self.kind,
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "event_id": event_id,
        }


class HttpRefused(Refused):
    """The same over HTTP, with the status that it is answered with."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        param: str | None = None,
        *,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(code, message, param, kind=kind)
        self.status = status


_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_STATUSES: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request could not be understood."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", "model_not_found", "You do not have access to this model."),
    404: ("invalid_request_error", "not_found", "Invalid URL."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached."),
}


def refusal(status: int, *, quota: bool = False) -> HttpRefused:
    """What a server answers with this status, where nothing more is to be said."""
    if quota:
        return HttpRefused(429, "insufficient_quota", _QUOTA, kind="insufficient_quota")
    server = ("server_error", "server_error", "The server had an error.")
    kind, code, message = _STATUSES.get(status, server)
    return HttpRefused(status, code, message, kind=kind)


def missing(param: str) -> Refused:
    """A field that has to be there is not."""
    return Refused("missing_required_parameter", f"Missing required parameter: '{param}'.", param)


def unknown_parameter(param: str) -> Refused:
    """A field that the protocol does not have."""
    return Refused("unknown_parameter", f"Unknown parameter: '{param}'.", param)


def invalid_value(message: str, param: str | None) -> Refused:
    """A field of the right type whose value is impossible."""
    return Refused("invalid_value", message, param)


def unknown_item(action: str, item_id: str) -> Refused:
    """`action` is retrieve, delete or truncate."""
    return Refused(
        f"item_{action}_invalid_item_id",
        f"Error {action[:-1]}ing item: the item with id '{item_id}' does not exist.",
        "item_id",
    )
