"""What offer and answer have agreed on, as codecs: what is sent, what is understood."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from voiced.formats import AudioFormat
from voiced.rtp import codec
from voiced.rtp.media import MediaParameters

__all__ = ["Codecs", "check", "codecs_of"]

_PTIMES: Final = range(10, 61, 10)

Step = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Codecs:
    """One stream's. They keep state: they go on where nothing has changed."""

    main: int
    """The payload type of the codec that is sent."""
    decoders: Mapping[int, Step | None]
    """By payload type; None: it is the stream's format already."""
    others: Mapping[int, str]
    """Payload types that are accepted and hold no speech, and their names."""
    encode: Step | None


def check(parameters: MediaParameters) -> None:
    """Raises ValueError for what voiced does not speak."""
    if parameters.ptime_ms not in _PTIMES:
        raise ValueError(
            f"packets of {parameters.ptime_ms} ms: 10 to 60 in steps of 10 are possible"
        )
    if parameters.codec not in codec.FORMATS:
        raise ValueError(f"voiced speaks {', '.join(codec.FORMATS)}, not {parameters.codec!r}")
    if parameters.codec not in parameters.types().values():
        raise ValueError(f"{parameters.codec} is sent but not among what is accepted")


def codecs_of(parameters: MediaParameters, form: AudioFormat) -> Codecs:
    """The codecs of checked parameters, converted to and from `form`. Raises CodecUnavailable."""
    accepted = parameters.types()
    return Codecs(
        main=next(number for number, name in accepted.items() if name == parameters.codec),
        decoders={
            number: codec.decoder(name, form)
            for number, name in accepted.items()
            if name in codec.FORMATS
        },
        others={number: name for number, name in accepted.items() if name not in codec.FORMATS},
        encode=codec.encoder(form, parameters.codec),
    )
