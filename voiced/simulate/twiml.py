"""TwiML as the carrier reads it: what the webhook's answer tells it to do with the call.

Only what a call into a stream needs: `<Connect><Stream>`, with whatever verbs follow it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit
from xml.etree import ElementTree

__all__ = ["CallRefused", "StreamOrder", "parse_twiml"]

_BIDIRECTIONAL_TRACKS = ("inbound_track",)
_PARAMETER_LIMIT = 500  # name and value together, Twilio's <Parameter> page


class CallRefused(Exception):
    """The answer does not connect the call to a stream; the text says what it does instead."""


@dataclass(frozen=True, slots=True)
class StreamOrder:
    """`<Connect><Stream>`: where to open the media WebSocket, and what to tell it."""

    url: str
    name: str | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    status_callback: str | None = None
    next_verbs: tuple[str, ...] = ()  # what the call does after the stream; nothing: it is hung up


def parse_twiml(body: bytes) -> StreamOrder:
    """Read a TwiML document. Raises CallRefused with the reason where Twilio would open no stream.

    The rules are those of Twilio's `<Stream>` and `<Connect>` pages; error numbers in the text are
    those that Twilio's debugger would show.
    """
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise CallRefused("the TwiML contains a DTD (12100)")
    try:
        response = ElementTree.fromstring(body)  # noqa: S314 (no DTD, so no entities to expand)
    except ElementTree.ParseError as error:
        raise CallRefused(f"the TwiML is not XML: {error} (12100)") from None
    if response.tag != "Response":
        raise CallRefused(f"the TwiML's root is <{response.tag}>, not <Response> (12100)")
    verbs = list(response)
    position = next((i for i, verb in enumerate(verbs) if verb.tag == "Connect"), None)
    stream = verbs[position].find("Stream") if position is not None else None
    if position is None or stream is None:
        what = ", ".join(f"<{verb.tag}>" for verb in verbs) or "nothing"
        raise CallRefused(f"the TwiML holds no <Connect><Stream> but {what}")
    return StreamOrder(
        url=_stream_url(stream),
        name=stream.get("name"),
        parameters=_parameters(stream),
        status_callback=stream.get("statusCallback"),
        next_verbs=tuple(verb.tag for verb in verbs[position + 1 :]),
    )


def _stream_url(stream: ElementTree.Element) -> str:
    url = stream.get("url", "")
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss"):  # Twilio itself refuses ws; loopback tests need it
        raise CallRefused(f"the stream's URL {url!r} is neither ws nor wss (31922)")
    if not parts.hostname:
        raise CallRefused(f"the stream's URL {url!r} names no host (31923)")
    if parts.query:
        raise CallRefused("the stream's URL has a query, which Twilio strips (31920)")
    track = stream.get("track", "inbound_track")
    if track not in _BIDIRECTIONAL_TRACKS:
        raise CallRefused(f"<Connect> allows only the inbound_track, not {track!r} (31941)")
    return url


def _parameters(stream: ElementTree.Element) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for element in stream.findall("Parameter"):
        name, value = element.get("name"), element.get("value")
        if not name or value is None:
            raise CallRefused("a <Parameter> lacks its name or value (12100)")
        if len(name) + len(value) >= _PARAMETER_LIMIT:
            raise CallRefused(f"<Parameter> {name!r} is {_PARAMETER_LIMIT} characters or more")
        parameters[name] = value
    return parameters
