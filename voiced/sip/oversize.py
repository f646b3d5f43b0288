"""Requests too big for UDP go over TCP (RFC 3261 section 18.1.1)."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar

from voiced.sip.connection import is_response
from voiced.sip.transport import Target

__all__ = ["Oversize"]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

CONNECT_TIMEOUT_S: Final = 2.0
"""Seconds for TCP to be there: many trunks have UDP alone, and drop what they do not expect."""

REFUSED_S: Final = 3600.0
"""Seconds for which a peer is taken not to have TCP."""

MAX_KNOWN: Final = 256
"""Peers and transactions remembered; a forgotten one costs one attempt."""

_VIA: Final = re.compile(
    rb"^(?:Via|v)[ \t]*:[ \t]*SIP/2\.0/(UDP)[ \t]", re.IGNORECASE | re.MULTILINE
)
_BRANCH: Final = re.compile(
    rb"^(?:Via|v)[ \t]*:[^\r\n]*?;[ \t]*branch=([^;,\s]+)", re.IGNORECASE | re.MULTILINE
)


class Oversize:
    """Decides, remembers, and rewrites the Via of our own requests.

    The Via's address stays: the response comes on the connection, and the peer must see the same
    sent-by in the ACK or CANCEL of the transaction (section 17.2.3), which go the same way as the
    request that they are about, however small (sections 9.1, 17.1.1.3).
    """

    connect_timeout: Final = CONNECT_TIMEOUT_S

    def __init__(self, mtu: int, now: Callable[[], float]) -> None:
        """`mtu` bytes still go by UDP; 0: everything does."""
        self._mtu = mtu
        self._now = now
        self._refused: OrderedDict[Target, float] = OrderedDict()
        self._switched: OrderedDict[bytes, None] = OrderedDict()  # branches

    def instead(self, data: bytes, to: Target) -> Target | None:
        """The TCP target for a message to a UDP one; None: UDP will do, or must."""
        if not self._mtu or is_response(data):
            return None
        if len(data) <= self._mtu and not self._switched:
            return None
        branch = _branch(data)
        if len(data) <= self._mtu and branch not in self._switched:
            return None
        tcp = Target("tcp", to.host, to.port, to.name)
        if self._refused.get(tcp, 0.0) > self._now():
            return None
        if branch is not None:
            _remember(self._switched, branch, None)
        return tcp

    def converted(self, data: bytes) -> bytes:
        """The request as it goes over TCP."""
        via = _VIA.search(data)
        return data if via is None else data[: via.start(1)] + b"TCP" + data[via.end(1) :]

    def refused(self, data: bytes, tcp: Target) -> None:
        """TCP failed: this transaction and the next ones stay with UDP."""
        branch = _branch(data)
        if branch is not None:
            self._switched.pop(branch, None)
        _remember(self._refused, tcp, self._now() + REFUSED_S)


def _branch(data: bytes) -> bytes | None:
    match = _BRANCH.search(data)
    return None if match is None else match[1]


def _remember(table: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > MAX_KNOWN:
        table.popitem(last=False)
