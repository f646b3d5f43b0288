"""Where a peer's packets may come from: symmetric RTP that a stranger cannot take over.

The SDP says where a peer wants its packets (RFC 4566); behind a NAT it sends from elsewhere, and
there is where it can be reached (RFC 4961). A latch learns that place, once:

- A packet from the SDP's own address settles it at once.
- Another address must send `PROBATION` packets with consecutive sequence numbers and one SSRC; what
  it sent meanwhile is kept and not lost. Where the SDP's host is a public one, only its port may
  differ; a private or unusable host says nothing of where its packets come from.
- For `WINDOW_S` from the beginning of the learning, packets from the SDP's address still win over
  an address so learnt; nobody else does. Then the latch is shut until `learn` is called again
  (after a new offer and answer): packets from elsewhere are strangers, whatever they say.
- Learning again keeps the address learnt while the SDP's stays the same; another one may then pass
  probation only once the old one has been silent for `QUIET_S`.
- A packet that SRTP has authenticated needs no probation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from voiced.rtp.media import Address

__all__ = ["PROBATION", "QUIET_S", "WINDOW_S", "Latch", "Verdict", "is_numeric"]

PROBATION: Final = 4
WINDOW_S: Final = 5.0

QUIET_S: Final = 0.5
_CANDIDATES: Final = 4
"""Addresses on probation at a time: the peer and a few strangers; the oldest goes for a fifth."""


class Verdict(Enum):
    """What is to be done with a datagram."""

    ACCEPT = "accept"
    HELD = "held"  # kept by the latch; comes back from `release` if its sender is believed
    STRANGER = "stranger"


@dataclass(slots=True)
class _Candidate:
    ssrc: int
    sequence: int
    held: list[bytes] = field(default_factory=list)


class Latch:
    """The source of one stream. Times in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.source: Address | None = None  # the address learnt; compare with it first
        self.expected: Address | None = None  # what the SDP says
        self._same_host = False
        self._until = 0.0
        self._again = False  # probation is open although an address has been learnt
        self._heard_at = 0.0
        self._candidates: dict[Address, _Candidate] = {}
        self._released: list[bytes] = []

    @property
    def destination(self) -> Address | None:
        """Where to send: the address learnt, before that the SDP's, None where it has none."""
        return self.source or self.expected

    def learn(self, expected: Address, now: float) -> None:
        """The SDP says `expected` (again). The address learnt stays unless the SDP's changes.

        0.0.0.0 is hold in the old way (RFC 3264 section 8.4), not an address: nothing changes.
        """
        host = _numeric(expected[0])
        address = None
        if host is not None and not host.is_unspecified and expected[1]:
            address = (str(host), expected[1])  # as sockets write it
        elif self.expected is not None:
            return
        if address != self.expected:
            self.source = None
        self.expected = address
        self._again = self.source is not None and self.source != address
        self._same_host = address is not None and host is not None and host.is_global
        self._until = now + WINDOW_S
        self._candidates.clear()

    def heard(self, now: float) -> None:
        """A packet came from `source`; need not be said more often than every 50 ms."""
        self._heard_at = now

    def authenticated(self, source: Address) -> None:
        """SRTP vouches for a packet from `source`."""
        self.source = source
        self._candidates.clear()

    def judge(self, source: Address, ssrc: int, sequence: int, data: bytes, now: float) -> Verdict:
        """Judge a datagram that did not come from `self.source`."""
        if not self.open(now):
            return Verdict.STRANGER
        if source == self.expected:
            return self._settle(source, now)
        if self._same_host and self.expected is not None and source[0] != self.expected[0]:
            return Verdict.STRANGER
        if self.source is not None and not (self._again and now - self._heard_at >= QUIET_S):
            return Verdict.STRANGER
        candidate = self._candidates.get(source)
        if candidate is None or (candidate.ssrc, candidate.sequence) != (ssrc, sequence):
            self._candidates.pop(source, None)
            if len(self._candidates) >= _CANDIDATES:
                del self._candidates[next(iter(self._candidates))]
            candidate = self._candidates[source] = _Candidate(ssrc, sequence)
        if len(candidate.held) == PROBATION - 1:
            self._released = candidate.held
            return self._settle(source, now)
        candidate.sequence = sequence + 1 & 0xFFFF
        candidate.held.append(data)
        return Verdict.HELD

    def open(self, now: float) -> bool:
        """Another address could still be learnt."""
        return self.source is None or (now < self._until and self.source != self.expected)

    def release(self) -> list[bytes]:
        """What the address just accepted had sent while on probation, in order, once."""
        released, self._released = self._released, []
        return released

    def _settle(self, source: Address, now: float) -> Verdict:
        self.source = source
        self._heard_at = now
        self._again = False
        self._candidates.clear()
        return Verdict.ACCEPT


def _numeric(host: str) -> IPv4Address | IPv6Address | None:
    """None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_numeric(host: str) -> bool:
    """An address and not a name: sending to a name would wait for the DNS."""
    return _numeric(host) is not None
