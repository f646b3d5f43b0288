"""What the demo can show: for each scenario a configuration, the calls, and what must be true."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from voiced import clips
from voiced.demo.held import Held
from voiced.simulate.script import (
    SCRIPTS,
    HangUp,
    Pause,
    Press,
    Say,
    SayWhileAgentSpeaks,
    Script,
    Step,
    WaitForAgentSilence,
    WaitForAgentSpeech,
    WaitForHangUp,
)

__all__ = ["SCENARIOS", "Place", "Scenario"]

CACHED_MS: Final = 100  # of a greeting that is kept, from media on
LATE_MS: Final = 1500  # how slow the model's server is, where that is to be seen
FILLER_MS: Final = 1000
GOES_ON_MS: Final = 3000

_HEARD: Final = (WaitForAgentSpeech(300), WaitForAgentSilence())


@dataclass(frozen=True, slots=True)
class Place:
    """A call of a scenario: over `twilio` or `sip`, the suffix of its files, what the caller does.

    `number` is the one that is called.
    """

    over: str
    suffix: str
    script: Script
    number: str = "+15550100"
    title: str = "A call"


Checks = Callable[[Held], Mapping[str, bool]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way in which the daemon can be shown."""

    name: str
    description: str
    config: str
    """What stands in the configuration beside the listeners; `{helper}` is the URL of a service."""
    calls: tuple[Place, ...]
    checks: Checks


def _script(name: str, *steps: Step) -> Script:
    return Script(name, "", (*_HEARD, *steps))


def _went_well(held: Held) -> dict[str, bool]:
    return {"nothing else went wrong": held.result.ok}


def _said_goodbye(held: Held) -> bool:
    """The agent's last words were its farewell, heard to their end before it hung up."""
    farewell, heard = clips.load("farewell"), held.result.agent
    last = [line["text"] for line in held.row.get("transcript", ()) if line["role"] == "agent"][-1:]
    whole = bool(heard) and heard[-1].end_ms - heard[-1].start_ms >= 0.8 * farewell.duration_ms
    return held.result.ended_by == "agent" and last == [farewell.text] and whole


def _latency(held: Held, name: str) -> Any:
    return held.row.get("latencies", {}).get(name)


# ---- the conversation


def _conversation(held: Held) -> Mapping[str, bool]:
    result = held.result
    return {
        "the caller heard the greeting": result.heard_greeting(),
        "the caller heard an answer": result.heard_answer(),
        "the caller's interruption was heeded at once": result.clean_barge_in(),
        **_went_well(held),
    }


_GREETS: Final = f'greeting_text = "{clips.load("greeting").text}"'

_RECEPTION: Final = f"""
[agent.reception]
engine = "offline"
{_GREETS}
farewell_text = "{clips.load("farewell").text}"

[[number]]
match = "*"
agent = "reception"
"""

_OFFLINE: Final = """
[engine.offline]
kind = "emulator"
"""

CONVERSATION: Final = Scenario(
    "conversation",
    "a greeting, a question, an interruption, another answer",
    _OFFLINE + _RECEPTION,
    (
        Place("twilio", "", SCRIPTS["conversation"]),
        Place("sip", "-sip", SCRIPTS["interruption"]),
    ),
    _conversation,
)

PIPELINE: Final = Scenario(
    "pipeline",
    "the same with speech to text, chat and text to speech in place of one model",
    """
[engine.offline]
kind = "pipeline"
stt.provider = "emulator"
chat.provider = "emulator"
tts.provider = "emulator"
"""
    + _RECEPTION,
    CONVERSATION.calls,
    _conversation,
)


# ---- a greeting that is kept


def _greeting_cache(held: Held) -> Mapping[str, bool]:
    greeting_ms, ready_ms = _latency(held, "greeting_ms"), _latency(held, "model_ready_ms")
    heard = {"the caller heard the greeting": held.result.heard_greeting()}
    told = any(
        line["role"] == "agent" and line["text"] == clips.load("greeting").text
        for line in held.row.get("transcript", ())
    )
    if held.first:
        waited = greeting_ms is not None and greeting_ms >= LATE_MS
        return {**heard, "the first caller waited for the model": waited, **_went_well(held)}
    return {
        **heard,
        f"within {CACHED_MS} ms of media": greeting_ms is not None and greeting_ms <= CACHED_MS,
        "while the model still connected": ready_ms is not None and ready_ms >= LATE_MS,
        "and the conversation knows that it was said": told,
        "the caller heard an answer": held.result.heard_answer(),
        **_went_well(held),
    }


_ASKS_HELLO: Final = _script("asks", Say("hello"), *_HEARD, HangUp())

GREETING_CACHE: Final = Scenario(
    "greeting_cache",
    "a slow model greets the first caller; later ones hear the same greeting at once",
    f"""{_OFFLINE}
faults.late_created_ms = {LATE_MS}

[plugins.greeting_cache]
{_RECEPTION}""",
    (
        Place("twilio", "-first", SCRIPTS["listener"], title="The first call"),
        Place("twilio", "", _ASKS_HELLO, title="A later call"),
        Place("sip", "-sip", _ASKS_HELLO, title="A later call"),
    ),
    _greeting_cache,
)


# ---- digits

PIN: Final = "4711"
HOURS: Final = clips.load("opening_hours").text


