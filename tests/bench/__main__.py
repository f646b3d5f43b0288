"""The benchmarks: `python -m tests.bench [NAME] [options]`.

Without a name: the daemon under load, then the native module. Each has `--help` or says in its
first lines what it takes; `tests/README.md` says how to read them.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

PARTS: Final = {
    "load": "the daemon under load: delays, barge-in, CPU and memory per call",
    "sip": "the daemon as a SIP endpoint under load: set-up, delays, pacing, strangers",
    "failover": "a model lost at random moments: what the caller waits for",
    "recorder": "what recording adds to the daemon's CPU per call, and a plugin that hears nothing",
    "churn": "many short calls through one daemon: what stays of them",
    "native": "codec and resampling steps beside their peers, ns per frame",
    "websocket": "what a WebSocket message costs, by codec",
    "rtp": "what a packet costs, and how evenly 200 streams leave beside other work",
    "playclock": "error of the heard position at barge-in, on a simulated carrier",
}


def run(name: str, arguments: list[str]) -> int:
    """Run one part as if it had been started by itself."""
    sys.argv = [f"python -m tests.bench.{name}", *arguments]
    return importlib.import_module(f"tests.bench.{name}").main() or 0


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    if not arguments:
        return run("load", []) or run("native", [])
    name, *rest = arguments
    if name in PARTS:
        return run(name, rest)
    asked = name in ("-h", "--help")
    print((__doc__ or "").strip(), file=None if asked else sys.stderr)
    for part, what in PARTS.items():
        print(f"  {part:10} {what}", file=None if asked else sys.stderr)
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
