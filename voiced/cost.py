"""What a call cost: tokens, characters and minutes times a price table, in US dollars.

Each step is billed by the model that does it (`voiced.engine.Billed`): the one that talks or
thinks by its tokens or by the time that it is connected, the one that writes down the caller's
words by its tokens or by the sound that it was given, the one that speaks by the characters or by
the sound that it made.

The bundled table holds list prices; a file's `[price."MODEL"]` replaces an entry whole.

What servers tell of usage is taken as far as it can be true: it is what caps go by, and one figure
that is none must neither close a number for the day nor open it. A server that tells nothing at all
is billed by the time of the conversation. An answer whose usage was never told, because the
connection was lost, the caller hung up, or the server left it out, is billed by what came of it,
and for what it had read by what the answer before it had.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import structlog

from voiced.config.types import Price
from voiced.engine import Billed, Usage

__all__ = [
    "MOST",
    "Spending",
    "cost_usd",
    "expected_usd_s",
    "speech_usd",
    "told",
    "transcription_usd",
]

log = structlog.get_logger("voiced.cost")

_PER: Final = 1_000_000

MOST: Final = 10_000_000
"""Tokens, characters or seconds of one answer beyond which a figure is taken for a mistake: the
largest models read a tenth of it."""

HEARD_PER_S: Final = 10.0
"""Tokens of a second of a caller's audio (openai-realtime 13), for a server that tells only one of
both and is billed by the other."""


SPOKEN_PER_S: Final = 20.0
"""Tokens of a second of an agent's audio (openai-realtime 13)."""

CHARACTERS_PER_S: Final = 15.0
"""Of speech, in most languages."""

CHARACTERS_PER_TOKEN: Final = 4  # of English; few tokens, and the cheaper ones


def cost_usd(price: Price, usage: Usage, seconds: float) -> float:
    """The price of an answer's tokens in `usage`, and of `seconds` of the model.

    Cached input tokens are part of the input figures and priced apart (openai-realtime 13).
    """
    tokens = (
        _input(usage.text_in, usage.cached_text_in, price.text_in, price.cached_text_in)
        + _input(usage.audio_in, usage.cached_audio_in, price.audio_in, price.cached_audio_in)
        + usage.text_out * price.text_out
        + usage.audio_out * price.audio_out
    )
    return tokens / _PER + price.per_minute * seconds / 60


def _input(tokens: int, cached: int, price: float, cached_price: float | None) -> float:
    cached = min(cached, tokens)
    return (tokens - cached) * price + cached * (price if cached_price is None else cached_price)


def told(usage: Usage) -> Usage:
    """What a server tells, without the figures that cannot be true: those count as nothing."""
    wrong = {
        name: value
        for name, value in dataclasses.asdict(usage).items()
        if not 0 <= value <= MOST  # nor NaN
    }
    if not wrong:
        return usage
    log.warning("usage not counted: no such figures", figures=sorted(wrong))
    return dataclasses.replace(usage, **dict.fromkeys(wrong, 0))


def transcription_usd(price: Price, usage: Usage) -> float:
    """The price of writing down what `usage` says was heard."""
    heard = usage.transcription_in or usage.transcription_s * HEARD_PER_S
    seconds = usage.transcription_s or usage.transcription_in / HEARD_PER_S
    tokens = heard * (price.audio_in or price.text_in) + usage.transcription_out * price.text_out
    return tokens / _PER + price.per_minute * seconds / 60


def speech_usd(price: Price, usage: Usage) -> float:
    """The price of speaking what `usage` says was spoken."""
    characters = usage.speech_characters * price.characters / _PER
    return characters + price.per_minute * usage.speech_s / 60


def expected_usd_s(prices: Mapping[str, Price], billed: Billed) -> float:
    """What a second costs in which caller and agent both talk, as far as the table tells.

    What a model reads again of a conversation is not in it, and nor is the text of a chat: how much
    that is, nobody knows before.
    """
    none = Price()
    talk = prices.get(billed.model, none)
    usd = _by_time(talk, 1.0) + talk.per_minute / 60
    if billed.transcription:
        price = prices.get(billed.transcription, none)
        usd += transcription_usd(price, Usage(transcription_s=1.0))
    if billed.speech:
        price = prices.get(billed.speech, none)
        usd += CHARACTERS_PER_S * price.characters / _PER + price.per_minute / 60
    return usd


def _by_time(price: Price, seconds: float) -> float:
    """Of a model that is billed by tokens, while both sides talk."""
    return seconds * (HEARD_PER_S * price.audio_in + SPOKEN_PER_S * price.audio_out) / _PER


_OF_TALK: Final = ("text_in", "audio_in", "text_out", "audio_out")
_OF_TRANSCRIPTION: Final = ("transcription_in", "transcription_out", "transcription_s")
_OF_SPEECH: Final = ("speech_characters", "speech_s")


def _any(usage: Usage, names: tuple[str, ...]) -> bool:
    return any(getattr(usage, name) for name in names)


