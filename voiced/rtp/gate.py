"""Which datagrams are the peer's: by where they come from, and by SRTP where there is a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from voiced.rtp.latch import Latch, Verdict
from voiced.rtp.media import Address
from voiced.rtp.srtp import Srtp

__all__ = ["Gate"]


@final
class Gate:
    """One stream's. `latch` is the address learnt, `srtp` None while packets come in the clear."""

    def __init__(self) -> None:
        self.latch = Latch()
        self.srtp: Srtp | None = None
        self.strangers = 0
        """Datagrams that were not the peer's."""

    def from_elsewhere(
        self, data: bytes, source: Address, now: float, heard_at: float
    ) -> Sequence[bytes]:
        """What is to be heard because of a packet from another address, in the clear.

        `heard_at`: when the last packet of the peer came.
        """
        latch = self.latch
        if not latch.open(now):
            self.strangers += 1
            return ()
        if self.srtp is not None:
            # Who knows the key is the peer, wherever it is.
            plain = self.srtp.unprotect(data)
            if plain is None:
                self.strangers += 1
                return ()
            latch.authenticated(source)
            return (plain,)
        sequence, ssrc = int.from_bytes(data[2:4], "big"), int.from_bytes(data[8:12], "big")
        latch.heard(heard_at)
        verdict = latch.judge(source, ssrc, sequence, data, now)
        if verdict is Verdict.STRANGER:
            self.strangers += 1
        elif verdict is Verdict.ACCEPT:
            return (*latch.release(), data)
        return ()
