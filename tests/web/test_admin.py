"""The admin API over real HTTP: what it shows, what it does, what it says of mistakes."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.web.admin_peer import NOW, TOKEN, as_json, row, site, view
from voiced.states import SUCCESSORS, CallState
from voiced.web import outcomes
from voiced.web.admin import create_admin_app
from voiced.web.operations import DialRequest, OperationRefused, Readiness, TransferResult
from voiced.web.requests import MAX_BODY_BYTES, checked_headers, decode, read_limit

A = "aaaa000000000001"
B = "aabb000000000002"


async def test_health_says_that_the_loop_turns() -> None:
    async with site() as made, made.client(Authorization="") as client:
        answer = await client.get("/healthz")
        assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_readiness_says_why_not() -> None:
    async with site() as made, made.client(Authorization="") as client:
        assert (await client.get("/readyz")).json() == {
            "ready": True,
            "reasons": [],
            "degraded": [],
            "calls": 0,
            "max_calls": 100,
        }
        made.daemon.readiness = Readiness(
            ready=False, reasons=("draining",), degraded=("trunk berlin is not registered",)
        )
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["reasons"] == ["draining"]
        assert made.counted == [("ready", "ok")] * 2


async def test_metrics_in_both_formats() -> None:
    async with site() as made, made.client(Authorization="") as client:
        plain = await client.get("/metrics")
        assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "voiced_tests_total 3.0\n" in plain.text
        accept = "application/openmetrics-text;version=9.9;escaping=evil,text/plain;q=0.1"
        opened = await client.get("/metrics", headers={"Accept": accept})
        assert opened.headers["Content-Type"].startswith(
            "application/openmetrics-text; version=1.0.0"
        )
        assert opened.text.endswith("# EOF\n")
        assert "voiced_tests_total 3.0\n" in opened.text


async def test_live_calls_newest_first_without_their_words() -> None:
    async with site() as made, made.client() as client:
        made.daemon.calls = {A: view(A), B: view(B, started_at=NOW + 1, statistics={})}
        made.daemon.rows = [row("cccc")]
        answer = (await client.get("/api/calls")).json()
        assert [call["id"] for call in answer["calls"]] == [B, A]
        shown = as_json(view(A))
        del shown["transcript"], shown["parameters"]
        assert answer["calls"][1] == {**shown, "live": True}
        assert made.daemon.deeds == []


async def test_all_adds_the_journal() -> None:
    async with site() as made, made.client() as client:
        made.daemon.calls = {A: view(A)}
        made.daemon.rows = [row(A, ended_at=None), row("cccc"), row("dddd", direction="outbound")]
        answer = (await client.get("/api/calls", params={"all": "1", "limit": "7"})).json()
        live, ended, dialled = answer["calls"]
        assert (live["id"], live["live"]) == (A, True)
        assert (ended["id"], ended["live"], ended["state"]) == ("cccc", False, "ended")
        assert (ended["reason"], ended["duration_s"]) == ("caller_hangup", 60.25)
        assert (ended["outcome"], dialled["outcome"]) == (None, "answered")
        assert not {"transcript", "states", "call_id"} & set(ended)
        assert made.daemon.deeds == [("journal", 7)]


async def test_one_call_by_the_beginning_of_its_id_or_as_the_last() -> None:
    async with site() as made, made.client() as client:
        made.daemon.rows = [row("cccc01", transcript=[]), row("cccc02")]
        ended = (await client.get("/api/calls/cccc02")).json()
        assert ended["transcript"][0]["text"] == "Good morning."
        assert ended["states"][0] == ["ringing", 0]
        assert (await client.get("/api/calls/last")).json()["id"] == "cccc01"
        several = await client.get("/api/calls/cc")
        assert (several.status_code, several.json()["error"]) == (409, "ambiguous")
        made.daemon.calls = {A: view(A), B: view(B, started_at=NOW - 1)}
        assert (await client.get("/api/calls/last")).json() == {**as_json(view(A)), "live": True}
        assert (await client.get("/api/calls/aab")).json()["id"] == B
        several = await client.get("/api/calls/aa")
        assert (several.status_code, several.json()["error"]) == (409, "ambiguous")
        unknown = await client.get("/api/calls/" + "z" * 99)
        assert unknown.status_code == 404
        assert unknown.json()["error"] == "no_such_call"
        assert "z" * 41 not in unknown.text


async def test_deeds_reach_the_call_and_the_audit_log_but_not_their_words() -> None:
    async with site() as made, made.client() as client:
        made.daemon.calls = {A: view(A)}
        with structlog.testing.capture_logs() as logs:
            for deed, body in (
                ("say", {"text": "Top secret"}),
                ("say", {"text": "Be brief", "exactly": False}),
                ("digits", {"digits": "12#,A"}),
                ("transfer", {"to": "+4930999"}),
                ("hangup", {}),
            ):
                answer = await client.post(f"/api/calls/aaaa/{deed}", json=body)
                assert answer.status_code == 200
                assert answer.json()["id"] == A
            gone = await client.post("/api/calls/aaaa/hangup")
            await client.get("/api/calls")  # looking is no deed
        assert gone.status_code == 404
        assert made.daemon.deeds == [
            ("say", A, "Top secret", True),
            ("say", A, "Be brief", False),
            ("digits", A, "12#,A"),
            ("transfer", A, "+4930999"),
            ("hangup", A, "operator"),
        ]
        audit = [log for log in logs if log["event"] == "operator"]
        assert [(log["what"], log["call"], log["result"], log["who"]) for log in audit] == [
            ("say", A, "ok", "127.0.0.1"),
            ("say", A, "ok", "127.0.0.1"),
            ("digits", A, "ok", "127.0.0.1"),
            ("transfer", A, "ok", "127.0.0.1"),
            ("hangup", A, "ok", "127.0.0.1"),
            ("hangup", "aaaa", "no_such_call", "127.0.0.1"),
        ]
        for secret in ("Top secret", "12#", "4930999", TOKEN):
            assert secret not in repr(logs)
        assert made.counted[-3:] == [
            ("hangup", "ok"),
            ("hangup", "no_such_call"),
            ("calls", "ok"),
        ]


async def test_dialling() -> None:
    async with site() as made, made.client() as client:
        headers = {"X-Ticket": "7", "user-to-user": "00ab;encoding=hex"}
        body = {"to": "+4930444", "agent": "sales", "headers": headers, "timeout_s": 20}
        answer = await client.post("/api/calls", json=body)
        assert answer.status_code == 201
        call_id = answer.json()["id"]
        assert answer.headers["Location"] == f"/api/calls/{call_id}"
        assert made.daemon.deeds == [
            ("dial", DialRequest(to="+4930444", agent="sales", headers=headers, timeout_s=20))
        ]


async def test_a_transfer_that_fails_is_an_answer() -> None:
    async with site() as made, made.client() as client:
        made.daemon.calls = {A: view(A)}
        made.daemon.transferred = TransferResult(done=False, status=486, text="Busy Here")
        answer = await client.post(f"/api/calls/{A}/transfer", json={"to": "sip:a@b.example"})
        assert answer.json() == {"id": A, "done": False, "status": 486, "text": "Busy Here"}


async def test_what_the_daemon_refuses_is_said_in_its_words() -> None:
    async with site() as made, made.client() as client:
        made.daemon.refusal = OperationRefused("full", 503, "100 calls are live", "hang one up")
        with structlog.testing.capture_logs() as logs:
            answer = await client.post("/api/calls", json={"to": "+4930444"})
        assert answer.status_code == 503
        assert answer.json() == {
            "error": "full",
            "message": "100 calls are live",
            "remedy": "hang one up",
        }
        assert made.counted == [("dial", "full")]
        assert [(log["what"], log["call"], log["result"]) for log in logs] == [
            ("dial", None, "full")
        ]


async def test_trunks_engines_and_bans() -> None:
    async with site() as made, made.client() as client:
        trunks = (await client.get("/api/trunks")).json()["trunks"]
        assert trunks == as_json(made.daemon.trunks())
        engines = (await client.get("/api/engines")).json()["engines"]
        assert engines == as_json(made.daemon.engines())
        assert (await client.get("/api/bans")).json()["bans"] == as_json(made.daemon.bans())


@pytest.mark.parametrize(
    ("body", "status", "error", "words"),
    [
        ({}, 422, "invalid", "required field `to`"),
        ({"to": 5}, 422, "invalid", "$.to"),
        ({"to": "a\nb"}, 422, "invalid", "one line of text without control characters"),
        ({"to": "+49\n"}, 422, "invalid", "one line of text"),
        ({"to": ""}, 422, "invalid", "$.to"),
        ({"to": "+49", "tmeout_s": 3}, 422, "invalid", "unknown field `tmeout_s`"),
        ({"to": "+49", "timeout_s": 0}, 422, "invalid", "$.timeout_s"),
        ({"to": "+49", "headers": {"Via": "x"}}, 422, "bad_header", "'Via'"),
        ({"to": "+49", "headers": {"X-A": "b\r\nVia: c"}}, 422, "bad_header", "X-A"),
        ([1], 422, "invalid", "Expected `object`"),
    ],
)
async def test_a_body_that_is_not_right_is_told_what_is(
    body: Any, status: int, error: str, words: str
) -> None:
    async with site() as made, made.client() as client:
        answer = await client.post("/api/calls", json=body)
        assert (answer.status_code, answer.json()["error"]) == (status, error)
        assert words in answer.json()["message"]
        assert answer.json()["remedy"]
        assert made.daemon.deeds == []


async def test_bodies_of_another_kind_or_size() -> None:
    async with site() as made, made.client() as client:
        for content, kind, status in (
            (b'{"to": "+49"}', "text/plain", 415),
            (b"{", "application/json", 400),
            (b"[" * 60_000, "application/json", 422),
            (b'{"to": "\xff\xfe"}', "application/json", 400),
            (b" " * (MAX_BODY_BYTES + 1), "application/json", 413),
        ):
            answer = await client.post(
                "/api/calls", content=content, headers={"Content-Type": kind}
            )
            assert answer.status_code == status
            assert set(answer.json()) == {"error", "message", "remedy"}
        assert made.daemon.deeds == []


async def test_a_body_that_does_not_arrive(autojump_clock: trio.testing.MockClock) -> None:
    async with site() as made:
        host, _, port = made.address.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(
                b"POST /api/calls HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
                b"Content-Type: application/json\r\nAuthorization: Bearer %b\r\n\r\n{"
                % TOKEN.encode()
            )
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 408 ")
            assert trio.current_time() == pytest.approx(5, abs=0.1)


async def test_unknown_paths_and_methods_are_errors_of_the_same_form() -> None:
    async with site() as made, made.client() as client:
        nothing = await client.get("/api/nothing")
        assert (nothing.status_code, nothing.json()["error"]) == (404, "not_found")
        wrong = await client.put("/api/calls")
        assert (wrong.status_code, wrong.json()["error"]) == (405, "method_not_allowed")
        assert {"GET", "POST"} <= set(wrong.headers["Allow"].split(", "))
        assert (await client.options("/api/calls")).status_code == 405
        assert (await client.get(f"/api/calls/{A}/hangup")).status_code == 405
        assert ("other", "method_not_allowed") in made.counted


async def test_a_bug_is_logged_and_says_nothing_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as made, made.client() as client:

        def broken() -> None:
            raise KeyError("inner workings")

        monkeypatch.setattr(made.daemon, "live", broken)
        with structlog.testing.capture_logs() as logs:
            answer = await client.get("/api/calls")
        assert (answer.status_code, answer.json()["error"]) == (500, "internal_error")
        assert "inner" not in answer.text
        assert [log["log_level"] for log in logs] == ["error"]
        assert (await client.get("/api/trunks")).status_code == 200


@pytest.mark.parametrize("text", ["0", "1001", "-1", "x", "", "9" * 30, "²", "9" * 5000])
def test_limits_that_are_none(text: str) -> None:
    with pytest.raises(OperationRefused, match="limit is not"):
        read_limit(text)


@given(st.binary(max_size=200))
def test_no_body_does_more_than_be_refused(data: bytes) -> None:
    asked = None
    with contextlib.suppress(OperationRefused):
        asked = decode(DialRequest, data, "application/json")
    assert asked is None or asked.to


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_no_header_field_breaks_out_of_its_line(headers: dict[str, str]) -> None:
    try:
        checked_headers(headers)
    except OperationRefused:
        return
    for name, value in headers.items():
        assert name.lower().startswith("x-") or name.lower() in ("user-to-user", "diversion")
        assert name.isascii()
        assert not set(name) & set(" :\r\n\t\0")
        assert not set(value) & set("\r\n\0")


def test_answered_states_are_those_that_a_dialled_call_has_only_once_answered() -> None:
    early = {CallState.DIALLING, CallState.RINGING, CallState.ENDING, CallState.ENDED}
    assert {state.value for state in set(SUCCESSORS) - early} == outcomes.ANSWERED_STATES


@pytest.mark.parametrize(
    ("states", "reason", "expected"),
    [
        (["dialling", "ended"], "busy", "busy"),
        (["dialling", "ended"], "carrier_no_answer", "no_answer"),
        (["dialling", "ended"], "something_else", "failed"),
        (["dialling", "answering", "ended"], "busy", "answered"),
        (["dialling", "media_ready", "ended"], "operator", "answered"),
        (["dialling", "media_ready", "ended"], "carrier_lost", "broken"),
    ],
)
def test_outcomes(states: list[str], reason: str, expected: str) -> None:
    made = row("d", reason=reason, states=[[state, 0] for state in states])
    assert outcomes.outcome(made) == expected
    assert outcomes.outcome({**made, "ended_at": None}) is None


async def test_an_empty_token_is_a_mistake() -> None:
    async with site() as made:
        with pytest.raises(ValueError, match="needs a token"):
            create_admin_app(made.daemon, "")
