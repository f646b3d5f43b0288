"""`voiced dial`: what it asks for, how it follows the call, what it exits with."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.commands.daemon import done, failed, run
from tests.web.admin_peer import Site, row, view
from voiced.web.operations import CallView, DialRequest, OperationRefused

DIALLED = "d1a1000000000000"


def dialled(state: str) -> CallView:
    return view(DIALLED, direction="outbound", state=state)


def ended(reason: str, *states: str) -> dict[str, Any]:
    return row(
        DIALLED,
        direction="outbound",
        reason=reason,
        states=[[state, 0] for state in ("dialling", *states, "ended")],
    )


def test_dialling_asks_for_what_the_options_say(site: Site) -> None:
    options = ["--agent", "sales", "--trunk", "berlin", "--from", "+4930111", "--timeout", "20"]
    options += [
        "--header",
        "X-Ticket: 7: 8",
        "--header",
        "User-to-User:00ab",
        "--machine-detection",
    ]
    assert done("dial", "+4930444", *options, "--no-wait") == f"{DIALLED} dialling\n"
    assert site.daemon.deeds == [
        (
            "dial",
            DialRequest(
                to="+4930444",
                agent="sales",
                trunk="berlin",
                caller="+4930111",
                headers={"X-Ticket": "7: 8", "User-to-User": "00ab"},
                timeout_s=20,
                machine_detection=True,
            ),
        )
    ]
    assert json.loads(done("dial", "+49", "--no-wait", "--json")) == {"id": "d1a1000000000001"}
    assert site.daemon.deeds[1] == ("dial", DialRequest(to="+49"))


def test_dialling_follows_the_call_to_its_end(site: Site) -> None:
    views = [None, dialled("dialling"), dialled("media_ready"), dialled("listening")]
    site.daemon.dialled = iter(views)  # the first row is not written yet when we first ask

    class Late(list[dict[str, Any]]):
        """The last row is written a little after the call has gone."""

        def __iter__(self) -> Iterator[dict[str, Any]]:
            asked.append(1)
            if len(asked) == 1:
                return iter(())
            if len(asked) < 4:
                return iter([{**ended("operator", "media_ready"), "ended_at": None}])
            return iter([ended("operator", "media_ready")])

    asked: list[int] = []
    site.daemon.rows = Late()
    assert done("dial", "+49").splitlines() == [
        f"{DIALLED} dialling",
        f"{DIALLED} answered",
        f"{DIALLED} ended after 1:00: operator",
    ]
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("reason", "states", "code", "words"),
    [
        ("busy", (), 3, "busy"),
        ("carrier_busy", (), 3, "busy (carrier_busy)"),
        ("declined", (), 4, "declined"),
        ("no_answer", (), 5, "no answer"),
        ("unreachable", (), 6, "unreachable"),
        ("timeout", (), 6, "timeout"),
        ("internal_error", (), 1, "failed (internal_error)"),
        ("carrier_lost", ("media_ready",), 1, "broken (carrier_lost)"),
    ],
)
def test_exit_codes(
    site: Site, reason: str, states: tuple[str, ...], code: int, words: str
) -> None:
    site.daemon.rows = [ended(reason, *states)]
    assert failed("dial", "+49", code=code) == f"{DIALLED} {words}\n"
    site.daemon.rows[0]["call_id"] = "d1a1000000000001"  # the second call
    result = run("dial", "+49", "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout)["reason"] == reason


def test_dialling_as_json_is_one_document(site: Site) -> None:
    site.daemon.dialled = iter([dialled("listening")])
    site.daemon.rows = [ended("caller_hangup", "listening")]
    shown = json.loads(done("dial", "+49", "--json"))
    assert (shown["id"], shown["outcome"]) == (DIALLED, "answered")


def test_a_call_of_which_nothing_is_left(site: Site) -> None:
    assert "the journal does not say how it ended" in failed("dial", "+49")
    site.daemon.rows = [{**ended("busy"), "ended_at": None}]
    assert "the journal does not say how it ended" in failed("dial", "+49")


def test_a_call_that_is_seen_again_is_not_given_up(site: Site) -> None:
    site.daemon.dialled = iter([*[None] * 30, dialled("dialling"), *[None] * 30])

    class Late(list[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            asked.append(1)
            return iter([ended("busy")] if len(asked) > 55 else ())

    asked: list[int] = []
    site.daemon.rows = Late()
    assert failed("dial", "+49", code=3) == f"{DIALLED} busy\n"


def test_an_interrupted_command_leaves_the_call(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    site.daemon.dialled = iter([dialled("dialling")])
    monkeypatch.setattr(time, "sleep", interrupt)
    message = f"the call goes on; end it with: voiced hangup {DIALLED}\n"
    assert failed("dial", "+49") == message


def test_what_the_daemon_refuses_to_dial(site: Site) -> None:
    site.daemon.refusal = OperationRefused("full", 503, "100 calls are live", "hang one up")
    assert failed("dial", "+49") == "100 calls are live; hang one up\n"
    site.daemon.refusal = None
    assert "one line of text" in failed("dial", "a\nb")
    assert "cannot be set; use X-" in failed("dial", "+49", "--header", "Via: x")


@pytest.mark.parametrize(
    "options", [("--header", "X"), ("--header", ": x"), ("--timeout", "0"), ("--timeout", "601")]
)
def test_options_that_are_none(site: Site, options: tuple[str, ...]) -> None:
    failed("dial", "+49", *options, code=2)
    assert site.daemon.deeds == []
