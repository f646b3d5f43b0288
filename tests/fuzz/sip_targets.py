"""Fuzz targets of the SIP message layer: what must hold of any bytes whatever."""

from __future__ import annotations

import contextlib

from voiced.sip.errors import ParseError
from voiced.sip.framing import KeepAlive, StreamParser
from voiced.sip.message import Request, Response, parse, response_to
from voiced.sip.uri import SipUri, parse_name_addr, parse_uri
from voiced.sip.views import Views

__all__ = ["VIEWS", "sip", "stream", "uri"]

VIEWS = [name for name, value in vars(Views).items() if isinstance(value, property)]
"""Every typed view of a message."""

_REPEATED = ("from", "call-id", "cseq")


def sip(data: bytes) -> None:
    """Only `ParseError` may come out of `parse`; what is parsed can be written and answered."""
    try:
        message = parse(data)
    except ParseError as error:
        _check_error(error)
        return
    _check_message(message)
    raw = bytes(message)
    assert raw in data
    assert bytes(parse(raw)) == raw
    message.headers.add("X-Changed", "yes")
    rewritten = bytes(message)
    assert rewritten != raw
    assert parse(rewritten) == message


def stream(data: bytes) -> None:
    """Framing does not depend on where the bytes are cut; the first byte chooses the cuts."""
    step = 1 + (data[0] if data else 0)
    data = data[1:]
    whole = [item for item in StreamParser().feed(data) if not isinstance(item, KeepAlive)]
    parser = StreamParser()
    pieces = []
    for start in range(0, len(data), step):
        pieces += parser.feed(data[start : start + step])
    cut = [item for item in pieces if not isinstance(item, KeepAlive)]
    assert len(whole) == len(cut)
    for one, other in zip(whole, cut, strict=True):
        if isinstance(one, ParseError):
            assert isinstance(other, ParseError)
            assert (one.reason, one.status, one.fatal) == (other.reason, other.status, other.fatal)
            _check_error(one)
        else:
            assert not isinstance(other, ParseError)
            assert bytes(one) == bytes(other)


def uri(data: bytes) -> None:
    """URIs and addresses are written as they can be read, and are equivalent to themselves."""
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(ParseError):
        parsed = parse_uri(text)
        assert parse_uri(str(parsed)) == parsed
        if isinstance(parsed, SipUri):
            assert parsed.equivalent(parsed)
            _ = parsed.transport, parsed.lr, parsed.unescaped_user
    with contextlib.suppress(ParseError):
        address = parse_name_addr(text)
        again = parse_name_addr(str(address))
        assert again == address, (address, again)


def _check_error(error: ParseError) -> None:
    assert 400 <= error.status <= 599
    if error.head is not None:
        _check_answer(error.head, error.status)


def _check_message(message: Request | Response) -> None:
    for name in VIEWS:
        try:
            getattr(message, name)
        except ParseError as error:
            if error.status != 400:
                raise AssertionError(f"{name} asked for {error.status}") from error
    if isinstance(message, Request) and message.method != "ACK":
        _check_answer(message, 486)


def _check_answer(request: Request, status: int) -> None:
    """What the request's sender gets is a response that leads back to its transaction."""
    response = response_to(request, status, to_tag="here")
    for name in _REPEATED:
        assert response.headers.get_fields(name) == request.headers.get_fields(name)
    assert response.via == request.via
    assert response.headers.get_fields("via") == request.headers.get_fields("via")
    assert bytes(response).startswith(f"SIP/2.0 {status} ".encode())
