"""Simulated callers: the carrier's side of Twilio Media Streams, as an independent peer.

It shares no code with `voiced.twilio`: what the two agree on, they agree on over the wire.

    playbuffer   what is heard of what was sent      script, performer   what the caller does
    wire, twiml, signature, link   the carrier       phone               all of it, sans-I/O
    client, caller   the network, one call           result, main        figures and the command
    line             the telephone's echo of what it plays
"""

from __future__ import annotations

from voiced.simulate.caller import call
from voiced.simulate.client import Network
from voiced.simulate.events import CallEvent, Observer
from voiced.simulate.line import Line
from voiced.simulate.result import CallResult
from voiced.simulate.script import SCRIPTS, Script

__all__ = ["SCRIPTS", "CallEvent", "CallResult", "Line", "Network", "Observer", "Script", "call"]
