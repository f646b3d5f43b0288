"""SIP callers for load: N calls in real time over UDP, and what came back on them.

    python -m tests.bench.sip_callers --calls 200 --sip 127.0.0.1:5060 --log FILE [options]

Each call sends an INVITE, then an RTP packet every 20 ms (one in seven carries a mark) and a report
every 5 s, and hangs up at the end. One process, one epoll, no tasks; packets are dated by the
kernel, so that what is measured is when they were sent and not when this process got to them.
Prints the measuring window, then runs to the end alone.
"""

from __future__ import annotations

import argparse
import array
import gc
import random
import resource
import signal
import socket
import struct
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from tests.bench import markers, sip_logs
from tests.bench.logs import FrameSent, Heard, Window
from tests.bench.markers import Detector
from tests.bench.wire import Loop
from voiced.simulate.rtp_packets import bye, sender_report
from voiced.simulate.sip_agent import Agent
from voiced.simulate.sip_dialog import Settings
from voiced.simulate.sip_events import Answered, Complaint, Ended, Refused

FRAME_NS: Final = 20_000_000
SAMPLE_NS: Final = 125_000
TICK_NS: Final = 200_000
MARK_EVERY: Final = 7
"""Frames; prime to batches of 2 to 6 frames, so that marks meet every place in a batch."""
LATE_NS: Final = 5_000_000
BURST_NS: Final = 5_000_000
REPORT_NS: Final = 5_000_000_000
HEAD_START_NS: Final = 300_000_000  # before the first call: idle memory is read in it
GOODBYE_NS: Final = 1_000_000_000
SILENCE: Final = b"\xff" * markers.FRAME
_REST: Final = b"\xff" * (markers.FRAME - markers.BURST)

_RTP: Final = struct.Struct(">BBHII")
_TIMESTAMPNS: Final = 35  # SO_TIMESTAMPNS; Python has no name for it
_TIMESPEC: Final = struct.Struct("@ll")
_ANCILLARY: Final = socket.CMSG_SPACE(_TIMESPEC.size)
_RECEIVE_BUFFER: Final = 256 * 1024


def now_ns() -> int:
    """The clock of all logs."""
    return time.monotonic_ns()


class Callers:
    """All calls of the run."""

    def __init__(self, window: Window, daemon: tuple[str, int]) -> None:
        self.log, self.window, self.daemon = sip_logs.SipLog(), window, daemon
        self.loop = Loop(tick_ns=TICK_NS)
        self.calls: list[Call] = []
        # What turns the kernel's time of day into the logs' clock; the two are read together.
        self.offset_ns = min(time.time_ns() - now_ns() for _ in range(100))

    def begin(self, number: int, _due_ns: int) -> None:
        """Send the INVITE of a call."""
        self.calls.append(Call(self, number))

    def hang_up(self, _due_ns: int) -> None:
        """End every call, and the run once the daemon has had a moment to see it."""
        for call in self.calls:
            call.hang_up()
        self.loop.at(now_ns() + GOODBYE_NS, self.loop.stop)


