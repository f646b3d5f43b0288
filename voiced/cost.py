"""What a call cost: tokens or minutes times a price table, in US dollars.

The bundled table holds list prices; a file's `[price."MODEL"]` replaces an entry whole.
"""

from __future__ import annotations

from collections.abc import Mapping

from voiced.config.types import Price
from voiced.engine import Usage

__all__ = ["Spending", "cost_usd"]

_PER = 1_000_000


def cost_usd(prices: Mapping[str, Price], model: str, usage: Usage, seconds: float) -> float | None:
    """The price of `usage` and of `seconds` of `model`; None where the table lacks the model.

    Cached input tokens are part of the input figures and priced apart (openai-realtime 13).
    Transcription tokens are billed by the transcription model: see `Spending`.
    """
    price = prices.get(model)
    if price is None:
        return None
    tokens = (
        (usage.text_in - usage.cached_text_in) * price.text_in
        + usage.cached_text_in * price.cached_text_in
        + (usage.audio_in - usage.cached_audio_in) * price.audio_in
        + usage.cached_audio_in * price.cached_audio_in
        + usage.text_out * price.text_out
        + usage.audio_out * price.audio_out
    )
    return tokens / _PER + price.per_minute * seconds / 60


class Spending:
    """What one call has used so far, of each model that talked in it."""

    def __init__(self, model: str, transcription_model: str | None = None) -> None:
        self._model = model
        self._transcription_model = transcription_model
        self._used: dict[str, Usage] = {model: Usage()}
        self._seconds: dict[str, float] = {model: 0.0}
        self._since: float | None = None  # the model is paid by time from then on

    @property
    def usage(self) -> Usage:
        """Tokens of all models together."""
        return sum(self._used.values(), Usage())

    def use(self, usage: Usage) -> None:
        """The model that talks now has used so much more."""
        self._used[self._model] += usage

    def begin(self, now: float) -> None:
        """Audio flows: minutes count from now on."""
        self._since = now

    def switch(self, model: str, now: float) -> None:
        """Another model talks from now on."""
        self._settle(now)
        self._model = model
        self._used.setdefault(model, Usage())
        self._seconds.setdefault(model, 0.0)

    def usd(self, prices: Mapping[str, Price], now: float) -> float | None:
        """What it has cost until now; None where the table lacks a model that was used."""
        self._settle(now)
        total = 0.0
        for model, usage in self._used.items():
            cost = cost_usd(prices, model, usage, self._seconds[model])
            if cost is None:
                return None
            total += cost + self._transcription(prices, usage)
        return total

    def _transcription(self, prices: Mapping[str, Price], usage: Usage) -> float:
        """Billed by a model of its own; one that the table lacks counts nothing."""
        price = prices.get(self._transcription_model or "")
        if price is None:
            return 0.0
        tokens = (
            usage.transcription_in * (price.audio_in or price.text_in)
            + usage.transcription_out * price.text_out
        )
        return tokens / _PER + price.per_minute * usage.transcription_s / 60

    def _settle(self, now: float) -> None:
        if self._since is not None:
            self._seconds[self._model] += now - self._since
            self._since = now
