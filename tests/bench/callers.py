"""Simulated Twilio callers for load: N media streams in real time, and what came back on them.

    python -m tests.bench.callers --calls 50 --log FILE (--webhook URL | --stream URL) [options]

Each call posts its voice webhook, opens the stream that the TwiML names, sends a frame every 20 ms
(one in seven carries a mark), plays what it gets through a simulated play buffer, echoes marks when
they are reached and hangs up at the end. Prints the measuring window, then runs to the end alone.
"""

from __future__ import annotations

import argparse
import base64
import gc
import resource
import signal
import socket
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec

from tests.bench import logs, markers
from tests.bench.markers import Detector
from tests.bench.wire import Loop, Peer
from voiced import handshake

FRAME_NS: Final = 20_000_000
SAMPLE_NS: Final = 125_000
TICK_NS: Final = 200_000
MARK_EVERY: Final = 7
"""Frames; prime to batches of 2 to 6 frames, so that marks meet every place in a batch."""
LATE_NS: Final = 5_000_000
GAP_NS: Final = 1_000_000  # a dry play buffer is heard from about here
HEAD_START_NS: Final = 300_000_000  # before the first call: idle memory is read in it
GOODBYE_NS: Final = 300_000_000

ACCOUNT: Final = "AC" + "0" * 32
SILENT_FRAME: Final = base64.b64encode(b"\xff" * markers.FRAME)
_REST: Final = b"\xff" * (markers.FRAME - markers.BURST)
_FRAME: Final = (
    b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d",'
    b'"timestamp":"%d","payload":"%b"},"streamSid":"%b"}'
)


class _Media(msgspec.Struct):
    payload: bytes


class _Mark(msgspec.Struct):
    name: str


class Outbound(msgspec.Struct):
    """Any message of the bridge's."""

    event: str
    media: _Media | None = None
    mark: _Mark | None = None


_decode: Final = msgspec.json.Decoder(Outbound).decode
_encode: Final = msgspec.json.Encoder().encode


class Callers:
    """All calls of the run."""

    def __init__(self, window: logs.Window) -> None:
        self.log, self.window = logs.CallerLog(), window
        self.loop = Loop(tick_ns=TICK_NS)
        self.streams: list[Stream] = []

    def connect(self, host: str, port: int) -> socket.socket:
        """A socket on its way to the bridge; loopback connects at once."""
        sock = socket.create_connection((host, port), timeout=10)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def begin(self, webhook: str | None, stream: str, call: int, _due_ns: int) -> None:
        """Begin a call: with its webhook, or at once with its stream where there is none."""
        if webhook is not None:
            Webhook(self, webhook, call)
        else:
            self.stream(stream, call, {})

    def stream(self, url: str, call: int, parameters: dict[str, str]) -> None:
        """Open the stream of a call."""
        self.streams.append(Stream(self, url, call, parameters))

    def hang_up(self, _due_ns: int) -> None:
        """End every call, and the run once the bridge has had a moment to see it."""
        for stream in self.streams:
            stream.hang_up()
        self.loop.at(time.monotonic_ns() + GOODBYE_NS, self.loop.stop)


def call_sid(call: int) -> str:
    """As Twilio writes them."""
    return f"CA{call:032x}"


class Webhook(Peer):
    """The POST for an incoming call; its answer opens the stream."""

    def __init__(self, callers: Callers, url: str, call: int) -> None:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        super().__init__(callers.loop, callers.connect(host, port), client=True)
        self._callers, self._call = callers, call
        self._answer = bytearray()
        form = urlencode(
            {
                "CallSid": call_sid(call),
                "AccountSid": ACCOUNT,
                "From": f"+1555{call:07d}",
                "To": "+15550100",
                "CallStatus": "ringing",
                "Direction": "inbound",
                "ApiVersion": "2010-04-01",
            }
        )
        self.send(
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(form)}\r\n\r\n{form}".encode()
        )

    def readable(self) -> None:
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        self._answer += data
        head, blank, body = bytes(self._answer).partition(b"\r\n\r\n")
        if data and not (blank and body.endswith(b"</Response>")):
            return
        self.close()
        stream = None
        if head.startswith(b"HTTP/1.1 200"):
            stream = ElementTree.fromstring(body).find(".//Stream")
        if stream is None:
            self._callers.log.refused.append(f"webhook: {head.splitlines()[:1]} {body[:200]!r}")
            return
        parameters = {p.get("name", ""): p.get("value", "") for p in stream.iter("Parameter")}
        self._callers.stream(stream.get("url", ""), self._call, parameters)


