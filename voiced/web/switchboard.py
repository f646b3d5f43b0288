"""What the carrier's webhooks ask of the daemon, and what they may be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

__all__ = ["Admitted", "CallStatus", "Refused", "StreamStatus", "Switchboard", "VoiceRequest"]


@dataclass(frozen=True, slots=True)
class VoiceRequest:
    """A call comes in. All of it is the carrier's word; `caller` is whatever the caller set.

    `parameters` holds every parameter received, the first value of each, at most 64 KiB in all.
    """

    call_sid: str
    account_sid: str
    caller: str  # E.164, "client:…", "sip:…", "anonymous" or anything else
    called: str
    direction: Literal["inbound", "outbound"] = "inbound"
    forwarded_from: str | None = None
    stir_verstat: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Admitted:
    """Connect the call to the stream at `stream_path` ("/twilio/media/…"), with `<Parameter>`s."""

    stream_path: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """Do not answer the call. `reason` is for the log and the counter, never for the caller.

    `busy` gives a busy tone, `rejected` "not in service"; `error` is an HTTP 503, which makes
    Twilio try the number's fallback URL, where one is set.
    """

    reason: str
    answer: Literal["busy", "rejected", "error"] = "busy"


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """A stream status callback. `error` is Twilio's code or text (319xx) on `stream-error`."""

    call_sid: str
    stream_sid: str
    event: str  # "stream-started", "stream-stopped", "stream-error"
    error: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallStatus:
    """A call status callback; `duration_s` comes with the last one."""

    call_sid: str
    status: str  # "ringing", "in-progress", "completed", "busy", "failed", …
    duration_s: int | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


class Switchboard(Protocol):
    """The daemon as its webhooks see it."""

    async def admit(self, request: VoiceRequest) -> Admitted | Refused:
        """Decide on an incoming call, within `ADMIT_TIMEOUT_S`; may be asked twice for one call.

        A refusal is logged and counted here. Cancelled when the carrier gives up on the webhook or
        the time is over.
        """

    def stream_status(self, status: StreamStatus) -> None:
        """Take note of a stream's start, stop or error."""

    def call_status(self, status: CallStatus) -> None:
        """Take note of a call's progress."""
