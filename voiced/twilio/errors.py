"""What can be wrong with a carrier, as exceptions that carry a short reason fit for a label."""

from __future__ import annotations

__all__ = ["ProtocolError", "StreamRefused"]


class ProtocolError(Exception):
    """The carrier sent a message that is not as documented.

    `reason` is one of a few fixed words, for counters; `detail` is for one log line. The detail
    names keys and types, never what the message held.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class StreamRefused(Exception):
    """A media stream was closed before it became a leg; `reason` is one of a few fixed words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
