"""Servers that speak the protocol their own way, by their vendors' pages: none of them is at hand.

The table says what may be sent to each and what it means by what it says; that each of these flags
has its effect is seen in the messages, whatever holds them in the code.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import pytest

from tests.realtime.script import Script
from voiced.config.types import RealtimeEngine
from voiced.engine import ResponseStarted
from voiced.formats import PCMU_8K
from voiced.realtime.servers import SERVERS, request_headers


class Says(NamedTuple):
    """What a vendor says of its server."""

    dialect: Literal["ga", "beta"] = "ga"
    takes: str = "pcmu"  # asked for on a mu-law leg
    gives: str = "pcmu"
    truncates: bool = True
    cancels: bool = True
    deletes: bool = True
    voice_at_top: bool = False
    key_in: str = "Authorization"
    null_is_elsewhere: bool = False  # `conversation_id` of a response outside the conversation
    limit_s: int | None = None


VENDORS = {
    "openai": Says(null_is_elsewhere=True, limit_s=3600),
    "azure": Says(null_is_elsewhere=True, key_in="api-key"),
    "xai": Says(voice_at_top=True, limit_s=3600),
    "localai": Says(takes="pcm 24000", gives="pcm 24000"),  # it takes pcmu and ignores that
    "speaches": Says("beta", "pcm16", "pcm16", truncates=False, cancels=False),
    "qwen": Says("beta", "pcm", "pcm", truncates=False, deletes=False, limit_s=7200),
    "vllm-omni": Says(takes="pcm 16000", gives="pcm 24000"),
    "other": Says(),
}


def test_all_are_here() -> None:
    assert set(VENDORS) == set(SERVERS)


def configured(name: Any) -> tuple[Script, dict[str, Any]]:
    """A session of that server, and what it was asked to be."""
    script = Script(RealtimeEngine(server=name))
    script.says("session.created", session={})
    (update,) = script.sent()
    script.says("session.updated", session=update["session"])
    script.forget()
    return script, update["session"]


@pytest.mark.parametrize("name", VENDORS)
def test_the_session_has_the_servers_shape(name: str) -> None:
    vendor = VENDORS[name]
    _, session = configured(name)
    if vendor.dialect == "beta":
        assert "type" not in session
        assert "audio" not in session
        found = session["input_audio_format"], session["output_audio_format"]
        assert found == (vendor.takes, vendor.gives)
        assert session["voice"]
        return
    assert session["type"] == "realtime"
    for side, expected in (("input", vendor.takes), ("output", vendor.gives)):
        form = session["audio"][side]["format"]
        said = " ".join(str(part) for part in form.values()).removeprefix("audio/")
        assert said == expected
    places = session if vendor.voice_at_top else session["audio"]["output"]
    assert places["voice"]
    assert ("voice" in session) is ("turn_detection" in session) is vendor.voice_at_top


@pytest.mark.parametrize("name", VENDORS)
def test_nothing_is_sent_that_the_server_does_not_know(name: str) -> None:
    """The caller interrupts: a response to cancel, an item to cut, one to take away."""
    vendor = VENDORS[name]
    script, _ = configured(name)
    size = 1000 * script.machine.output_format.bytes_per_ms
    script.created().delta(bytes(size)).delta(bytes(size), item="item_2").forget()
    script.machine.cancel()
    script.machine.truncate("item_1", 0, 400)
    script.machine.delete("item_2")
    expected = {
        "response.cancel": vendor.cancels,
        "conversation.item.truncate": vendor.truncates,
        "conversation.item.delete": vendor.deletes,
    }
    assert script.kinds() == [kind for kind, known in expected.items() if known]
    # Whatever it was told, nothing more of it is heard.
    script.delta(bytes(size))
    assert script.heard() == []


@pytest.mark.parametrize("name", VENDORS)
def test_whose_response_it_is(name: str) -> None:
    script, _ = configured(name)
    script.created(conversation_id=None)
    started = [event for event in script.heard() if isinstance(event, ResponseStarted)]
    assert bool(started) is not VENDORS[name].null_is_elsewhere


@pytest.mark.parametrize("name", VENDORS)
def test_the_key_and_the_limit(name: Any) -> None:
    headers = dict(request_headers(RealtimeEngine(server=name, api_key="k")))
    bearer = VENDORS[name].key_in == "Authorization"
    assert headers[VENDORS[name].key_in] == ("Bearer k" if bearer else "k")
    assert ("OpenAI-Beta" in headers) is (VENDORS[name].dialect == "beta")
    assert SERVERS[name].max_session_s == VENDORS[name].limit_s


@pytest.mark.parametrize("name", ["qwen", "vllm-omni"])
def test_some_take_16_khz_and_give_24(name: str) -> None:
    """Qwen's session names no rate."""
    script, _ = configured(name)
    assert (script.machine.input_format.rate, script.machine.output_format.rate) == (16000, 24000)
    script, _ = configured("openai")
    assert script.machine.input_format == PCMU_8K
