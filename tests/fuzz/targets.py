"""The fuzz targets by name: what runs, what it starts from, and which words it knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz import digest_targets, media_targets, seeds, sip_targets

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
    "digest": Target(
        digest_targets.digest_target, digest_targets.digest_seeds(), seeds.DIGEST_WORDS, 512
    ),
    "sdp": Target(media_targets.sdp_target, seeds.sdp_seeds(), seeds.SDP_WORDS, 1024),
    "packet": Target(media_targets.packet_target, seeds.packet_seeds(), [], 256),
    "rtp": Target(media_targets.rtp_target, seeds.rtp_seeds(), [], 640),
    "rtcp": Target(media_targets.rtcp_target, seeds.rtcp_seeds(), [], 256),
    "event": Target(media_targets.event_target, seeds.event_seeds(), [], 256),
}