class Call:
    """One call: its agent, its RTP socket, and what it hears."""

    def __init__(self, callers: Callers, number: int) -> None:
        self._callers, self._number, self._log = callers, number, callers.log
        self._loop = callers.loop
        self._sip = self._socket()
        self._sip.bind(("127.0.0.1", 0))
        self._rtp, self._rtcp = self._pair()
        local: tuple[str, int] = self._sip.getsockname()
        media: tuple[str, int] = self._rtp.getsockname()
        settings = Settings(
            target=f"sip:+15550100@{callers.daemon[0]}:{callers.daemon[1]}",
            from_user=f"+1555{number:07d}",
            local=local,
            media=media,
            formats=(0,),
        )
        self._agent = Agent(settings)
        self._timer_ns = 0
        self._to: tuple[str, int] | None = None
        self._reports_to = ("", 0)
        self._ended = False
        rng = random.Random(number)
        self._ssrc, self._sequence, self._clock = (
            rng.getrandbits(32),
            rng.getrandbits(16),
            rng.getrandbits(32),
        )
        self._frames = self._next_mark = 0
        self._heard = sip_logs.Stream(call=number)
        self._detector = Detector("pcmu")
        self._last_ns = 0
        self._source = self._highest = self._stamp = self._unwrapped = 0
        self._transit: int | None = None
        self._loud = False
        self._late = array.array("q")  # arrival less timestamp of each packet in the window
        self._loop.watch(self._sip.fileno(), self._signalling)
        self._loop.watch(self._rtp.fileno(), self._packet)
        self._invited_ns = now_ns()
        self._agent.call(self._invited_ns / 1e9)
        self._serve()

    def _socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        return sock

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        while True:
            rtp, rtcp = self._socket(), self._socket()
            rtp.bind(("127.0.0.1", 0))
            port = rtp.getsockname()[1]
            try:
                if port % 2 == 0:
                    rtcp.bind(("127.0.0.1", port + 1))
                    rtp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
                    rtp.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
                    return rtp, rtcp
            except OSError:
                pass
            rtp.close()
            rtcp.close()

    # --- signalling -----------------------------------------------------------------------------

    def _signalling(self) -> None:
        try:
            data, source = self._sip.recvfrom(65536)
        except BlockingIOError:
            return
        self._agent.receive(now_ns() / 1e9, data, source)
        self._serve()

    def _serve(self, _due_ns: int = 0) -> None:
        """Send what the agent wants, look at what it tells, and come back in time."""
        for data, to in self._agent.poll(now_ns() / 1e9):
            self._sip.sendto(data, to or self._callers.daemon)
        for event in self._agent.take_events():
            match event:
                case Answered(media=media):
                    self._log.setup_ns.append(now_ns() - self._invited_ns)
                    self._to = media.address, media.port
                    self._reports_to = media.address, media.port + 1
                    # Nobody else is heard: ports are used again, and others send to them yet.
                    self._rtp.connect(self._to)
                    self._flush()
                    # Callers' clocks do not agree: the frames of all are spread over the 20 ms.
                    now = now_ns()
                    spread = self._number * 2654435761 % (1 << 32) % FRAME_NS
                    self._loop.at(now - now % FRAME_NS + FRAME_NS + spread, self._frame)
                    self._loop.at(now + REPORT_NS // 2, self._report)
                case Refused(status=status, reason=reason):
                    self._log.refused.append(f"{status} {reason}")
                case Ended(by=by, text=text) if by != "caller" and not self._ended:
                    self._log.dropped.append(f"{by}: {text}")
                    self._ended = True
                case Complaint(text=text):
                    self._log.complaints.append(text)
        wake = self._agent.next_at()
        if wake != float("inf") and round(wake * 1e9) != self._timer_ns:
            self._timer_ns = round(wake * 1e9)
            self._loop.at(self._timer_ns, self._serve)

    def hang_up(self) -> None:
        """Send a BYE of both kinds, and hand in what was heard."""
        if self._to is not None and not self._ended:
            self._rtcp.sendto(bye(self._ssrc, "caller"), self._reports_to)
        self._ended = True
        self._agent.hang_up(now_ns() / 1e9)
        self._serve()
        heard, late = self._heard, self._late
        heard.lost = max(0, self._highest + 1 - heard.first_sequence - heard.packets)
        if late:
            heard.grid_ns = min(late)
            earliest = heard.grid_ns
            heard.lateness_us = array.array(
                "I", (min((v - earliest) // 1000, 0xFFFFFFFF) for v in late)
            ).tobytes()
        self._log.received[self._number] = self._detector.position
        self._log.broken += self._detector.broken
        self._log.streams.append(heard)

    # --- media ----------------------------------------------------------------------------------

    def _frame(self, due_ns: int) -> None:
        if self._ended or self._to is None:
            return
        marked = self._frames % MARK_EVERY == 0
        payload = markers.burst(self._number, self._next_mark) + _REST if marked else SILENCE
        stamp = (self._clock + self._frames * markers.FRAME) & 0xFFFFFFFF
        self._sequence = (self._sequence + 1) & 0xFFFF
        head = _RTP.pack(0x80, 0 if self._frames else 0x80, self._sequence, stamp, self._ssrc)
        self._frames += 1
        now = now_ns()
        if marked:
            self._log.sent.append(FrameSent(now, self._number, self._next_mark))
            self._next_mark += 1
        with suppress(ConnectionError):  # the other side has gone: its BYE is on the way
            self._rtp.send(head + payload)
        self._loop.at(due_ns + FRAME_NS, self._frame)
        window = self._callers.window
        if window.start_ns <= due_ns < window.end_ns:
            late = now - due_ns
            self._log.frames += 1
            self._log.late_5ms += late > LATE_NS
            self._log.latest_ms = max(self._log.latest_ms, late / 1e6)

    def _flush(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            while self._rtp.recv(2048):
                pass

    def _report(self, due_ns: int) -> None:
        if self._ended:
            return
        data = sender_report(
            self._ssrc,
            now_s=time.time(),
            timestamp=self._clock + self._frames * markers.FRAME,
            packets=self._frames,
            octets=self._frames * markers.FRAME,
            block=(self._source, 0, self._highest, int(self._heard.jitter), 0, 0),
            cname="caller",
        )
        self._rtcp.sendto(data, self._reports_to)
        try:
            while self._rtcp.recv(2048):  # the daemon's reports are not looked at
                pass
        except (BlockingIOError, ConnectionError):
            pass
        self._loop.at(due_ns + REPORT_NS, self._report)

    def _packet(self) -> None:
        try:
            data, notes, _, _ = self._rtp.recvmsg(2048, _ANCILLARY)
        except (BlockingIOError, ConnectionError):
            return
        if len(data) < _RTP.size or not notes or self._to is None:
            return
        seconds, nanoseconds = _TIMESPEC.unpack_from(notes[0][2])
        at_ns = seconds * 1_000_000_000 + nanoseconds - self._callers.offset_ns
        _, kind, sequence, stamp, source = _RTP.unpack_from(data)
        heard, payload = self._heard, data[12:]
        if kind & 0x7F:
            return
        if source != self._source:
            heard.sources += 1
            self._source, self._highest, self._stamp = source, sequence, stamp
            heard.first_sequence, self._unwrapped, self._transit = sequence, 0, None
            self._late = array.array("q")
        else:
            step = (sequence - self._highest) & 0xFFFF
            if not 0 < step < 0x8000:
                heard.repeated += 1
                return
            self._highest += step
            ticks = (stamp - self._stamp) & 0xFFFFFFFF
            self._stamp, self._unwrapped = stamp, self._unwrapped + ticks
        heard.packets += 1
        window = self._callers.window
        transit = at_ns - self._unwrapped * SAMPLE_NS
        if window.start_ns <= at_ns < window.end_ns:
            gap = at_ns - self._last_ns
            self._late.append(transit)
            heard.bursts += gap < BURST_NS
            if gap > heard.longest_gap_ns and self._last_ns:
                heard.longest_gap_ns, heard.longest_gap_at_ns = gap, at_ns
            if self._transit is not None:
                heard.jitter += (abs(transit - self._transit) / SAMPLE_NS - heard.jitter) / 16
        self._transit, self._last_ns = transit, at_ns
        position = self._detector.position
        for mark in self._detector.feed(payload):
            self._log.heard.append(
                Heard(at_ns, self._number, mark.number, mark.sequence, mark.position)
            )
        loud = payload != SILENCE
        if loud and self._loud:
            spurt = self._log.spurts[self._number][-1]
            spurt.end_ns, spurt.end = at_ns, self._detector.position
        elif loud:
            spurts = self._log.spurts.setdefault(self._number, [])
            spurts.append(sip_logs.Spurt(at_ns, at_ns, position, self._detector.position))
        elif self._loud:
            self._log.spurts[self._number][-1].silent_ns = at_ns
        self._loud = loud


def main() -> None:
    """Place the calls."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--sip", required=True, metavar="HOST:PORT")
    parser.add_argument("--rate", type=float, default=30.0, help="new calls a second")
    for name, seconds in {"settle": 3.0, "seconds": 20.0, "tail": 4.5}.items():
        parser.add_argument(f"--{name}", type=float, default=seconds, metavar="S")
    options = parser.parse_args()
    if not 0 < options.calls <= markers.NUMBERS:
        parser.error(f"--calls: from 1 to {markers.NUMBERS}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the orchestrator ends us
    host, _, port = options.sip.rpartition(":")
    begin = now_ns() + HEAD_START_NS

    def after(seconds: float) -> int:
        return begin + int(seconds * 1e9)

    steady = options.calls / options.rate + options.settle
    window = Window(after(steady), after(steady + options.seconds))
    callers = Callers(window, (host, int(port)))
    for call in range(options.calls):
        callers.loop.at(after(call / options.rate), partial(callers.begin, call))
    callers.loop.at(after(steady + options.seconds + options.tail), callers.hang_up)
    gc.disable()  # a run is short and its log grows: collections would only be late moments
    print(msgspec.json.encode(window).decode(), flush=True)
    callers.loop.run()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    callers.log.cpu_s = usage.ru_utime + usage.ru_stime
    options.log.write_bytes(msgspec.msgpack.encode(callers.log))


if __name__ == "__main__":
    main()
