"""What models cost: the bundled list, under the operator's own figures."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

import msgspec

from voiced.config.types import Config, Price

__all__ = ["bundled_prices", "prices"]


def prices(config: Config) -> dict[str, Price]:
    """Make the price table by model name; an entry of the file replaces the bundled one whole."""
    return {**bundled_prices(), **config.price}


@cache
def bundled_prices() -> dict[str, Price]:
    """Read the list that comes with voiced."""
    text = resources.files("voiced").joinpath("prices.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text)["price"], dict[str, Price])
