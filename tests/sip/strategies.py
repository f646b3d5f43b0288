"""Hypothesis strategies for URIs, addresses and messages that the grammar allows."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from voiced.sip.message import NameAddr, Request, Response, Via, request, response_to
from voiced.sip.uri import SipUri, TelUri, Uri

__all__ = ["hosts", "messages", "name_addrs", "requests", "responses", "sip_uris", "tokens", "uris"]

_ALNUM = string.ascii_letters + string.digits
_ESCAPES = st.sampled_from(["%00", "%20", "%2F", "%40", "%7f", "%C3%A9", "%ff"])

tokens = st.text(_ALNUM + "-.!%*_+`'~", min_size=1, max_size=12)


def _escaped(alphabet: str, most: int = 8) -> st.SearchStrategy[str]:
    piece = st.one_of(st.text(alphabet, min_size=1, max_size=4), _ESCAPES)
    return st.lists(piece, min_size=1, max_size=most).map("".join)


_names = st.lists(st.text(_ALNUM.lower(), min_size=1, max_size=5), min_size=1, max_size=3)
_addresses = ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "::"]
hosts = _names.map(".".join) | st.sampled_from(_addresses)
_ports = st.none() | st.integers(0, 65535)
_uri_text = _escaped(_ALNUM + "-_.!~*'()[]/:&+$", 3)
_uri_parameters = st.dictionaries(_uri_text.map(str.lower), st.none() | _uri_text, max_size=3)
_uri_headers = st.lists(
    st.tuples(
        _escaped(_ALNUM + "-_.!~*'()[]/?:+$", 3), st.just("") | _escaped(_ALNUM + "[]/?:+$", 3)
    ),
    max_size=3,
).map(tuple)


@st.composite
def sip_uris(draw: st.DrawFn, headers: bool = True) -> SipUri:
    """SIP and SIPS URIs with everything the grammar has."""
    user = draw(st.none() | _escaped(_ALNUM + "-_.!~*'()&=+$,;?/"))
    password = None
    if user is not None:
        password = draw(st.none() | st.just("") | _escaped(_ALNUM + "-_.!~*'()&=+$,"))
    return SipUri(
        draw(st.sampled_from(["sip", "sips"])),
        user,
        password,
        draw(hosts),
        draw(_ports),
        draw(_uri_parameters),
        draw(_uri_headers) if headers else (),
    )


_tel_uris = st.builds(
    TelUri, st.from_regex(r"\+?[0-9][0-9\-.()]{0,6}", fullmatch=True), _uri_parameters
)
uris: st.SearchStrategy[Uri] = st.one_of(sip_uris(), _tel_uris)

_quoted = st.text(st.characters(exclude_characters='\r\n"\\', codec="utf-8"), max_size=8).map(
    lambda text: f'"{text}"'
)
_parameters = st.dictionaries(
    tokens.map(str.lower), st.one_of(st.none(), tokens, _quoted), max_size=3
)
_displays = st.none() | st.text(
    st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=12
)
name_addrs = st.builds(NameAddr, _displays, uris, _parameters)

_via_parameters = st.dictionaries(
    tokens.map(str.lower).filter(lambda name: name != "rport"), st.none() | tokens, max_size=3
)
_vias = st.builds(Via, tokens.map(str.upper), hosts, _ports, _via_parameters)

_values = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20).map(
    lambda text: text.strip(" \t")
)
_extra = st.lists(st.tuples(tokens.map(lambda name: f"X-{name}"), _values), max_size=4)
_bodies = st.binary(max_size=64)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Requests with one or more Vias, extension fields and a body of any bytes."""
    built = request(
        draw(tokens),
        draw(st.one_of(sip_uris(headers=False), _tel_uris)),
        from_=draw(name_addrs),
        to=draw(name_addrs),
        call_id=draw(tokens),
        cseq=draw(st.integers(0, 2**31 - 1)),
        max_forwards=draw(st.integers(0, 255)),
        contact=draw(st.none() | name_addrs),
        routes=draw(st.lists(name_addrs, max_size=2)),
        headers=draw(_extra),
        body=draw(_bodies),
    )
    for via in draw(st.lists(_vias, min_size=1, max_size=3)):
        built.headers.prepend("Via", str(via))
    return built


@st.composite
def responses(draw: st.DrawFn) -> Response:
    """Responses to any of `requests`."""
    reason = draw(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=12))
    return response_to(
        draw(requests()),
        draw(st.integers(100, 699)),
        reason,
        to_tag=draw(st.none() | tokens),
        headers=draw(_extra),
        body=draw(_bodies),
    )


messages: st.SearchStrategy[Request | Response] = st.one_of(requests(), responses())
