"""What the two generator processes write down. Times are of the monotonic clock, in ns."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct, field

__all__ = [
    "CallerLog",
    "Cleared",
    "Delta",
    "FrameSent",
    "Gap",
    "Heard",
    "MarkArrived",
    "ModelLog",
    "SpeechStarted",
    "Truncate",
    "Window",
]


class Window(Struct, frozen=True):
    """When the load was steady: all callers had begun, none had yet ended."""

    start_ns: int
    end_ns: int


class FrameSent(NamedTuple):
    """A caller's frame with a mark, just before it was sent."""

    at_ns: int
    call: int
    sequence: int


class Heard(NamedTuple):
    """A mark of the model's found in what came back. `position` in samples of the call's audio."""

    at_ns: int
    call: int
    number: int
    answer: int  # modulo markers.SEQUENCES
    position: int


class Cleared(NamedTuple):
    """A `clear`: samples received until then, and how many of them were unplayed."""

    at_ns: int
    call: int
    position: int
    unplayed: int


class Gap(NamedTuple):
    """The play buffer had run dry for `us` when the audio at `position` came."""

    at_ns: int
    call: int
    position: int
    us: int


class CallerLog(Struct):
    """The callers' side. Lateness is the generator's own, within the window."""

    sent: list[FrameSent] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    cleared: list[Cleared] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    received: dict[int, int] = field(default_factory=dict)  # samples by call, at the end
    frames: int = 0
    late_5ms: int = 0
    latest_ms: float = 0.0
    media: int = 0
    marks: int = 0
    refused: list[str] = field(default_factory=list)  # why, for each call that never began
    dropped: list[str] = field(default_factory=list)  # how, for each call that the bridge ended
    broken: int = 0  # marks that did not add up
    cpu_s: float = 0.0


class MarkArrived(NamedTuple):
    """A caller's mark, when the append with its last symbol had been read."""

    at_ns: int
    session: int
    call: int
    sequence: int


class Delta(NamedTuple):
    """200 ms of an answer, just before they were sent."""

    at_ns: int
    session: int
    number: int
    answer: int
    first: bool


class SpeechStarted(NamedTuple):
    """`interrupts`: the caller would still hear at least 100 ms of `answer`."""

    at_ns: int
    session: int
    answer: int
    interrupts: bool


class Truncate(NamedTuple):
    """What the bridge says was heard of an answer."""

    at_ns: int
    session: int
    answer: int
    audio_end_ms: int


class ModelLog(Struct):
    """The model's side. `appends` and `samples` count by tenths of a second of the clock."""

    arrived: list[MarkArrived] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)
    speech: list[SpeechStarted] = field(default_factory=list)
    truncates: list[Truncate] = field(default_factory=list)
    appends: dict[int, int] = field(default_factory=dict)
    samples: dict[int, int] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)  # "input/output" by session
    cancels: int = 0
    unknown: list[str] = field(default_factory=list)  # types of client events, the first few
    broken: int = 0
    cpu_s: float = 0.0
