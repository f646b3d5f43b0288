"""The UDP ports of all calls, one task that reads them, one that paces what they send.

All sockets stand in one epoll of our own, and that one in Trio's: a wake-up of the reading task
brings every packet there is, at 2 µs each and not 20. While so many streams are paced that the
pacer wakes in every slot anyway, it reads for all of them, and the reading task rests: packets wait
for 2 ms at most and come in batches.
"""

from __future__ import annotations

import errno
import secrets
import select
import socket
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import structlog
import trio

from voiced.rtp.media import Address, Paced
from voiced.rtp.pacer import EARLY_S, SLOTS, Lateness, Pacer

__all__ = ["MediaSink", "NoPortsLeft", "RtpHub", "RtpPorts", "RtpSocketPair"]

_MAX_DATAGRAM: Final = 2048  # more than fits an Ethernet frame: what is longer is cut, and broken
_EVENTS: Final = 512  # sockets looked at in one go
_ROUNDS: Final = 8
"""Packets of one socket in one go: 160 ms of a stall of ours at once, while a flood of one port
takes no more than its share from the others."""

_STALL_S: Final = 0.02
_EXPEDITED: Final = 46 << 2  # DSCP EF, for telephony (RFC 4594 section 4.1)
_TAKEN: Final = {errno.EADDRINUSE, errno.EACCES}

_log = structlog.get_logger("voiced.rtp")


class NoPortsLeft(Exception):
    """Every pair of ports in the range is in use."""


class MediaSink(Protocol):
    """What takes a pair's datagrams: a `MediaStream`."""

    def rtp_received(self, data: bytes, source: Address, now: float) -> None:
        """A datagram came to the RTP port."""

    def rtcp_received(self, data: bytes, source: Address, now: float) -> None:
        """A datagram came to the RTCP port."""

    @property
    def lateness(self) -> Lateness:
        """How late its packets left."""


class RtpPorts:
    """A range of ports, handed out as even/odd pairs (RFC 3550 section 11).

    Each search begins at random, so that a port is neither guessed nor used again soon, while
    packets of the call before may still come.
    """

    def __init__(self, text: str = "20000-29999") -> None:
        """Raises ValueError unless `text` is "first-last" with room for a pair."""
        first, dash, last = text.partition("-")
        if not (dash and first.strip().isdecimal() and last.strip().isdecimal()):
            raise ValueError(f'a range of ports is "first-last", not {text!r}')
        self._first = int(first) + int(first) % 2
        self._pairs = (int(last) + 1 - self._first) // 2
        if not 0 < int(first) <= int(last) <= 65535 or self._pairs < 1:
            raise ValueError(f"no even port with the one above it in {text!r}")

    def __len__(self) -> int:
        """Pairs in the range."""
        return self._pairs

    def candidates(self) -> Iterator[int]:
        """Every even port, once, from a random one on."""
        start = secrets.randbelow(self._pairs)
        for step in range(self._pairs):
            yield self._first + 2 * ((start + step) % self._pairs)


class RtpSocketPair:
    """Two bound UDP sockets; a `MediaTransport`. From `RtpHub.open`."""

    def __init__(self, hub: RtpHub, rtp: socket.socket, control: socket.socket) -> None:
        self.rtp_port: int = rtp.getsockname()[1]
        self.rtcp_port: int = control.getsockname()[1]
        self.sink: MediaSink | None = None  # set this to the stream
        self.unsent = 0  # datagrams that the kernel did not take
        self._hub = hub
        self._rtp = rtp
        self._control = control
        self._plain = rtp.family == socket.AF_INET  # else sources have scope and flow, too
        self._failed = False
        self._paced: Paced | None = None

    def keep_time(self) -> None:
        """See `MediaTransport`."""
        self._hub.keep_time()

    def send_rtp(self, data: bytes, to: Address) -> None:
        """See `MediaTransport`."""
        try:
            self._rtp.sendto(data, to)
        except OSError:  # a full buffer, no route, another family: as good as lost on the way
            self.unsent += 1

    def send_rtcp(self, data: bytes, to: Address) -> None:
        """See `MediaTransport`."""
        try:
            self._control.sendto(data, to)
        except OSError:
            self.unsent += 1

    def begin(self, paced: Paced) -> float:
        """See `MediaTransport`."""
        self._paced = paced
        return self._hub.pace(paced)

    def close(self) -> None:
        """See `MediaTransport`."""
        if self._rtp.fileno() == -1:
            return
        self._hub.forget(self, self._paced)
        self._rtp.close()
        self._control.close()

    # ---- for the hub

    def readers(self) -> tuple[tuple[int, Callable[[float], None]], ...]:
        """Both sockets' file numbers, each with what reads one datagram from it."""
        return (self._rtp.fileno(), self.read_rtp), (self._control.fileno(), self.read_rtcp)

    def read_rtp(self, now: float) -> None:
        """Read one datagram."""
        try:
            data, source = self._rtp.recvfrom(_MAX_DATAGRAM)
        except OSError:  # somebody's ICMP, or nothing there after all
            return
        sink = self.sink
        if sink is None:
            return
        try:
            sink.rtp_received(data, source if self._plain else source[:2], now)
        except Exception:
            self._broken()

    def read_rtcp(self, now: float) -> None:
        """Read one datagram."""
        try:
            data, source = self._control.recvfrom(_MAX_DATAGRAM)
        except OSError:
            return
        sink = self.sink
        if sink is None:
            return
        try:
            sink.rtcp_received(data, source[:2], now)
        except Exception:
            self._broken()

    def _broken(self) -> None:
        """A fault of ours must not reach the other calls; once in the log is enough."""
        if not self._failed:
            self._failed = True
            _log.exception("packet could not be handled", port=self.rtp_port)


