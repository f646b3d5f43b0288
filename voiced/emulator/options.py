"""How the emulator speaks, how fast it is, and how it misbehaves when told to."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

__all__ = ["EmulatorOptions", "Faults", "OptionsError", "Order", "parse_faults"]

Ms = Annotated[int, Meta(ge=0, le=3_600_000)]
HttpStatus = Literal[0, 400, 401, 403, 404, 429, 500, 503]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]


Order = Literal["usual", "created_late", "items_first", "items_late", "words_first", "words_last"]
"""Of the events of an answer: as OpenAI sends them, or as others do.

`created_late`: response.created after the first delta. `items_first`: an item is done before its
parts are. `items_late`: an item joins the conversation when the response is over. `words_first`,
`words_last`: the whole transcript before the audio, or after it.
"""


class OptionsError(ValueError):
    """A setting that does not exist or has an impossible value; one line, with the remedy."""


class Faults(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong. Everything is off by default; keys are those of a `faults` table in TOML.

    Durations are milliseconds; counts begin at 1; 0 is off. A fault "in an answer" happens when so
    many ms of the answer's audio have been sent, 1 being right after the first delta.
    """

    # Before the conversation
    dialect: Literal["ga", "beta"] = "ga"  # names, session and header of the interface of 2024
    refuse_status: Literal[0, 401, 403, 429, 500, 503] = 0  # HTTP status in place of the upgrade
    refuse_code: str = ""  # upgrade, then an error event with this code and a close
    refuse_first: Count = 0  # only the first so many connections are refused (503, if not said) ...
    refuse_for_ms: Ms = 0  # ... or only those in so long from the server's start on
    refuse_after: Count = 0  # ... or only those after so many
    quota: bool = False  # 429 insufficient_quota for everything, over HTTP too
    refuse_close: Annotated[int, Meta(ge=3000, le=4999)] = 4000  # its close code
    late_created_ms: Ms = 0  # before session.created
    late_updated_ms: Ms = 0  # before session.updated
    reject_update: str = ""  # session.update fails: unknown_parameter with this as `param`

    # Answers
    late_response_ms: Ms = 0  # before response.created
    silent: bool = False  # no response ever, although everything else works
    fail_response: Count = 0  # the response of this number ends as failed ...
    fail_all: bool = False  # ... or every one does
    fail_code: str = "insufficient_quota"  # its error code
    usage_null: bool = False  # response.done without usage
    delta_bytes: Annotated[int, Meta(ge=0, le=4 * 1024 * 1024)] = (
        0  # of audio per delta: 1, 1048576
    )
    answer_ms: Ms = 0  # answers are repeated until they are that long
    duplicate_deltas: bool = False  # every audio delta twice
    late_deltas: Annotated[int, Meta(ge=0, le=100)] = 0  # audio deltas sent on after a cancel
    unknown_events: bool = False  # events of types that nobody knows in every response
    function_calls: Annotated[int, Meta(ge=0, le=8)] = 0  # tools called instead of an answer ...
    function_arguments: str = "{}"  # ... with these arguments (half JSON, perhaps), once a turn
    unnamed_calls: bool = False  # response.function_call_arguments.done without `name`
    half_calls: Count = 0  # the first so many calls stop half-way and wait to be cancelled
    order: Order = "usual"  # of the events of an answer

    # Transcripts of the caller: usual, before the response, after it, failed, or none
    transcription: Literal["usual", "before", "after", "failed", "never"] = "usual"

    # During the conversation
    faulty_sessions: Count = 0  # only the first so many sessions have faults of answers and below
    reject_truncate: bool = False  # every conversation.item.truncate is "already shorter"
    error_after_ms: Ms = 0  # an error event of type server_error, the session goes on
    session_expired_after_ms: Ms = 0  # error session_expired, then close 1001
    close_after_ms: Ms = 0  # sudden close after so long ...
    close_in_answer_ms: Ms = 0  # ... or in an answer
    close_code: Annotated[int, Meta(ge=1000, le=4999)] = 1006  # 1006: TCP closed without a word
    deaf_after_ms: Ms = 0  # the caller's audio is not heard any more, and all else works
    half_open_after_ms: Ms = 0  # nothing is answered any more, not even a ping ...
    half_open_in_answer_ms: Ms = 0  # ... or from the midst of an answer on
    lose_all_after_ms: Ms = 0  # once, so long after the server's start: all sessions close, and ...
    outage_ms: Ms = 0  # ... connections are refused (503, if not said otherwise) for so long

    # Over HTTP: the status of the answer, how late it comes, after how many bytes of it TCP closes
    stt_status: HttpStatus = 0
    stt_late_ms: Ms = 0
    stt_cut_bytes: Count = 0
    chat_status: HttpStatus = 0
    chat_late_ms: Ms = 0
    chat_cut_bytes: Count = 0
    tts_status: HttpStatus = 0
    tts_late_ms: Ms = 0
    tts_cut_bytes: Count = 0
    faulty_requests: Count = 0  # only the first so many requests of each of the three have these

    def healed(self) -> Faults:
        """These faults without those of answers and of the conversation."""
        fields = self.__struct_fields__
        passing = fields[fields.index("late_response_ms") : fields.index("lose_all_after_ms")]
        kept = (name for name in fields if name not in passing)
        return Faults(**{name: getattr(self, name) for name in kept})


class EmulatorOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of the emulator.

    `speech`: espeak (espeak-ng, which must be installed), clips (bundled recordings), echo (the
    caller's own words), auto (espeak-ng for texts without a recording where it is installed).
    """

    speech: Literal["auto", "espeak", "clips", "echo"] = "auto"
    api_key: str | None = None  # required as `Authorization: Bearer` when set
    think_ms: Ms = 100  # between a turn's end and the answer's first audio
    transcription_ms: Ms = 150  # between a turn's end and the caller's transcript
    delta_ms: Annotated[int, Meta(ge=20, le=10_000)] = 200  # audio in one delta
    realtime_factor: Annotated[float, Meta(gt=0, le=1000)] = 4.0  # how fast audio is generated
    session_s: Annotated[float, Meta(gt=0)] = 3600.0  # then session_expired, as with OpenAI
    max_connections: Annotated[int, Meta(ge=1)] = 1000  # more get HTTP 503
    faults: Faults = field(default_factory=Faults)


def parse_faults(table: Mapping[str, object]) -> Faults:
    """Check a `faults` table. Raises OptionsError naming the key, and the nearest known one."""
    known = Faults.__struct_fields__
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise OptionsError(f"unknown fault {key!r}{hint}")
    try:
        return msgspec.convert(dict(table), Faults)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$.")
        raise OptionsError(f"fault {where.rstrip('`')!r}: {text[0].lower()}{text[1:]}") from None
