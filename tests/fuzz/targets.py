"""The fuzz targets by name: what runs, what it starts from, and which words it knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz import seeds, sip_targets

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """`run` takes any bytes and raises for a finding."""

    run: Callable[[bytes], None]
    seeds: list[bytes]
    words: list[str]
    longest: int  # bytes of an input; more finds nothing and takes longer


TARGETS: dict[str, Target] = {
    "sip": Target(sip_targets.sip, seeds.sip_seeds(), seeds.SIP_WORDS, 2048),
    "stream": Target(sip_targets.stream, seeds.stream_seeds(), seeds.SIP_WORDS, 2048),
    "uri": Target(sip_targets.uri, seeds.uri_seeds(), seeds.SIP_WORDS, 256),
}
