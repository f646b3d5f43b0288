"""Looking at calls and steering them, against a live admin listener."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands.daemon import A, B, done, failed, run
from tests.web.admin_peer import NOW, Site, row, view
from voiced.commands import tables
from voiced.web.operations import TransferResult

# ---- looking ----


def test_no_calls(site: Site) -> None:
    assert done("calls") == "no live calls\n"
    assert done("calls", "--all") == "no calls\n"
    assert json.loads(done("calls", "--json")) == []


def test_calls_are_a_table(site: Site) -> None:
    site.daemon.calls = {
        A: view(A, caller="\x1b[2Jevil\n", duration_s=75),
        B: view(B, started_at=NOW + 1, duration_s=3675.4, caller="", state="thinking"),
    }
    head, second, first = done("calls").splitlines()
    assert head.split() == [
        *("CALL", "BEGAN", "DIRECTION", "FROM", "TO", "AGENT", "STATE", "TIME", "USD")
    ]
    assert second.split() == [
        *(B, "2026-09-21", "14:13:21", "inbound", "-", "+4930222", "reception"),
        *("thinking", "1:01:15", "-"),
    ]
    assert "\\x1b[2Jevil\\n" in first
    assert "\x1b" not in first
    assert first.split()[-2:] == ["1:15", "-"]
    assert head.index("STATE") == second.index("thinking") == first.index("listening")


def test_all_calls_and_how_they_ended(site: Site) -> None:
    site.daemon.calls = {A: view(A)}
    site.daemon.rows = [row("cccc"), row("dddd", reason=None, duration_ms=None, ended_at=None)]
    _, live, ended, cut = done("calls", "--all", "--limit", "7").splitlines()
    assert live.startswith(A)
    assert "ended: caller_hangup" in ended
    assert ended.split()[-2:] == ["1:00", "0.0125"]
    assert cut.split()[-4:] == ["ended:", "unknown", "-", "0.0125"]
    assert site.daemon.deeds == [("journal", 7)]
    shown = json.loads(done("calls", "--all", "--json"))
    assert [call["id"] for call in shown] == [A, "cccc", "dddd"]


def test_showing_a_live_call(site: Site) -> None:
    statistics = {"lost": 1, "jitter_ms": 0.50001234}
    site.daemon.calls = {A: view(A, statistics=statistics)}
    text = done("show", "aaa")
    assert text == done("show", "last")
    for line in (
        f"call        {A}",
        "state       listening since 2026-09-21 14:13:20, model ready",
        "direction   inbound over sip, trunk berlin",
        "agent       reception on offline (emulator)",
        "duration    0:12",
        "  X-Ticket  77",
        "  jitter_ms  0.5",
        "  agent: Good morning.",
        "  caller: Hello? —",
    ):
        assert line in text.splitlines()
    assert json.loads(done("show", A, "--json"))["statistics"] == statistics


def test_showing_a_call_of_the_journal(site: Site) -> None:
    site.daemon.rows = [row("cccc", direction="outbound", reason="carrier_lost")]
    lines = done("show", "cccc").splitlines()
    for line in (
        "state       ended: carrier_lost",
        "outcome     broken",
        "direction   outbound over twilio",
        "cost        0.0125 USD",
        "  answers_ms   700, 900",
        "      0.200 s  media_ready",
        "  agent: Good morning.",
    ):
        assert line in lines, line


def test_trunks(site: Site) -> None:
    assert "berlin" in done("trunks")
    assert json.loads(done("trunks", "--json")).keys() == {"trunks", "bans"}


def test_engines(site: Site) -> None:
    lines = {line.split()[0]: line for line in done("engines").splitlines()}
    assert " yes " in lines["openai"]
    assert "7 of 60" in lines["openai"]
    assert "no, again in 12 s" in lines["spare"]
    assert "not tried" in lines["new"]
    assert "failed 2 times" in lines["shaky"]
    found = json.loads(done("engines", "--json"))
    assert found.keys() == {"engines"}
    assert [each["answered"] for each in found["engines"]] == [True, False, False, False]


# ---- doing ----


def test_deeds(site: Site) -> None:
    site.daemon.calls = {A: view(A)}
    assert done("say", "aaaa", "One moment, please.") == f"{A} says it\n"
    assert done("say", "last", "ask for the order number", "--tell") == f"{A} told\n"
    assert done("transfer", A, "+4930999") == f"{A} transferred: 200 OK\n"
    assert done("hangup", A) == f"{A} hung up\n"
    assert site.daemon.deeds == [
        ("say", A, "One moment, please.", True),
        ("say", A, "ask for the order number", False),
        ("transfer", A, "+4930999"),
        ("hangup", A, "operator"),
    ]
    assert failed("hangup", A) == (
        f"there is no live call {A}; see voiced calls for those there are\n"
    )


def test_a_transfer_that_failed(site: Site) -> None:
    site.daemon.calls = {A: view(A)}
    site.daemon.transferred = TransferResult(done=False, status=486, text="Busy Here")
    assert failed("transfer", A, "+49") == f"{A} not transferred: 486 Busy Here\n"
    result = run("transfer", A, "+49", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "id": A,
        "done": False,
        "status": 486,
        "text": "Busy Here",
    }


@pytest.mark.parametrize("command", [("show",), ("hangup",), ("say", "x"), ("transfer", "+49")])
def test_calls_that_are_none(site: Site, command: tuple[str, ...]) -> None:
    name, *rest = command
    assert failed(name, "../x", *rest).startswith("there is no")
    assert "as voiced calls lists them" in failed(name, "", *rest, code=2)
    site.daemon.calls = {A: view(A), B: view(B)}
    assert failed(name, "aa", *rest) == "several calls begin with aa; write more of the id\n"
    assert site.daemon.deeds == []


def test_nothing_to_say(site: Site) -> None:
    assert "there is nothing to say" in failed("say", A, "  ", code=2)


@given(st.lists(st.lists(st.text(max_size=9), min_size=2, max_size=2), max_size=5))
def test_tables_have_a_line_a_row_and_nothing_that_a_terminal_obeys(rows: list[list[str]]) -> None:
    lines = tables.table(("A", "B"), rows).split("\n")
    assert len(lines) == len(rows) + 1
    assert all(line.isprintable() for line in lines)


@given(st.floats(0, 1e7))
def test_durations_add_up(seconds: float) -> None:
    parts = [int(part) for part in tables.duration(seconds).split(":")]
    total = 0
    for part in parts:
        total = total * 60 + part
    assert total == round(seconds)
