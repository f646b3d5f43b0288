"""The text of a plugin to begin with, and of its test."""

from __future__ import annotations

import keyword
from typing import Final

__all__ = ["plugin_text", "test_text"]

_PLUGIN: Final = '''\
"""Lets callers leave with a key."""

from __future__ import annotations

from collections.abc import Iterator

from voiced.plugin import Plugin, Settings


class CLASSSettings(Settings, frozen=True):
    """The table [plugins.NAME]; `voiced check` checks it, `voiced plugins NAME` shows it."""

    key: str = "9"
    """The key that ends the call."""

    def mistakes(self) -> Iterator[str]:
        """What `voiced check` says of the table, besides what the types say."""
        if len(self.key) != 1 or self.key not in "0123456789*#":
            yield 'key: a telephone has no such key; write e.g. "9"'


class CLASS(Plugin):
    """Says goodbye to callers who press a key, and notes it in the journal."""

    Config = CLASSSettings
    config: CLASSSettings

    async def on_digit(self, digit: str) -> bool | None:
        """True: the key is dealt with, and the model does not hear of it."""
        if digit != self.config.key:
            return None
        self.call.set_fact("left_by_key", digit)
        self.call.hang_up(reason="left_by_key")
        return True
'''

_TEST: Final = '''\
"""NAME, in a real call between a fake telephone and a fake model."""

from __future__ import annotations

from NAME import CLASS

from voiced.testing import call_with, virtual_time


@virtual_time
async def test_the_key_ends_the_call() -> None:
    async with call_with(CLASS, {"key": "5"}) as call:
        await call.press("5")
        summary = await call.ended()
    assert summary.reason == "left_by_key"
    assert summary.facts == {"left_by_key": "5"}


@virtual_time
async def test_other_keys_do_nothing() -> None:
    async with call_with(CLASS) as call:
        await call.caller_says("I press something.")
        await call.press("123")
        await call.agent_says("I see.")
        assert call.state == "listening"
'''


def plugin_text(name: str) -> str:
    """A plugin that works."""
    return _filled(_PLUGIN, name)


def test_text(name: str) -> str:
    """Its test, which passes."""
    return _filled(_TEST, name)


def _filled(template: str, name: str) -> str:
    class_name = "".join(part.capitalize() for part in name.split("_")) or "Mine"
    if class_name in ("Plugin", "Settings", "Config") or keyword.iskeyword(class_name):
        class_name = f"My{class_name}"
    return template.replace("CLASS", class_name).replace("NAME", name)