def _digits(held: Held) -> Mapping[str, bool]:
    said = [line["text"] for line in held.row.get("transcript", ()) if line["role"] == "agent"]
    checked = [each for each in held.asked if each.endswith(f"/pin/{PIN}")]
    return {
        "1: the agent said the opening hours": any(HOURS.startswith(text[:20]) for text in said),
        "a key silenced the agent": any(line["cut"] for line in held.row.get("transcript", ())),
        "2 and a secret number: a tool was asked about it": len(checked) == held.place + 1,
        "the secret stands in no log, journal or timeline": not held.known(PIN),
        "9: the agent said goodbye and hung up": _said_goodbye(held),
        **_went_well(held),
    }


_MENU: Final = _script(
    "keys",
    Press("1"),
    WaitForAgentSpeech(1500),
    Press("2"),
    Pause(600),
    *(step for digit in f"{PIN}#" for step in (Press(digit, secret=True), Pause(150))),
    *_HEARD,
    Press("9"),
    WaitForHangUp(20),
)

DIGITS: Final = Scenario(
    "digits",
    "keys: what is said is cut off, a secret number goes to a tool alone, the call is ended",
    _OFFLINE
    + _RECEPTION
    + """
[plugins.dtmf.menu.main.keys]
1 = { say = "HOURS" }
9 = { hang_up = true }

[plugins.dtmf.menu.main.keys.2.collect]
secret = true
max_length = 8
terminator = "#"
then = { tool = "check_pin", arguments = { pin = "{digits}" }, say = "{result}" }

[plugins.tools]
end_call = false

[[plugins.tools.http]]
name = "check_pin"
description = "Not for the model."
url = "{helper}/pin/{pin}"
extract = "/answer"
parameters.properties.pin.type = "string"
parameters.required = ["pin"]
""".replace("HOURS", HOURS),
    (Place("twilio", "", _MENU), Place("sip", "-sip", _MENU)),
    _digits,
)


# ---- a model that is lost


def _failover(held: Held) -> Mapping[str, bool]:
    states = [(each["at_ms"], each["text"]) for each in held.timeline if each["who"] == "model"]
    lost = next((at for at, text in states if text == "reconnecting"), None)
    back = next((at for at, text in states if lost is not None and at > lost), None)
    other = any(text == "fallback" for _, text in states)
    heard = [(said.start_ms, said.end_ms) for said in held.result.agent]
    offset = next((each["at_ms"] for each in held.timeline if each["text"] == "media flows"), 0)
    covered = lost is not None and any(
        start <= lost - offset + FILLER_MS and end > lost - offset for start, end in heard
    )
    remembers = any(
        line["role"] == "agent" and clips.load("you_asked").text[:15] in line["text"]
        for line in held.row.get("transcript", ())
    )
    checks = {
        "the model was lost in the middle of the call": lost is not None,
        f"the caller heard something within {FILLER_MS} ms": covered,
        "the model knows what was said before": remembers,
    }
    if held.place == 0:
        soon = lost is not None and back is not None and back - lost <= GOES_ON_MS
        checks[f"it was back within {GOES_ON_MS} ms"] = soon
    else:
        checks["another engine took over"] = other
    return {**checks, **_went_well(held)}


_REMEMBERS: Final = _script(
    "remembers",
    Say("hello"),
    *_HEARD,
    Pause(500),
    Say("appointment"),
    WaitForAgentSpeech(300),
    WaitForAgentSilence(2500),
    Say("recall"),
    *_HEARD,
    HangUp(),
)

FAILOVER: Final = Scenario(
    "failover",
    "a model that is lost and comes back, and one that does not: another takes over",
    """
[engine.flaky]
kind = "emulator"
faults = { close_after_ms = 9000, faulty_sessions = 1 }

[engine.dying]
kind = "emulator"
faults = { close_after_ms = 6200, refuse_after = 1 }

[engine.spare]
kind = "emulator"

[agent.reception]
engine = "flaky"
GREETS

[agent.lounge]
engine = "dying"
fallback_engine = "spare"
reconnect_s = 2
GREETS

[[number]]
match = "+15550101"
agent = "lounge"

[[number]]
match = "*"
agent = "reception"
""".replace("GREETS", _GREETS),
    (
        Place("twilio", "", _REMEMBERS),
        Place("sip", "-sip", _REMEMBERS, number="+15550101"),
    ),
    _failover,
)


# ---- a tool


def _tool(held: Held) -> Mapping[str, bool]:
    asked = [each for each in held.asked if each.endswith("/hours")]
    said = [line["text"] for line in held.row.get("transcript", ()) if line["role"] == "agent"]
    return {
        "the model called the tool": len(asked) == held.place + 1,
        "the caller heard what it returned": any("nine in the morning" in text for text in said),
        "the model ended the call": held.row.get("reason") == "model",
        "after a goodbye": _said_goodbye(held),
        **_went_well(held),
    }


_ASKS: Final = _script(
    "asks",
    Say("hours"),
    WaitForAgentSpeech(5000, timeout_s=20),
    SayWhileAgentSpeaks("thanks"),
    WaitForHangUp(25),
)

TOOL: Final = Scenario(
    "tool",
    "the model looks something up over HTTP, answers with it, and ends the call when asked to",
    _OFFLINE
    + _RECEPTION
    + """
[plugins.tools]
end_call = true

[[plugins.tools.http]]
name = "opening_hours"
description = "Looks up when the office is open."
url = "{helper}/hours"
extract = "/hours"
""",
    (Place("twilio", "", _ASKS), Place("sip", "-sip", _ASKS)),
    _tool,
)

SCENARIOS: Final = {
    each.name: each for each in (CONVERSATION, GREETING_CACHE, DIGITS, FAILOVER, PIPELINE, TOOL)
}