class RtpHub:
    """All RTP of the process. `run` must be running while streams are to live."""

    def __init__(
        self, ports: RtpPorts | None = None, now: Callable[[], float] = trio.current_time
    ) -> None:
        """Ports are opened by `open` alone. `now`: the clock of `trio.current_time`."""
        self._ports = ports or RtpPorts()
        self._now = now
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[float], None]] = {}
        self._pairs: set[RtpSocketPair] = set()
        self._pacer = Pacer(now, self._pace_failed)
        self._news = trio.lowlevel.ParkingLot()  # where the pacer waits
        self._calm = trio.lowlevel.ParkingLot()  # where the reading task rests
        self._waits_until = 0.0
        self._lateness = Lateness()  # of the streams that are gone

    # ---- ports

    def open(self, host: str) -> RtpSocketPair:
        """Bind a pair of ports on the local address `host` ("0.0.0.0", "::", or one interface).

        Raises NoPortsLeft, OSError where the address is not ours. Then:

            pair = hub.open("0.0.0.0")
            stream = MediaStream(pair, now=trio.current_time)
            pair.sink = stream
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for port in self._ports.candidates():
            rtp = _bound(family, host, port)
            if rtp is None:
                continue
            try:
                control = _bound(family, host, port + 1)
            except OSError:
                rtp.close()
                raise
            if control is None:
                rtp.close()
                continue
            pair = RtpSocketPair(self, rtp, control)
            self._pairs.add(pair)
            for number, reader in pair.readers():
                self._readers[number] = reader
                self._epoll.register(number, select.EPOLLIN)
            return pair
        raise NoPortsLeft(f"all {len(self._ports)} pairs of RTP ports are in use")

    def forget(self, pair: RtpSocketPair, paced: Paced | None) -> None:
        """Neither read nor pace it any more; for `RtpSocketPair.close`."""
        if paced is not None:
            self._pacer.remove(paced)
        if len(self._pacer) < SLOTS:
            self._calm.unpark_all()
        for number, _ in pair.readers():
            del self._readers[number]
            self._epoll.unregister(number)
        self._pairs.discard(pair)
        if pair.sink is not None:
            self._lateness.merge(pair.sink.lateness)

    def pace(self, paced: Paced) -> float:
        """Tick it from now on; returns the first due time; for `RtpSocketPair.begin`."""
        due = self._pacer.add(paced)
        if due < self._waits_until:
            self._news.unpark_all()
        return due

    def keep_time(self) -> None:
        """Send what is due and could not wait for the pacer's turn."""
        if self._waits_until <= self._now():
            self._pacer.run()
            due = self._pacer.next_due()
            self._waits_until = float("inf") if due is None else due - EARLY_S

    @property
    def in_use(self) -> int:
        """Pairs of ports that are open."""
        return len(self._pairs)

    def lateness(self) -> tuple[tuple[float, int], ...]:
        """How late packets left, of all streams ever: (upper bound in ms, count)."""
        total = Lateness()
        total.merge(self._lateness)
        for pair in self._pairs:
            if pair.sink is not None:
                total.merge(pair.sink.lateness)
        return total.histogram()

    # ---- tasks

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read and pace until cancelled; closes whatever is still open. Once only."""
        if self._now is trio.current_time:
            # The same clock without the way to it: it is asked 10,000 times a second.
            self._now = trio.lowlevel.current_clock().current_time
            self._pacer.use_clock(self._now)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                nursery.start_soon(self._pace)
                task_status.started()
        finally:
            for pair in list(self._pairs):
                pair.close()
            self._epoll.close()

    async def _read(self) -> None:
        while True:
            if len(self._pacer) >= SLOTS:
                await self._calm.park()
            else:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                self._drain()
                # Whoever is awake sends what is due.
                self._pacer.run()

    async def _pace(self) -> None:
        pacer = self._pacer
        while True:
            due = pacer.next_due()
            if due is not None and self._now() - due > _STALL_S:
                self._drain()  # what waits in the kernel was not late, and is no pause to be filled
            pacer.run()
            self._drain()
            due = pacer.next_due()
            self._waits_until = float("inf") if due is None else due - EARLY_S
            with trio.CancelScope(deadline=self._waits_until):
                await self._news.park()

    def _drain(self) -> None:
        """Read all that has come, within bounds."""
        poll, readers, now = self._epoll.poll, self._readers, self._now
        for _ in range(_ROUNDS):
            ready = poll(0, _EVENTS)
            if not ready:
                return
            at = now()
            for number, _ in ready:
                reader = readers.get(number)
                if reader is not None:  # else closed by what another packet did
                    reader(at)

    def _pace_failed(self, paced: Paced) -> None:
        """A fault of ours in one stream: the others go on."""
        _log.exception("stream cannot be paced")
        if len(self._pacer) < SLOTS:
            self._calm.unpark_all()


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket | None:
    """A socket on that port, None where it is taken. Raises OSError for any other reason."""
    opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _EXPEDITED)
        else:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _EXPEDITED)
        opened.bind((host, port))
    except OSError as error:
        opened.close()
        if error.errno in _TAKEN:
            return None
        raise
    return opened
