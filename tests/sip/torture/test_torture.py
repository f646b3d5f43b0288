"""Each torture case against the parser: taken with these values, or refused with that status."""

from __future__ import annotations

import pytest

from tests.sip.torture.case import Case
from tests.sip.torture.cases import CASES, RFC4475, RFC5118
from voiced.sip.errors import ParseError
from voiced.sip.framing import StreamParser
from voiced.sip.message import Request, Response, parse, response_to


def _read(message: Request | Response, path: str) -> object:
    if path == "bytes":
        return bytes(message)
    first, _, rest = path.partition(".")
    if first == "headers":
        return message.headers.get(rest)
    value: object = getattr(message, first)
    for name in rest.split(".") if rest else ():
        value = value[int(name)] if isinstance(value, list) else getattr(value, name)
    return value


def _name(case: Case) -> str:
    return f"{case.section}-{case.name}"


def test_the_table_is_complete() -> None:
    assert len(RFC4475) == 49
    assert {case.section for case in RFC5118} == {f"4.{number}" for number in range(1, 11)}
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", [case for case in CASES if case.refused is None], ids=_name)
def test_taken(case: Case) -> None:
    message = parse(case.data)
    for path, value in case.expect.items():
        assert _read(message, path) == value, path
    raw = bytes(message)
    assert case.data.startswith(raw)
    message.headers.add("X-Touched", "1")
    assert parse(bytes(message)) == message


@pytest.mark.parametrize("case", [case for case in CASES if case.refused is not None], ids=_name)
def test_refused(case: Case) -> None:
    with pytest.raises(ParseError) as caught:
        parse(case.data)
    error = caught.value
    assert error.status == case.refused
    assert (error.head is not None) == case.answerable
    assert error.status in case.uas or not case.answerable
    if error.head is not None:
        answer = response_to(error.head, error.status, to_tag="here")
        assert bytes(answer).startswith(f"SIP/2.0 {error.status} ".encode())
        assert answer.via.host == error.head.via.host


# A stream cannot take inv2543: it has no Content-Length.
_STREAMED = [case for case in CASES if case.refused is None and case.name != "inv2543"]


@pytest.mark.parametrize("case", _STREAMED, ids=_name)
def test_taken_from_a_stream(case: Case) -> None:
    message = parse(case.data)
    parser = StreamParser()
    found = [item for byte in case.data for item in parser.feed(bytes([byte]))]
    assert found[0] == message
    assert len(found) == (2 if case.name == "dblreq" else 1)
