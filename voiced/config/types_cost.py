"""What calls cost, and may cost: `[price."MODEL"]` and `[cost]`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from voiced.config.table import Dollars, Table

__all__ = ["Cost", "Price"]


class Price(Table, frozen=True):
    """US dollars per million tokens or characters, or per minute; laid over the bundled prices.

    Each step is priced by its own model: the one that talks, `transcription_model`, and the three
    of a pipeline. A plugin's step without a `model` is priced by the name of the plugin, the
    emulator as `"emulator"`.
    """

    text_in: Dollars = 0.0
    """Text read."""
    cached_text_in: Dollars | None = None
    """Text read from the cache. Left out: as `text_in`."""
    text_out: Dollars = 0.0
    """Text written."""
    audio_in: Dollars = 0.0
    """Audio heard."""
    cached_audio_in: Dollars | None = None
    """Audio heard before, from the cache. Left out: as `audio_in`."""
    audio_out: Dollars = 0.0
    """Audio spoken."""
    characters: Dollars = 0.0
    """Text to be spoken, by the million characters: for text to speech."""
    per_minute: Dollars = 0.0
    """For models paid by time: of the conversation, of the sound that is written down, or of the \
sound that is spoken."""


class Cost(Table, frozen=True):
    """Caps on what is spent, in US dollars as the price table has them. Left out: none.

    Shortly before a cap strikes the caller hears the agent's farewell: 15 s of each live call are
    set aside for it, at what they cost. A cap is passed by what its live calls cost within 6 s more
    at the most, and by what nobody can foresee, such as a long conversation that is read again; one
    that is worth less than 30 s of a call may be passed by one farewell more. The call that finds a
    cap spent is refused as busy, after a restart too.
    """

    call_usd: Annotated[float, Meta(gt=0)] | None = None
    """The most that one call may cost."""
    number_usd: Annotated[float, Meta(gt=0)] | None = None
    """The most that the calls of one called number may cost on one day."""
    day_usd: Annotated[float, Meta(gt=0)] | None = None
    """The most that all calls may cost on one day; a day begins at midnight UTC."""