class Spending:
    """What one call has used so far, of all the models that worked in it."""

    def __init__(self, billed: Billed) -> None:
        """`billed`: the models of the engine that talks first."""
        self._billed = billed
        self._used: dict[Billed, Usage] = {billed: Usage()}
        self._seconds: dict[Billed, float] = {billed: 0.0}
        self._untold: set[Billed] = set()
        self._last: dict[Billed, Usage] = {}  # that was told of an answer
        self._broken: dict[Billed, Usage] = {}  # of answers whose usage was not, as estimated
        self._beside: dict[str, tuple[Usage, float]] = {}
        self._flows = self._connected = False
        self._since: float | None = None  # the model is paid by time from then on

    @property
    def usage(self) -> Usage:
        """What all models together have used."""
        beside = (used for used, _ in self._beside.values())
        return sum((*self._used.values(), *beside), Usage())

    def use(self, usage: Usage) -> None:
        """The models of the engine that talks now have used so much more."""
        known = told(usage)
        self._used[self._billed] += known
        if _any(known, _OF_TALK):
            self._last[self._billed] = known

    def untold(self, spoken_s: float) -> None:
        """The model that talks now has answered, and its server does not tell what that took.

        One that told it of other answers is taken to have broken off this one.
        """
        if self._billed in self._last:
            self.broken_off(spoken_s)
        elif self._billed not in self._untold:
            self._untold.add(self._billed)
            log.warning("no usage told, cost is an estimate by time", model=self._billed.model)

    def broken_off(self, spoken_s: float) -> None:
        """An answer came to `spoken_s` seconds of sound, and nobody tells what it has used.

        It had read as much as the one before it: a conversation only grows. Where that was told.
        """
        characters = round(spoken_s * CHARACTERS_PER_S)
        used = dataclasses.replace(
            self._last.get(self._billed, Usage()),
            text_out=characters // CHARACTERS_PER_TOKEN,
            audio_out=round(spoken_s * SPOKEN_PER_S),
            speech_characters=characters,
            speech_s=spoken_s,
        )
        self._broken[self._billed] = self._broken.get(self._billed, Usage()) + told(used)

    def use_beside(self, model: str, usage: Usage, usd: float) -> None:
        """A model was asked for the call's sake, beside those of its engines, and cost so much."""
        used, cost = self._beside.get(model, (Usage(), 0.0))
        self._beside[model] = used + usage, cost + usd

    def begin(self, now: float) -> None:
        """Audio flows: minutes count from now on, as far as a model is connected."""
        self._flows = True
        self._settle(now)

    def connect(self, connected: bool, now: float) -> None:
        """A model is connected, or is not any more."""
        self._settle(now)
        self._connected = connected
        self._settle(now)

    def switch(self, billed: Billed, now: float) -> None:
        """Another engine talks from now on."""
        self._settle(now)
        self._billed = billed
        self._used.setdefault(billed, Usage())
        self._seconds.setdefault(billed, 0.0)

    def by_model(self, prices: Mapping[str, Price], now: float) -> dict[str, float | None]:
        """What each model that was used has cost until now; None where the table lacks it."""
        self._settle(now)
        found: dict[str, float | None] = {}

        def add(model: str, cost: Callable[[Price], float]) -> None:
            price, before = prices.get(model), found.get(model, 0.0)
            found[model] = None if price is None or before is None else before + cost(price)

        for billed, used in self._used.items():
            seconds = self._seconds[billed]
            if seconds or _any(used, _OF_TALK):
                add(billed.model, partial(cost_usd, usage=used, seconds=seconds))
            broken = self._broken.get(billed, Usage())
            if billed in self._untold and not _any(used, _OF_TALK):
                add(billed.model, partial(_by_time, seconds=seconds))
            elif _any(broken, _OF_TALK):
                add(billed.model, partial(cost_usd, usage=broken, seconds=0.0))
            if billed.transcription and _any(used, _OF_TRANSCRIPTION):
                add(billed.transcription, partial(transcription_usd, usage=used))
            if billed.speech and _any(spoken := used + broken, _OF_SPEECH):
                add(billed.speech, partial(speech_usd, usage=spoken))
        for model, (_, usd) in self._beside.items():
            before = found.get(model, 0.0)
            found[model] = None if before is None else before + usd
        return found

    def usd(self, prices: Mapping[str, Price], now: float) -> float | None:
        """What it has cost until now; None where the table lacks a model that was used."""
        total, lacking = self.known_usd(prices, now)
        return None if lacking else total

    def known_usd(self, prices: Mapping[str, Price], now: float) -> tuple[float, set[str]]:
        """As far as the table knows: what it has cost, and the used models that it lacks."""
        found = self.by_model(prices, now)
        total = sum(usd for usd in found.values() if usd is not None)
        return total, {model for model, usd in found.items() if usd is None}

    def _settle(self, now: float) -> None:
        if self._since is not None:
            self._seconds[self._billed] += now - self._since
        self._since = now if self._flows and self._connected else None
