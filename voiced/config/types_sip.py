"""Calls over SIP: `[sip]` and `[[sip.trunk]]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from voiced.config.table import Name, Positive, SecondsOrNever, Table

__all__ = ["Sip", "Trunk"]


class Trunk(Table, frozen=True):
    """A provider or a PBX that calls come from and go to."""

    name: Name
    """What it is called in logs, metrics and commands."""
    host: Name
    """Its SIP domain: a name (SRV records are honoured) or an address, `:port` where needed."""
    transport: Literal["udp", "tcp", "tls"] = "udp"
    """What requests to it travel on."""
    proxy: str | None = None
    """Where requests are sent instead of to `host`, a name or an address."""
    allow: tuple[str, ...] = ()
    """Addresses or networks that its calls come from. Left out: those of `host` and `proxy`."""
    username: str | None = None
    """The account, where it wants digest authentication or registration."""
    password: str | None = None
    """The account's password."""
    password_file: Path | None = None
    """A file with it; a bare name is looked for among systemd's credentials first."""
    password_env: str | None = None
    """The environment variable with it."""
    authenticate: bool = False
    """Take its calls from any address that proves to know `username` and `password`."""
    digest: Literal["md5", "sha-256"] = "md5"
    """What `authenticate` asks for; old systems know MD5 alone."""
    register: bool = False
    """Keep `username` registered at `host`, so that calls reach us without a fixed address."""
    register_s: Annotated[int, Meta(ge=60, le=86400)] = 3600
    """How long a registration is asked to last; the registrar decides."""
    options_s: SecondsOrNever = 60.0
    """How often the trunk is asked whether it lives; 0: never."""
    caller_id: str | None = None
    """The number or user that calls placed through it come from. Left out: `username`."""
    codecs: tuple[Literal["pcmu", "pcma", "g722"], ...] = ("pcmu", "pcma")
    """What may be spoken; the order is that of our offers."""
    srtp: Literal["off", "optional", "required"] = "off"
    """Encrypted audio, keys in the SDP: use it with TLS."""
    max_calls: Positive | None = None
    """Calls at a time with this trunk. Left out: `max_calls` of the daemon alone counts."""


class Sip(Table, frozen=True):
    """Calls over SIP and RTP."""

    listen: tuple[str, ...] = ()
    """`"udp://0.0.0.0:5060"`, also `tcp://` and `tls://`. Left out: no SIP."""
    advertise: str | None = None
    """The address that others reach us at, where a NAT stands between."""
    rtp_ports: str = "20000-29999"
    """UDP ports for audio, two to a call."""
    tls_cert: Path | None = None
    """A PEM certificate chain for `tls://`."""
    tls_key: Path | None = None
    """The certificate's PEM key, without a passphrase."""
    ca_file: Path | None = None
    """PEM certificates to trust in trunks, instead of the system's."""
    strangers: Literal["drop", "forbid"] = "drop"
    """What requests from nowhere known get: nothing, or 403."""
    stranger_rate: Positive = 20
    """Requests a second of one unknown address that are looked at; the rest is dropped unread."""
    ban_s: SecondsOrNever = 3600.0
    """How long an address that was refused again and again is not heard; 0: no bans."""
    ringing: bool = True
    """Say 180 before the call is answered."""
    session_expires_s: Annotated[int, Meta(ge=90, le=86400)] = 1800
    """How long a call lives without a sign of the other side, refreshed at half; RFC 4028."""
    rtp_timeout_s: SecondsOrNever = 30.0
    """Without audio for so long, and not on hold, a call has ended unnoticed; 0: never. Once \
audio has come, RTCP reports count too: a gateway that suppresses silence sends nothing else. (A \
stream of Twilio ends after 30 s with neither messages nor pongs, whatever is set here.)"""
    reorder_ms: Annotated[int, Meta(ge=0, le=60)] = 40
    """How long audio waits for an earlier packet that is missing."""
    trunk: tuple[Trunk, ...] = ()
    """The `[[sip.trunk]]` blocks."""
