"""Plugins that could not work are refused when they are loaded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from voiced.hooks.shape import ASKED, AUDIO, HOOKS, overridden, problems
from voiced.plugin import Greeting, Plugin, Service, Settings, Words


def found(plugin: type[Plugin]) -> list[str]:
    return [f"{message}; {remedy}" for message, remedy in problems(plugin)]


def plugin_with(**members: Any) -> type[Plugin]:
    return type("Mine", (Plugin,), members)


class Good(Plugin):
    time_limit_s = 0.5
    attribute = 3

    def __init__(self, call: Any, config: Any, service: Any, more: int = 0) -> None:
        super().__init__(call, config, service)

    async def greeting(self, planned: Greeting) -> Greeting | None:
        return None

    async def on_transcript(self, words: Words, *rest: object) -> None: ...

    async def _on_anything(self) -> None: ...

    async def fetch_greeting(self) -> None: ...

    def speech_started_at(self) -> int:
        return 0


def test_a_good_one_is_taken() -> None:
    assert found(Good) == []
    assert overridden(Good) == {"greeting", "on_transcript"}
    assert overridden(Plugin) == frozenset()

    class Better(Good):
        async def on_media(self) -> None: ...

    assert found(Better) == []
    assert overridden(Better) == {"greeting", "on_transcript", "on_media"}


def test_every_hook_is_known_and_documented() -> None:
    assert HOOKS >= ASKED | AUDIO
    assert {"on_call_start", "on_engine_error", "on_greeting_made"} <= HOOKS
    for hook in HOOKS:
        assert getattr(Plugin, hook).__doc__


async def nothing(self: object) -> None: ...


def plain(self: object) -> None: ...


async def generator(self: object) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"on_speach_started": nothing}, "on_speach_started is no hook; did you mean on_speech_st"),
        ({"onSpeechStarted": nothing}, "onSpeechStarted is no hook; did you mean on_speech_starte"),
        ({"on_zzz": nothing}, "on_zzz is no hook; begin the name of a method of your own with _"),
        ({"on_digits": plain}, "on_digits is no hook; did you mean on_digit? Else begin the name "),
        ({"greetings": nothing}, "greetings is no hook; did you mean greeting? Else begin"),
        ({"on_media": plain}, "on_media is no coroutine function; write async def on_media(…)"),
        ({"on_media": generator}, "on_media is no coroutine function; write async def"),
        ({"on_media": staticmethod(nothing)}, "on_media is no coroutine function; write async"),
        ({"on_digit": nothing}, "on_digit takes (self: 'object'); write def on_digit(self, digit)"),
        ({"Config": dict}, "Config is no settings type; derive it from voiced.plugin.Settings"),
        ({"Config": Settings()}, "Config is no settings type; derive it from"),
        ({"Service": dict}, "Service is no service type; derive it from voiced.plugin.Service"),
        ({"Service": type("S", (Service,), {"run": plain})}, "Service.run is no coroutine functi"),
        ({"Service": type("S", (Service,), {"__init__": plain})}, "Service.__init__ takes (self"),
        ({"time_limit_s": 0}, "time_limit_s is no number of seconds up to 60; write e.g. time_lim"),
        ({"time_limit_s": "5"}, "time_limit_s is no number of seconds up to 60"),
        ({"time_limit_s": float("nan")}, "time_limit_s is no number of seconds up to 60"),
        ({"__init__": nothing}, "__init__ takes (self: 'object'); write def __init__(self, call, "),
        ({"providers": {"sst": object}}, "providers has the unknown step 'sst'; use stt, chat, "),
        ({"providers": {"stt": 3}}, "providers['stt'] cannot be called; name a class or a functio"),
        ({"providers": 3}, "providers is no mapping; write e.g."),
        ({"providers": {"tts": plain}}, "providers['tts'] takes (self: 'object'); write def prov"),
    ],
)
def test_what_cannot_work_is_refused_with_its_remedy(
    members: dict[str, Any], expected: str
) -> None:
    (problem,) = found(plugin_with(**members))
    assert problem.startswith(expected)


def test_everything_wrong_is_found_at_once() -> None:
    assert len(found(plugin_with(on_digitt=nothing, on_media=plain, time_limit_s=-1))) == 3
