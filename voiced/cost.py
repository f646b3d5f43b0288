"""What a call cost: tokens or minutes times a price table, in US dollars.

The bundled table holds list prices; a file's `[price."MODEL"]` replaces an entry whole.
"""

from __future__ import annotations

from collections.abc import Mapping

from voiced.config.types import Price
from voiced.engine import Usage

__all__ = ["cost_usd"]

_PER = 1_000_000


def cost_usd(prices: Mapping[str, Price], model: str, usage: Usage, seconds: float) -> float | None:
    """The price of `usage` and of `seconds` of `model`; None where the table lacks the model.

    Cached input tokens are part of the input figures and priced apart (openai-realtime 13).
    Transcription tokens are billed by the transcription model and are not priced here.
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
