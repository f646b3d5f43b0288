"""Requests of tools: filled in so that arguments stay arguments."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from voiced_plugins._http import Failed, HttpTool, build

CALL = {"caller": "+15550199", "called": "+15550100", "call_id": "c1"}


def tool(**fields: Any) -> HttpTool:
    names = fields.pop("names", "")
    if names:
        fields["parameters"] = {"properties": {name: {} for name in names.split()}}
    defaults = {"name": "t", "description": "", "url": "https://api.example.net/v1"}
    return msgspec.convert(defaults | fields, HttpTool)


def test_arguments_go_where_the_method_has_room_for_them() -> None:
    get = build(tool(names="a b", url="https://h/x/{a}?k=1"), {"a": "ü/ ", "b": [1, "z"]}, CALL)
    assert str(get.url) == "https://h/x/%C3%BC%2F%20?k=1&b=%5B1%2C+%22z%22%5D"
    assert get.content == b""
    post = build(tool(names="a b", method="POST", url="https://h/{a}"), {"a": 1, "b": "é"}, CALL)
    assert (post.method, str(post.url)) == ("POST", "https://h/1")
    assert json.loads(post.content) == {"b": "é"}
    assert post.headers["Content-Type"] == "application/json"


def test_a_body_is_filled_in_as_json_and_keeps_its_braces() -> None:
    body = '{"who": {who}, "from": {caller}, "more": {"n": {n}}, "left": {left}, "x": {other}}'
    request = build(
        tool(names="who n left", method="POST", body=body.replace(', "x": {other}', "")),
        {"who": 'a "quoted" name', "n": 2},
        CALL,
    )
    assert json.loads(request.content) == {
        "who": 'a "quoted" name',
        "from": "+15550199",
        "more": {"n": 2},
        "left": None,
    }


def test_a_form_is_filled_in_as_a_form() -> None:
    form = tool(
        names="a b",
        method="POST",
        body="a={a}&b={b}&c={caller}",
        content_type="application/x-www-form-urlencoded",
    )
    request = build(form, {"a": "x&b=y"}, CALL)
    assert parse_qsl(request.content.decode(), keep_blank_values=True) == [
        ("a", "x&b=y"),
        ("b", ""),
        ("c", "+15550199"),
    ]


def test_headers_have_secrets_and_places() -> None:
    secret = {"name": "Authorization", "prefix": "Bearer ", "value": "s3cret"}
    described = tool(names="a", headers={"X-Who": "{a} {caller}"}, secret_headers=[secret])
    request = build(described, {"a": "Zoë"}, CALL)
    assert request.headers["Authorization"] == "Bearer s3cret"
    assert request.headers["X-Who"] == "Zo? +15550199"
    assert "s3cret" not in repr(described)
    with pytest.raises(Failed, match="line breaks"):
        build(described, {"a": "x\r\nHost: other"}, CALL)


@pytest.mark.parametrize("value", ["..", ".", "../admin", "a/../b", "..\\x"])
def test_paths_of_dots_are_refused(value: str) -> None:
    with pytest.raises(Failed, match="dots"):
        build(tool(names="a", url="https://h/x/{a}/y"), {"a": value}, CALL)


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("https://h/orders/{a}", {"a": ""}),
        ("https://h/orders/{a}/lines", {"a": ""}),
        ("https://h/orders/.{a}/lines", {"a": ""}),
        ("https://h/orders/{a}.", {}),
    ],
)
def test_what_is_left_empty_does_not_name_something_else(
    url: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(Failed, match="cannot be empty"):
        build(tool(names="a", url=url, method="DELETE"), arguments, CALL)


def test_what_may_be_left_out_may() -> None:
    assert str(build(tool(names="a", url="https://h/o/{a}"), {}, CALL).url) == "https://h/o/"
    found = build(tool(names="a", url="https://h/o?q={a}"), {"a": ""}, CALL)
    assert str(found.url) == "https://h/o?q="


@pytest.mark.parametrize("value", ["one\nSECRET", "SECRET\x01", "S€CRET"])
def test_a_secret_that_no_header_can_hold_is_refused_unsaid(value: str) -> None:
    for fields in ({"value": value}, {"prefix": value, "value": "x"}):
        with pytest.raises(msgspec.ValidationError, match="no header can hold") as caught:
            tool(secret_headers=[{"name": "Authorization", **fields}])
        assert "CRET" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://[::1/x", "http://h:99999/x", "http://h:x/", "ftp://h/x", "/x", "http:///x"]
)
def test_an_address_that_is_none_is_found_at_once(url: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="is none"):
        tool(url=url)


def test_an_address_that_would_be_too_long_is_refused() -> None:
    with pytest.raises(Failed, match="too long"):
        build(tool(names="a"), {"a": "x" * 70_000}, CALL)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(TEXTS, TEXTS)
def test_arguments_never_leave_their_place(one: str, two: str) -> None:
    assume(not {".", ".."} & set(re.split(r"[/\\]", one)))
    described = tool(names="a b", url="https://api.example.net:8443/orders/{a}/state?b={b}&last=1")
    try:
        url = build(described, {"a": one, "b": two}, CALL).url
    except Failed:
        assert not one or {".", ".."} & set(re.split(r"[/\\]", two))
        return
    parts = urlsplit(str(url))
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "api.example.net:8443", "")
    assert [unquote(step) for step in parts.path.split("/")] == ["", "orders", one, "state"]
    assert parse_qsl(parts.query, keep_blank_values=True) == [("b", two), ("last", "1")]


@given(st.dictionaries(st.sampled_from("abc"), TEXTS | st.integers() | st.booleans(), max_size=3))
def test_a_body_template_is_json_whatever_is_said(arguments: dict[str, Any]) -> None:
    described = tool(names="a b c", method="PUT", body='{"x": [{a}, {b}], "y": {c}}')
    content = json.loads(build(described, arguments, CALL).content)
    assert content == {"x": [arguments.get("a"), arguments.get("b")], "y": arguments.get("c")}


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"url": "ftp://h/"}, "is none; write https"),
    ({"url": "/x"}, "is none; write https"),
    ({"url": "https://{a}.example.net/", "names": "a"}, "the host is fixed"),
    ({"url": "https://user:pw@h/"}, "the host is fixed"),
    ({"url": "https://h/../x"}, "folders of dots"),
    ({"url": "https://h/{b}", "names": "a"}, r"\{b\} is no argument; there are a, caller"),
    ({"headers": {"X": "{b}"}}, r"\{b\} is no argument"),
    ({"parameters": {"propertys": {}}}, "did you mean properties"),
    ({"parameters": {"type": "array"}}, "of type object"),
    ({"extract": "status"}, "begin it with /"),
    ({"filler": "a.wav", "filler_text": "Wait."}, "keep one"),
    ({"secret_headers": [{"name": "X"}]}, "X has no value"),
    ({"name": "no spaces"}, "regex"),
    ({"method": "TRACE"}, "Invalid enum"),
]


@pytest.mark.parametrize(("fields", "words"), MISTAKES)
def test_mistakes_are_found_in_the_settings(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(
            {"name": "t", "description": "", "url": "https://h/"}
            | {key: value for key, value in fields.items() if key != "names"}
            | ({"parameters": {"properties": {"a": {}}}} if "names" in fields else {}),
            HttpTool,
            dec_hook=lambda kind, value: kind(value),
        )
