"""The UDP ports of all calls, one task that reads them, one that paces what they send."""

from __future__ import annotations

from typing import Protocol

import trio

from voiced.rtp.media import Address, Paced

__all__ = ["MediaSink", "NoPortsLeft", "RtpHub", "RtpPorts", "RtpSocketPair"]


class NoPortsLeft(Exception):
    """Every pair of ports in the range is in use."""


class MediaSink(Protocol):
    """What takes a pair's datagrams: a `MediaStream`."""

    def rtp_received(self, data: bytes, source: Address, now: float) -> None:
        """A datagram came to the RTP port."""

    def rtcp_received(self, data: bytes, source: Address, now: float) -> None:
        """A datagram came to the RTCP port."""


class RtpPorts:
    """A range of ports, handed out as even/odd pairs from a random start (RFC 3550 section 11)."""

    def __init__(self, text: str = "20000-29999") -> None:
        """Raises ValueError unless `text` is "first-last" with room for a pair."""
        raise NotImplementedError


class RtpSocketPair:
    """Two bound UDP sockets; a `MediaTransport`. From `RtpHub.open`."""

    rtp_port: int
    rtcp_port: int
    sink: MediaSink | None  # set this to the stream

    def send_rtp(self, data: bytes, to: Address) -> None:
        """See `MediaTransport`."""
        raise NotImplementedError

    def send_rtcp(self, data: bytes, to: Address) -> None:
        """See `MediaTransport`."""
        raise NotImplementedError

    def begin(self, paced: Paced, period: float) -> float:
        """See `MediaTransport`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `MediaTransport`."""
        raise NotImplementedError


class RtpHub:
    """All RTP of the process. `run` must be running while streams are to live."""

    def __init__(self, ports: RtpPorts | None = None) -> None:
        """Ports are opened by `open` alone."""
        raise NotImplementedError

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read and pace until cancelled; closes whatever is still open."""
        raise NotImplementedError

    def open(self, host: str) -> RtpSocketPair:
        """Bind a pair of ports on the local address `host` ("0.0.0.0", "::", or one interface).

        Raises NoPortsLeft, OSError where the address is not ours. Then:

            pair = hub.open("0.0.0.0")
            stream = MediaStream(pair, now=trio.current_time)
            pair.sink = stream
        """
        raise NotImplementedError

    def lateness(self) -> tuple[tuple[float, int], ...]:
        """How late packets left, of all streams ever: (upper bound in ms, count)."""
        raise NotImplementedError
