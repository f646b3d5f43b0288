"""RTCP of one stream: when reports leave, where to, and what the peer's tell. Sans-I/O."""

from __future__ import annotations

import secrets
import time

from voiced.rtp import rtcp
from voiced.rtp.latch import Latch, is_numeric
from voiced.rtp.media import Address, MediaParameters, MediaTransport
from voiced.rtp.receiver import Receiver
from voiced.rtp.sender import Sender
from voiced.rtp.srtp import Srtp

__all__ = ["Control"]


class Control:
    """`parameters` and `srtp` are the stream's, set with every agreement."""

    def __init__(
        self,
        transport: MediaTransport,
        latch: Latch,
        sender: Sender,
        receiver: Receiver,
        cname: str,
        now: float,
    ) -> None:
        self.parameters: MediaParameters | None = None
        self.srtp: Srtp | None = None
        self.strangers = self.malformed = 0
        self.heard_at = now
        """When the peer last reported, goodbyes apart."""
        self.reporter = rtcp.Reporter(
            sender.ssrc,
            cname or secrets.token_hex(8),
            now,
            time.time(),
            secrets.SystemRandom().random,
        )
        self._transport = transport
        self._latch = latch
        self._sender = sender
        self._receiver = receiver
        self._reported = 0  # packets of ours, at the report before

    def received(self, data: bytes, source: Address, now: float) -> None:
        """Take a datagram; only the host that the audio comes from is believed."""
        known = self._latch.destination
        if known is None or source[0] != known[0]:
            self.strangers += 1
            return
        if self.srtp is not None:
            plain = self.srtp.unprotect_rtcp(data)
            if plain is None:
                return
            data = plain
        try:
            compound = rtcp.parse(data)
        except rtcp.MalformedRtcp:
            self.malformed += 1
            return
        self.reporter.received(compound, now)
        if not compound.bye:
            self.heard_at = now

    def report(self, now: float, *, bye: bool = False) -> None:
        """Send a report; `bye`: the last one."""
        sent = self._sender.packets
        info = self._sender.info() if sent > self._reported else None
        self._reported = sent
        data: bytes | None = self.reporter.report(now, info, self._receiver.source(), bye=bye)
        if self.srtp is not None and data is not None:
            data = self.srtp.protect_rtcp(data)
        to = self._destination()
        if data is None or to is None or self.parameters is None:
            return
        if self.parameters.rtcp_mux:
            self._transport.send_rtp(data, to)
        else:
            self._transport.send_rtcp(data, to)

    def _destination(self) -> Address | None:
        """The SDP's (RFC 3605) while RTP goes where the SDP says, else the port above RTP's."""
        known, rtp = self.parameters, self._latch.destination
        if known is None or rtp is None:
            return None
        if known.rtcp_mux:
            return rtp
        named = known.remote_rtcp
        if named is not None and rtp == self._latch.expected and is_numeric(named[0]):
            return named
        return rtp[0], min(rtp[1] + 1, 65535)
