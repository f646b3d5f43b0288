"""A fake Realtime model for load: GA events, answers by a script that runs on the audio received.

    python -m tests.bench.model --log FILE [--cert PEM] [timing options]

Prints its port, serves until SIGTERM, then writes its log. Every cycle "speech" starts and stops
and an answer of 4 s comes in deltas of 200 ms at four times real time; in every second cycle speech
starts again 2 s into the answer and a shorter answer follows. Audio is as `session.update` asks.
"""

from __future__ import annotations

import argparse
import base64
import gc
import os
import resource
import signal
import socket
import ssl
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.bench import logs, markers, shapes
from tests.bench.markers import Detector, Encoding
from tests.bench.wire import Loop, Peer
from voiced import handshake

_encode: Final = msgspec.json.Encoder().encode
_SILENCE: Final = b"\xff"
_PREFIX: Final = 162  # samples with lead and burst; a multiple of three, so base64 can be joined
MAX_UNKNOWN: Final = 20
THINKING_NS: Final = 20_000_000
INTERRUPTION_MS: Final = 100  # less than this unheard is not worth a `clear`


class ClientEvent(msgspec.Struct):
    """Any client event, with what this server looks at."""

    type: str
    audio: bytes = b""
    item_id: str = ""
    audio_end_ms: int = 0
    session: dict[str, Any] = {}
    item: dict[str, Any] = {}


_decode: Final = msgspec.json.Decoder(ClientEvent).decode


class Timing(msgspec.Struct, frozen=True):
    """The script; milliseconds, `rate` in times real time."""

    first_ms: int = 1500
    cycle_ms: int = 8000
    speech_ms: int = 600
    answer_ms: int = 4000
    barge_in_ms: int = 2000
    second_ms: int = 1600
    delta_ms: int = 200
    rate: float = 4.0
    fill: int = 0xFF  # mu-law between marks; another than silence tells an answer from a pause


