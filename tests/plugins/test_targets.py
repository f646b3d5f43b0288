"""Whom calls are handed over to: a wrong one is found when the settings are read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from voiced_plugins.dtmf import Menus
from voiced_plugins.prompts import PromptSettings
from voiced_plugins.tools import ToolSettings

GOOD = ["+4930123456", "sip:desk@example.net", "sips:a@b;transport=tls", "tel:+4930123456"]
WRONG = ["030123456", "desk", "+49 30 123456", "sip:", "sip:a b@c", "+4930123456\n"]


def settings_with(target: str) -> list[tuple[type[msgspec.Struct], dict[str, Any]]]:
    return [
        (ToolSettings, {"transfer": {"desk": target}}),
        (PromptSettings, {"closed": {"then": "transfer", "target": target}}),
        (Menus, {"menu": {"main": {"keys": {"0": {"transfer": target}}}}}),
    ]


@pytest.mark.parametrize("target", GOOD)
def test_numbers_and_uris_are_targets(target: str) -> None:
    for kind, table in settings_with(target):
        msgspec.convert(table, kind)


@pytest.mark.parametrize("target", WRONG)
def test_others_are_named_at_once(target: str) -> None:
    for kind, table in settings_with(target):
        with pytest.raises(msgspec.ValidationError, match="is no number"):
            msgspec.convert(table, kind)


def test_collected_digits_may_be_part_of_one() -> None:
    for target, right in (("+49{digits}", True), ("sip:{digits}@h", True), ("{digits}", False)):
        collect = {"then": {"transfer": target}}
        table = {"menu": {"main": {"keys": {"1": {"collect": collect}}}}}
        if right:
            msgspec.convert(table, Menus)
        else:
            with pytest.raises(msgspec.ValidationError, match="is no number"):
                msgspec.convert(table, Menus)
