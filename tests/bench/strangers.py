"""A crowd at the door: INVITEs at full speed from an address that nobody knows.

    python -m tests.bench.strangers --sip 127.0.0.1:5060 --count 10000 [--source 127.0.0.2]

Prints when it began and ended, how many went out and how many answers came back, as JSON.
"""

from __future__ import annotations

import argparse
import signal
import socket
import time

import msgspec
from msgspec import Struct

__all__ = ["Crowd"]


class Crowd(Struct):
    """What a crowd did; times in ns of the monotonic clock."""

    start_ns: int
    end_ns: int
    sent: int
    answers: int


_INVITE = (
    "INVITE sip:{number}@{host}:{port} SIP/2.0\r\n"
    "Via: SIP/2.0/UDP {own}:{own_port};branch=z9hG4bKx{number};rport\r\n"
    "Max-Forwards: 70\r\nFrom: <sip:{number}@{own}>;tag=s{number}\r\n"
    "To: <sip:{number}@{host}>\r\nCall-ID: stranger{number}@{own}\r\nCSeq: 1 INVITE\r\n"
    "Contact: <sip:{number}@{own}:{own_port}>\r\nContent-Type: application/sdp\r\n"
    "Content-Length: {length}\r\n\r\n{sdp}"
)
_SDP = (
    "v=0\r\no=- 1 1 IN IP4 {own}\r\ns=-\r\nc=IN IP4 {own}\r\nt=0 0\r\n"
    "m=audio 40000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
)


def main() -> None:
    """Send them all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sip", required=True, metavar="HOST:PORT")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--source", default="127.0.0.2")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the orchestrator ends us
    host, _, port = options.sip.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((options.source, 0))
        own, own_port = sock.getsockname()
        sdp = _SDP.format(own=own)
        names = {"host": host, "port": port, "own": own, "own_port": own_port, "sdp": sdp}
        # All are written first: sending is then as fast as the machine goes.
        messages = [
            _INVITE.format(number=number, length=len(sdp), **names).encode()
            for number in range(options.count)
        ]
        start = time.monotonic_ns()
        for message in messages:
            sock.sendto(message, (host, int(port)))
        end = time.monotonic_ns()
        sock.settimeout(1.0)
        answers = 0
        try:
            while True:
                sock.recv(65536)
                answers += 1
        except TimeoutError:
            pass
    print(msgspec.json.encode(Crowd(start, end, len(messages), answers)).decode(), flush=True)


if __name__ == "__main__":
    main()
