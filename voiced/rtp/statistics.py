"""The counts of a stream's parts in one."""

from __future__ import annotations

from typing import Final

from voiced.rtp.codec import CLOCK
from voiced.rtp.control import Control
from voiced.rtp.media import RtpStatistics
from voiced.rtp.pacer import Lateness
from voiced.rtp.receiver import Receiver
from voiced.rtp.sender import Sender

__all__ = ["collect"]

_PER_MS: Final = CLOCK // 1000


def collect(
    receiver: Receiver,
    sender: Sender,
    control: Control,
    lateness: Lateness,
    *,
    strangers: int,
    malformed: int,
    undecryptable: int,
    skipped_ms: int,
) -> RtpStatistics:
    """What the parts know, and what the stream itself has counted at its door."""
    order, told = receiver.order, control.reporter
    return RtpStatistics(
        packets=receiver.packets,
        lost=order.lost,
        late=order.late,
        duplicated=order.duplicated,
        reordered=order.reordered,
        filled_ms=receiver.filled // _PER_MS,
        resyncs=receiver.resyncs,
        digits=receiver.digits,
        strangers=strangers + control.strangers,
        malformed=receiver.malformed + malformed + control.malformed,
        unexpected=receiver.unexpected,
        undecryptable=undecryptable,
        overrun_ms=receiver.overrun // _PER_MS,
        jitter_ms=receiver.jitter / _PER_MS,
        sent_packets=sender.packets,
        skipped_ms=skipped_ms,
        rtt_ms=None if told.rtt_s is None else told.rtt_s * 1000,
        remote_lost=told.remote_lost,
        remote_fraction_lost=told.remote_fraction_lost,
        remote_jitter_ms=None if told.remote_jitter is None else told.remote_jitter / _PER_MS,
        lateness=lateness.histogram(),
    )