class Stream(Peer):
    """One call's media stream."""

    def __init__(self, callers: Callers, url: str, call: int, parameters: dict[str, str]) -> None:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        super().__init__(callers.loop, callers.connect(host, port), client=True)
        self._callers, self._call, self._log = callers, call, callers.log
        self._parameters = parameters
        self._sid = f"MZ{call:032x}"
        self._sid_bytes = self._sid.encode()
        self._detector = Detector("pcmu")
        self._played_until = 0
        self._marks: deque[tuple[int, str]] = deque()  # due, name; what the bridge has unechoed
        self._sequence = self._frames = self._next_mark = 0
        headers = {"User-Agent": "Twilio.TmeWs/1.0"}
        self.send(handshake.request(parts.netloc, parts.path, handshake.new_key(), headers))

    def received_head(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 101"):
            self._log.refused.append(f"stream: {head.partition(bytes(2))[0][:80]!r}")
            self.close()
            return
        self.send_text(_encode({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        start = {
            "accountSid": ACCOUNT,
            "streamSid": self._sid,
            "callSid": call_sid(self._call),
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self._parameters,
        }
        self._say("start", start=start)
        # Callers' clocks do not agree: the frames of all are spread over the 20 ms.
        now = time.monotonic_ns()
        spread = self._call * 2654435761 % (1 << 32) % FRAME_NS
        self.loop.at(now - now % FRAME_NS + FRAME_NS + spread, self._frame)

    def received(self, message: bytes, now_ns: int) -> None:
        event = _decode(message)
        if event.media is not None:
            self._play(event.media.payload, now_ns)
        elif event.mark is not None:
            due = max(self._played_until, now_ns)
            self._marks.append((due, event.mark.name))
            if due > now_ns:
                self.loop.at(due, self._echo)
            else:
                self._echo(now_ns)
        elif event.event == "clear":
            unplayed = max(0, self._played_until - now_ns) // SAMPLE_NS
            position = self._detector.position
            self._log.cleared.append(logs.Cleared(now_ns, self._call, position, unplayed))
            self._played_until = now_ns
            self._echo(sys.maxsize)

    def lost(self, why: str) -> None:
        self._log.dropped.append(why)

    def hang_up(self) -> None:
        """Send `stop` and close."""
        self._log.received[self._call] = self._detector.position
        self._log.broken += self._detector.broken
        if not self.closed:
            self._say("stop", stop={"accountSid": ACCOUNT, "callSid": call_sid(self._call)})
            self.close(politely=True)

    def _say(self, event: str, **body: Any) -> None:
        self._sequence += 1
        message = {"event": event, "sequenceNumber": str(self._sequence), **body}
        self.send_text(_encode({**message, "streamSid": self._sid}))

    def _frame(self, due_ns: int) -> None:
        if self.closed:
            return
        marked = self._frames % MARK_EVERY == 0
        payload = SILENT_FRAME
        if marked:
            payload = base64.b64encode(markers.burst(self._call, self._next_mark) + _REST)
        self._sequence += 1
        numbers = self._sequence, self._frames + 1, self._frames * 20
        message = _FRAME % (*numbers, payload, self._sid_bytes)
        self._frames += 1
        now = time.monotonic_ns()
        if marked:
            self._log.sent.append(logs.FrameSent(now, self._call, self._next_mark))
            self._next_mark += 1
        self.send_text(message)
        self.loop.at(due_ns + FRAME_NS, self._frame)
        window = self._callers.window
        if window.start_ns <= due_ns < window.end_ns:
            late = now - due_ns
            self._log.frames += 1
            self._log.late_5ms += late > LATE_NS
            self._log.latest_ms = max(self._log.latest_ms, late / 1e6)

    def _play(self, audio: bytes, now_ns: int) -> None:
        detector = self._detector
        dry = now_ns - self._played_until
        if self._played_until and dry > GAP_NS:
            gap = logs.Gap(now_ns, self._call, detector.position, dry // 1000)
            self._log.gaps.append(gap)
        self._played_until = max(self._played_until, now_ns) + len(audio) * SAMPLE_NS
        self._log.media += 1
        for mark in detector.feed(audio):
            self._log.heard.append(
                logs.Heard(now_ns, self._call, mark.number, mark.sequence, mark.position)
            )

    def _echo(self, due_ns: int) -> None:
        while self._marks and self._marks[0][0] <= due_ns:
            self._log.marks += 1
            self._say("mark", mark={"name": self._marks.popleft()[1]})


def main() -> None:
    """Place the calls."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--webhook", metavar="URL")
    where.add_argument("--stream", metavar="URL", help="for a bridge without a webhook of its own")
    for name, seconds in {"ramp": 2.0, "settle": 3.0, "seconds": 20.0, "tail": 2.5}.items():
        parser.add_argument(f"--{name}", type=float, default=seconds, metavar="S")
    options = parser.parse_args()
    if not 0 < options.calls <= markers.NUMBERS:
        parser.error(f"--calls: from 1 to {markers.NUMBERS}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the orchestrator ends us
    begin = time.monotonic_ns() + HEAD_START_NS

    def after(seconds: float) -> int:
        return begin + int(seconds * 1e9)

    steady = options.ramp + options.settle
    window = logs.Window(after(steady), after(steady + options.seconds))
    callers = Callers(window)
    for call in range(options.calls):
        due = after(options.ramp * call / options.calls)
        callers.loop.at(due, partial(callers.begin, options.webhook, options.stream, call))
    callers.loop.at(after(steady + options.seconds + options.tail), callers.hang_up)
    gc.disable()  # a run is short and its log grows: collections would only be late moments
    print(msgspec.json.encode(window).decode(), flush=True)
    callers.loop.run()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    callers.log.cpu_s = usage.ru_utime + usage.ru_stime
    options.log.write_bytes(msgspec.msgpack.encode(callers.log))


if __name__ == "__main__":
    main()
