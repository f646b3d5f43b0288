"""What RTP costs and how evenly it leaves.

    python -m tests.bench.rtp [--streams 200] [--seconds 10] [--load 0.8] [--json FILE]

First a packet in and a packet out by themselves, in µs, the least of several runs. Then a process
with `--streams` streams, each sent to at 50 packets a second by another process that also measures
what arrives from them: interarrival jitter (RFC 3550 section 6.4.1) and spacing. A task per stream
takes what comes, and another keeps the process as busy as `--load` says with pieces of work of a
millisecond at most, as a daemon's calls do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import select
import socket
import sys
import time
import timeit
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import trio

from tests.bench.processes import pin, share_out
from voiced.rtp.media import Address, MediaParameters, Paced, SrtpKeys
from voiced.rtp.pacer import BOUNDS_MS
from voiced.rtp.packet import HEADER
from voiced.rtp.socket import RtpHub, RtpPorts
from voiced.rtp.stream import MediaStream

PEER: Final = ("127.0.0.1", 9)
SRTP: Final = SrtpKeys("AES_CM_128_HMAC_SHA1_80", bytes(30), bytes(30))


class Nowhere:
    """A transport that costs nothing."""

    def send_rtp(self, data: bytes, to: Address) -> None:
        self.last = data

    def send_rtcp(self, data: bytes, to: Address) -> None:
        self.last = data

    def begin(self, paced: Paced) -> float:
        return 0.0

    def keep_time(self) -> None:
        pass

    def close(self) -> None:
        pass


def least_us(call: Callable[[], object], number: int = 20_000) -> float:
    return min(timeit.repeat(call, number=number, repeat=5)) / number * 1e6


def stream_of(codec: str, *, srtp: bool = False) -> MediaStream:
    stream = MediaStream(Nowhere(), now=time.monotonic)
    payload_type = {"PCMU": 0, "PCMA": 8, "G722": 9}[codec]
    keys = SRTP if srtp else None
    stream.configure(MediaParameters(codec, payload_type, PEER, srtp=keys))
    stream.begin()
    return stream


def packet_in(codec: str, payload_type: int) -> Callable[[], object]:
    """Have a packet come and be taken."""
    stream, body = stream_of(codec), bytes(160)
    number = 0

    def once() -> None:
        nonlocal number
        number += 1
        head = HEADER.pack(0x80, payload_type, number & 0xFFFF, number * 160, 1)
        stream.rtp_received(head + body, PEER, number * 0.02)
        stream.take()

    return once


def packet_out(codec: str, *, srtp: bool = False) -> Callable[[], object]:
    """Have a packet leave, out of pieces of 400 ms."""
    stream = stream_of(codec, srtp=srtp)
    piece = bytes(stream.format.frame_bytes * 20)
    due = 0.0

    def once() -> None:
        nonlocal due
        if stream.heard() == stream.sent():
            stream.send(piece)
        due = stream.tick(due, due)

    return once


def micro() -> dict[str, float]:
    """µs of a packet through a stream, without sockets."""
    return {
        "in PCMU": least_us(packet_in("PCMU", 0)),
        "out PCMU": least_us(packet_out("PCMU")),
        "out PCMU, SRTP": least_us(packet_out("PCMU", srtp=True)),
        "in G722": least_us(packet_in("G722", 9), 5_000),
        "out G722": least_us(packet_out("G722"), 5_000),
    }


# ---- the other process


def peer(streams: int, seconds: float, pipe: Connection) -> None:
    """Send to every stream on a grid, and measure what comes back."""
    sockets = []
    for _ in range(streams):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        opened.bind(("127.0.0.1", 0))
        sockets.append(opened)
    pipe.send([opened.getsockname()[1] for opened in sockets])
    ports: list[int] = pipe.recv()
    epoll = select.epoll()
    index = {}
    for at, opened in enumerate(sockets):
        epoll.register(opened.fileno(), select.EPOLLIN)
        index[opened.fileno()] = at
    # Per stream: the last transit, jitter, last arrival.
    transit: list[float | None] = [None] * streams
    jitter, worst = [0.0] * streams, [0.0] * streams
    gaps: list[float] = []
    last = [0.0] * streams
    body = bytes(160)
    due = [(time.monotonic() + at * 0.02 / streams, 0) for at in range(streams)]
    start = time.monotonic()
    end = start + seconds
    at = sent = received = 0
    while (now := time.monotonic()) < end:
        while due[at][0] <= now:
            when, count = due[at]
            head = HEADER.pack(0x80, 0, count & 0xFFFF, count * 160, at + 1)
            sockets[at].sendto(head + body, ("127.0.0.1", ports[at]))
            due[at] = (when + 0.02, count + 1)
            sent += 1
            at = (at + 1) % streams
        for number, _ in epoll.poll(0.0005, 64):
            which = index[number]
            data = sockets[which].recv(2048)
            now = time.monotonic()
            received += 1
            stamp = HEADER.unpack_from(data)[3]
            passed = now * 8000 - stamp
            before = transit[which]
            change = 0.0 if before is None else abs(passed - before)
            if before is not None and now - start > 1 and change < 8000:  # else a wrap
                jitter[which] += (change - jitter[which]) / 16
                worst[which] = max(worst[which], jitter[which])
                gaps.append(now - last[which])
            transit[which] = passed
            last[which] = now
    gaps.sort()
    pipe.send(
        {
            "sent": sent,
            "received": received,
            "jitter_ms_mean": sum(jitter) / streams / 8,
            "jitter_ms_worst": max(worst) / 8,
            "spacing_ms_p50": gaps[len(gaps) // 2] * 1000,
            "spacing_ms_p99.9": gaps[int(len(gaps) * 0.999)] * 1000,
            "spacing_ms_max": gaps[-1] * 1000,
        }
    )


def percentiles(histogram: tuple[tuple[float, int], ...]) -> dict[str, float]:
    """The bound that so much of a histogram lies within."""
    total = sum(count for _, count in histogram)
    found = {}
    for share in (0.5, 0.9, 0.99, 0.999, 1.0):
        seen = 0
        for bound, count in histogram:
            seen += count
            if seen >= share * total:
                found[f"p{share * 100:g}"] = bound
                break
    return found


async def paced(streams: int, seconds: float, load: float, pipe: Connection) -> dict[str, Any]:
    hub = RtpHub(RtpPorts("32000-39999"))
    remote: list[int] = pipe.recv()
    all_streams: list[MediaStream] = []
    taken = 0

    async def call(stream: MediaStream, wake: trio.lowlevel.ParkingLot) -> None:
        nonlocal taken
        while True:
            events = stream.take()
            if not events:
                await wake.park()
                continue
            taken += sum(len(getattr(event, "payload", b"")) for event in events)
            if stream.sent() - stream.heard() < 3200:
                stream.send(bytes(6400))

    async def busy() -> None:
        rnd = random.Random(1)
        while True:
            began, cpu = time.perf_counter(), time.process_time()
            await trio.lowlevel.checkpoint()
            piece = min(rnd.expovariate(1 / 0.0003), 0.001)
            until = time.perf_counter() + piece
            while time.perf_counter() < until:
                pass
            # What the rest of the process uses counts as load, too.
            used = time.process_time() - cpu
            pause = used / load - (time.perf_counter() - began)
            if pause > 0:
                await trio.sleep(pause)

    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        ports = []
        for port in remote:
            pair = hub.open("127.0.0.1")
            ports.append(pair.rtp_port)
            wake = trio.lowlevel.ParkingLot()
            stream = MediaStream(pair, now=trio.current_time, on_media=wake.unpark_all)
            pair.sink = stream
            stream.configure(MediaParameters("PCMU", 0, ("127.0.0.1", port)))
            nursery.start_soon(call, stream, wake)
            all_streams.append(stream)
        pipe.send(ports)
        for stream in all_streams:
            stream.begin()
            await trio.sleep(0.001)
        if load:
            nursery.start_soon(busy)
        cpu, wall = time.process_time(), time.perf_counter()
        await trio.sleep(seconds - 1)
        share = (time.process_time() - cpu) / (time.perf_counter() - wall)
        histogram = hub.lateness()
        stats = [stream.statistics() for stream in all_streams]
        nursery.cancel_scope.cancel()
    within = {bound: sum(c for b, c in histogram if b <= bound) for bound in BOUNDS_MS}
    total = within[BOUNDS_MS[-1]]
    return {
        "streams": streams,
        "cpu_share": share,
        "cpu_ms_per_call_second": share / streams * 1000,
        "packets_out": total,
        "packets_in": sum(each.packets for each in stats),
        "lost": sum(each.lost for each in stats),
        "filled_ms": sum(each.filled_ms for each in stats),
        "overrun_ms": sum(each.overrun_ms for each in stats),
        "audio_bytes_taken": taken,
        "lateness_ms": percentiles(histogram),
        "share_within_2_ms": within[2.0] / total,
        "share_within_5_ms": within[5.0] / total,
        "skipped_ms": sum(each.skipped_ms for each in stats),
    }


def run(streams: int, seconds: float, load: float) -> dict[str, Any]:
    """One measurement, on two cores where there are two."""
    cores = share_out(os.sched_getaffinity(0))
    ours, theirs = multiprocessing.Pipe()
    other = multiprocessing.get_context("fork").Process(
        target=peer, args=(streams, seconds, theirs)
    )
    other.start()
    assert other.pid is not None
    pin(other.pid, cores.load)
    pin(os.getpid(), cores.system)
    found = trio.run(paced, streams, seconds, load, ours)
    found["peer"] = ours.recv()
    other.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--load", type=float, default=0.8, help="of the core in all; 0: RTP alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"us": micro()}
    for name, us in result["us"].items():
        print(f"{name:20} {us:6.2f} µs")
    for name, load in (("rtp alone", 0.0), ("loaded", options.load)):
        if name == "loaded" and not load:
            continue
        result[name] = run(options.streams, options.seconds, load)
        print(name)
        for key, value in result[name].items():
            print(f"  {key:24} {value}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
