"""What a simulated caller does: a list of steps, and the scripts that come with voiced."""

from __future__ import annotations

from dataclasses import dataclass

from voiced.simulate.speech import Speech

__all__ = [
    "SCRIPTS",
    "CutLine",
    "HangUp",
    "Hold",
    "Pause",
    "Press",
    "Resume",
    "Say",
    "SayWhileAgentSpeaks",
    "Script",
    "Step",
    "WaitForAgentSilence",
    "WaitForAgentSpeech",
    "WaitForHangUp",
]


@dataclass(frozen=True, slots=True)
class WaitForAgentSpeech:
    """Until the agent has been heard speaking for `min_ms` since this step began."""

    min_ms: int = 200
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class WaitForAgentSilence:
    """Until the agent has been silent for `ms`, silence from before this step included."""

    ms: int = 700
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Say:
    """Speak: the name of a bundled clip, or any speech."""

    clip: str | Speech


@dataclass(frozen=True, slots=True)
class SayWhileAgentSpeaks:
    """Barge in: speak once the agent has been heard for `after_ms` and is still speaking."""

    clip: str | Speech
    after_ms: int = 600
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Be silent for `ms`."""

    ms: int


@dataclass(frozen=True, slots=True)
class Press:
    """Press one key of `0-9 * # A-D`; an observer is not told a `secret` one."""

    digit: str
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Put the agent on hold, until it has agreed. Over SIP alone: media streams know no hold."""

    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Resume:
    """Come back from hold, until the agent has agreed."""

    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the call: `stop`, then the socket is closed."""


@dataclass(frozen=True, slots=True)
class CutLine:
    """End the call as a failing network does: the socket breaks, no `stop` before it."""


@dataclass(frozen=True, slots=True)
class WaitForHangUp:
    """Until the agent's side ends the call."""

    timeout_s: float = 60.0


Step = (
    WaitForAgentSpeech
    | WaitForAgentSilence
    | Say
    | SayWhileAgentSpeaks
    | Pause
    | Press
    | Hold
    | Resume
    | HangUp
    | CutLine
    | WaitForHangUp
)


@dataclass(frozen=True, slots=True)
class Script:
    """A caller's behaviour. After the last step the caller hangs up."""

    name: str
    description: str
    steps: tuple[Step, ...]


_GREETING = (WaitForAgentSpeech(300), WaitForAgentSilence())

SCRIPTS: dict[str, Script] = {
    script.name: script
    for script in (
        Script(
            "conversation",
            "hears the greeting, asks, interrupts the answer, hears another, says thanks",
            (
                *_GREETING,
                Say("hours"),
                SayWhileAgentSpeaks("interrupt"),
                WaitForAgentSpeech(300),
                WaitForAgentSilence(),
                Say("thanks"),
                WaitForAgentSpeech(300),
                WaitForAgentSilence(),
                HangUp(),
            ),
        ),
        Script(
            "interruption",
            "hears the greeting, asks, interrupts the answer, hears another",
            (
                *_GREETING,
                Say("hours"),
                SayWhileAgentSpeaks("interrupt"),
                WaitForAgentSpeech(300),
                WaitForAgentSilence(),
                HangUp(),
            ),
        ),
        Script(
            "question",
            "hears the greeting, says hello, hears the answer",
            (*_GREETING, Say("hello"), WaitForAgentSpeech(300), WaitForAgentSilence(), HangUp()),
        ),
        Script(
            "impatient",
            "interrupts the greeting, then hears the answer",
            (
                SayWhileAgentSpeaks("interrupt", after_ms=400),
                WaitForAgentSpeech(300),
                WaitForAgentSilence(),
                HangUp(),
            ),
        ),
        Script(
            "digits",
            "presses 1, 2 and # while the greeting is heard",
            (WaitForAgentSpeech(200), Press("1"), Press("2"), Press("#"), *_GREETING[1:]),
        ),
        Script(
            "hold",
            "asks, holds the call in the middle of the answer, comes back and asks again (SIP)",
            (
                *_GREETING,
                Say("hours"),
                WaitForAgentSpeech(400),
                Hold(),
                Pause(3000),
                Resume(),
                WaitForAgentSilence(1500),
                Say("hello"),
                WaitForAgentSpeech(300),
                WaitForAgentSilence(),
                HangUp(),
            ),
        ),
        Script("silent", "says nothing until the agent hangs up", (WaitForHangUp(),)),
        Script("listener", "hears the greeting and hangs up", (*_GREETING, HangUp())),
        Script("dropout", "is cut off in the middle of the greeting", (*_GREETING[:1], CutLine())),
    )
}
