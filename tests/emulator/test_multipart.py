"""multipart/form-data: what the standard library and httpx write is read; all else is refused."""

from __future__ import annotations

import contextlib

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiced.emulator.multipart import Field, MultipartError, boundary_of, parse

NAMES = st.text("abcdefgh_[]", min_size=1, max_size=10)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, st.text(max_size=40), max_size=5), st.binary(max_size=300))
def test_what_httpx_writes_is_read(fields: dict[str, str], content: bytes) -> None:
    files = {"file": ("speech.wav", content, "audio/wav")}
    request = httpx.Request("POST", "http://x/", data=fields, files=files)
    found = parse(request.read(), boundary_of(request.headers["content-type"]))
    assert found[-1] == Field("file", content, "speech.wav", "audio/wav")
    assert {field.name: field.text for field in found[:-1]} == fields


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *(b"--x", b"--", b"\r\n", b"\r\n\r\n", b"\r\n--x", b"a: b", b"x", b" "),
                b'Content-Disposition: form-data; name="a"',
            ]
        ),
        max_size=14,
    )
)
def test_anything_else_is_refused_or_read(parts: list[bytes]) -> None:
    with contextlib.suppress(MultipartError):
        for field in parse(b"".join(parts), b"x"):
            assert b"\r\n--x" not in field.data


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--y\r\n\r\n\r\n--y--",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nabc',  # cut
        b"--x\r\n\r\nabc\r\n--x--",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n--x--',
        b'--xy\r\nContent-Disposition: form-data; name="a"\r\n\r\nabc\r\n--xy--',
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' * 100 + b"\r\n--x--",
        b"".join(
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' for _ in range(100)
        )
        + b"--x--",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\nX: '
        + b"y" * 10_000
        + b"\r\n\r\nabc\r\n--x--",
    ],
)
def test_broken_bodies(body: bytes) -> None:
    with pytest.raises(MultipartError):
        parse(body, b"x")


@pytest.mark.parametrize(
    "kind", ["", "application/json", "multipart/form-data", "text/x; boundary=a"]
)
def test_other_content_types(kind: str) -> None:
    with pytest.raises(MultipartError):
        boundary_of(kind)


def test_a_quoted_boundary_and_a_preamble() -> None:
    assert boundary_of('Multipart/Form-Data; charset=utf-8; boundary="a b"') == b"a b"
    body = b"hello\r\n--x\r\ncontent-disposition: form-data; name=a\r\n\r\n\r\n\r\n--x--\r\nbye"
    assert parse(body, b"x") == [Field("a", b"\r\n")]