class Model:
    """The server and what it has written down."""

    def __init__(self, timing: Timing, log: logs.ModelLog) -> None:
        self.timing, self.log, self.loop = timing, log, Loop(tick_ns=1_000_000)
        self.sessions: list[Session] = []
        self._audio: dict[tuple[int, int, Encoding], bytes] = {}
        rest = bytes([timing.fill]) * (timing.delta_ms * 8 - _PREFIX)
        self.rest: dict[Encoding, bytes] = {
            "pcmu": base64.b64encode(rest),
            "pcm24": base64.b64encode(markers.to_pcm24(rest)),
        }

    def audio(self, number: int, answer: int, encoding: Encoding) -> bytes:
        """A delta's audio in base64; kept, since every session counts from nought."""
        key = number % markers.NUMBERS, answer % markers.SEQUENCES, encoding
        found = self._audio.get(key)
        if found is None:
            marked = _SILENCE * markers.LEAD + markers.burst(number, answer)
            marked = marked.ljust(_PREFIX, _SILENCE)
            data = marked if encoding == "pcmu" else markers.to_pcm24(marked)
            found = self._audio[key] = base64.b64encode(data)
        return found

    def serve(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Accept until stopped."""

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    return
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if tls is not None:
                    sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                self.sessions.append(Session(self, sock, len(self.sessions)))

        self.loop.watch(listener.fileno(), accept)
        self._live_with(os.getppid(), time.monotonic_ns())
        self.loop.run()

    def _live_with(self, parent: int, due_ns: int) -> None:
        """Look once a second whether the orchestrator still lives; end with it."""
        if os.getppid() == parent:
            self.loop.at(due_ns + 1_000_000_000, partial(self._live_with, parent))
        else:
            self.loop.stop()


class Session(Peer):
    """One call's session."""

    def __init__(self, model: Model, sock: socket.socket, index: int) -> None:
        super().__init__(model.loop, sock, client=False)
        self._model, self._index, self._log = model, index, model.log
        self._timing = model.timing
        self._encodings: list[Encoding] = ["pcm24", "pcm24"]  # input, output: the service's default
        self._detector = Detector("pcm24")
        self._configured = False
        self._named = 0
        # Sessions are spread over the cycle, else all would answer at once.
        self._offset = self._timing.first_ms + index * 2654435761 % (1 << 32) % (
            self._timing.cycle_ms
        )
        self._cycle = self._step = 0
        self._answer = 0  # its number; item and response are named by it
        self._deltas = self._deltas_left = 0
        self._running = False
        self._played_until = 0

    # --- wire -------------------------------------------------------------------------------------

    def received_head(self, head: bytes) -> None:
        parsed = handshake.parse_request(head)
        assert parsed is not None
        self.send(handshake.switching_protocols(handshake.check_upgrade(parsed[0])))
        self._event("session.created", session=shapes.session(self._index, self._encodings))

    def lost(self, why: str) -> None:
        self._running = False
        self._log.broken += self._detector.broken

    def received(self, message: bytes, now_ns: int) -> None:
        event = _decode(message)
        if event.type == "input_audio_buffer.append":
            self._heard(event.audio, now_ns)
        elif event.type == "session.update":
            self._configure(event.session)
        elif event.type == "conversation.item.truncate":
            answer = int(event.item_id.rpartition("_")[2] or 0)
            end = event.audio_end_ms
            self._log.truncates.append(logs.Truncate(now_ns, self._index, answer, end))
            named = {"item_id": event.item_id, "content_index": 0, "audio_end_ms": end}
            self._event("conversation.item.truncated", **named)
        elif event.type == "conversation.item.delete":
            self._event("conversation.item.deleted", item_id=event.item_id)
        elif event.type == "conversation.item.create":
            item = {"id": f"item_{self._index}_c", "status": "completed", **event.item}
            self._event("conversation.item.added", previous_item_id=None, item=item)
        elif event.type == "response.create":
            self._respond(self._timing.answer_ms)
        elif event.type == "response.cancel":
            self._log.cancels += 1
            self._finish("cancelled")
        elif len(self._log.unknown) < MAX_UNKNOWN:
            self._log.unknown.append(event.type)

    def _event(self, kind: str, **fields: Any) -> None:
        self._named += 1
        event_id = f"event_{self._index}_{self._named}"
        self.send_text(_encode({"type": kind, "event_id": event_id, **fields}))

    # --- the session ------------------------------------------------------------------------------

    def _configure(self, session: dict[str, Any]) -> None:
        audio = session.get("audio") or {}
        for at, side in enumerate(("input", "output")):
            wanted = ((audio.get(side) or {}).get("format") or {}).get("type")
            wanted = wanted or session.get(f"{side}_audio_format")  # the names of 2024
            if wanted is not None:
                self._encodings[at] = "pcmu" if wanted in ("audio/pcmu", "g711_ulaw") else "pcm24"
        if not self._configured:
            self._configured = True
            self._detector = Detector(self._encodings[0])
            name = "/".join(self._encodings)
            self._log.formats[name] = self._log.formats.get(name, 0) + 1
        self._event("session.updated", session=shapes.session(self._index, self._encodings))

    def _heard(self, audio: bytes, now_ns: int) -> None:
        before = self._detector.position
        for mark in self._detector.feed(audio):
            self._log.arrived.append(
                logs.MarkArrived(now_ns, self._index, mark.number, mark.sequence)
            )
        tenth = now_ns // 100_000_000
        log = self._log
        log.appends[tenth] = log.appends.get(tenth, 0) + 1
        log.samples[tenth] = log.samples.get(tenth, 0) + self._detector.position - before
        if self._configured:
            self._follow_script()

    def _follow_script(self) -> None:
        timing = self._timing
        while True:
            reached = self._detector.position // 8 - self._offset - self._cycle * timing.cycle_ms
            answer = timing.speech_ms
            steps = (0, answer, answer + timing.barge_in_ms, 2 * answer + timing.barge_in_ms)
            if self._step >= (2 if self._cycle % 2 else 4):
                self._step = 0
                self._cycle += 1
                continue
            if reached < steps[self._step]:
                return
            step = self._step
            self._step += 1
            if step % 2 == 0:
                self._speech_started()
            else:
                self._speech_stopped()
                self._respond(timing.answer_ms if step == 1 else timing.second_ms)

    def _speech_started(self) -> None:
        now = time.monotonic_ns()
        interrupts = self._played_until > now + INTERRUPTION_MS * 1_000_000
        self._log.speech.append(logs.SpeechStarted(now, self._index, self._answer, interrupts))
        at = self._detector.position // 8
        self._event(
            "input_audio_buffer.speech_started", audio_start_ms=at, item_id=self._user_item()
        )
        self._finish("cancelled")
        self._played_until = now

    def _speech_stopped(self) -> None:
        item_id, at = self._user_item(), self._detector.position // 8
        self._event("input_audio_buffer.speech_stopped", audio_end_ms=at, item_id=item_id)
        self._event("input_audio_buffer.committed", previous_item_id=None, item_id=item_id)
        item = shapes.heard(item_id)
        self._event("conversation.item.added", previous_item_id=None, item=item)

    def _user_item(self) -> str:
        return f"item_u{self._index}_{self._cycle}_{self._step // 2}"

    # --- answers ----------------------------------------------------------------------------------

    @property
    def _names(self) -> dict[str, Any]:
        return {
            "response_id": f"resp_{self._index}_{self._answer}",
            "item_id": f"item_{self._index}_{self._answer}",
            "output_index": 0,
            "content_index": 0,
        }

    def _respond(self, length_ms: int) -> None:
        if self._running or self.closed:
            return
        self._answer += 1
        self._running = True
        self._deltas_left = max(1, length_ms // self._timing.delta_ms)
        names = self._names
        item = shapes.answer(names["item_id"], "in_progress")
        self._event(
            "response.created", response=shapes.response(names["response_id"], "in_progress")
        )
        response_id = names["response_id"]
        self._event(
            "response.output_item.added", response_id=response_id, output_index=0, item=item
        )
        self._event("conversation.item.added", previous_item_id=None, item=item)
        part = {"type": "audio", "transcript": ""}
        self._event("response.content_part.added", **names, part=part)
        joint = _encode(names)[1:-1]
        head = b'"event_id":"event_d",' + joint
        self._say = b'{"type":"response.output_audio_transcript.delta",%b,"delta":" hello"}' % head
        self._audio = b'{"type":"response.output_audio.delta",%b,"delta":"' % head
        self._first = True
        # Not in one burst with what announced it: no model is that quick.
        answer = self._answer
        self.loop.at(time.monotonic_ns() + THINKING_NS, lambda due: self._delta(answer, due))

    def _delta(self, answer: int, due_ns: int) -> None:
        if answer != self._answer or not self._running:
            return
        if not self._deltas_left:
            self._finish("completed")
            return
        self.send_text(self._say)
        model, encoding = self._model, self._encodings[1]
        audio = model.audio(self._deltas, answer, encoding)
        message = b'%b%b%b"}' % (self._audio, audio, model.rest[encoding])
        now = time.monotonic_ns()
        self._log.deltas.append(logs.Delta(now, self._index, self._deltas, answer, self._first))
        self.send_text(message)
        self._first = False
        self._deltas += 1
        self._deltas_left -= 1
        length_ns = self._timing.delta_ms * 1_000_000
        self._played_until = max(self._played_until, now) + length_ns
        step = int(length_ns / self._timing.rate)
        self.loop.at(due_ns + step, lambda due: self._delta(answer, due))

    def _finish(self, status: str) -> None:
        if not self._running:
            return
        self._running = False
        names, text = self._names, shapes.TEXT
        item = shapes.answer(
            names["item_id"], "completed" if status == "completed" else "incomplete"
        )
        self._event("response.output_audio.done", **names)
        self._event("response.output_audio_transcript.done", **names, transcript=text)
        part = {"type": "audio", "transcript": text}
        self._event("response.content_part.done", **names, part=part)
        response_id = names["response_id"]
        self._event("response.output_item.done", response_id=response_id, output_index=0, item=item)
        self._event("conversation.item.done", previous_item_id=None, item=item)
        response = shapes.response(response_id, status, item)
        self._event("response.done", response=response)
        self._event("rate_limits.updated", rate_limits=shapes.LIMITS)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cert", type=Path, help="PEM with key and certificate: serves wss")
    parser.add_argument("--timing", default="{}", help="fields of Timing, as JSON")
    options = parser.parse_args()
    log = logs.ModelLog()
    model = Model(msgspec.json.decode(options.timing, type=Timing), log)
    tls = None
    if options.cert is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.cert)
    signal.signal(signal.SIGTERM, lambda *_: model.loop.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the orchestrator ends us
    with socket.create_server(("127.0.0.1", options.port), backlog=1024) as listener:
        listener.setblocking(False)
        gc.disable()  # a run is short and its log grows: collections would only be late moments
        print(listener.getsockname()[1], flush=True)
        model.serve(listener, tls)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    log.cpu_s = usage.ru_utime + usage.ru_stime
    log.broken += sum(session._detector.broken for session in model.sessions if not session.closed)
    options.log.write_bytes(msgspec.msgpack.encode(log))


if __name__ == "__main__":
    main()
