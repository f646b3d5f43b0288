"""What a table holds by its plugin's types: files that are looked at, tables that are made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct, field

from voiced.config import ConfigError
from voiced.hooks.tables import from_mapping
from voiced.hooks.values import values
from voiced.plugin import Checked, Plugin, PluginError, Settings


def a_list(path: Path) -> None:
    text = path.read_text("utf-8")
    if not text:
        raise PluginError("is empty; write a name a line")
    if text == "bad":
        raise KeyError("nobody\nexpects this")
    if text == "worse":
        raise ValueError("Says nothing\nof what to do")


Listed = Annotated[Path, Checked(a_list)]


class Play(Struct, tag_field="do", tag="play"):
    file: Listed


class Say(Struct, tag_field="do", tag="say"):
    file: str


class Odd(Settings, frozen=True):
    least: int = 0
    most: int = 9
    token: str | None = None
    token_file: Path | None = None
    token_env: str | None = None
    named: Annotated[str | None, "a mark of somebody else's"] = field(default=None, name="call-it")

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError(f"Least = {self.least} is above most; lower it")
        if self.most == 13:
            raise PluginError("most: 13 brings bad luck; write 12")
        if self.most == 14:
            raise PluginError("elsewhere: 14 is taken; write 15")
        if self.token == "wrong":
            raise ValueError("token is wrong")
        if self.token_env and not self.token:
            raise AssertionError("the secret was not found before")


class Shaped(Settings, frozen=True):
    code: Annotated[str, Meta(pattern="^[A-Z]$")] | None = None
    codes: tuple[Annotated[str, Meta(pattern="^[A-Z]$")], ...] = ()
    least: int = 0

    def mistakes(self) -> Iterator[str]:
        if self.least > 2:
            yield f"least = {self.least} is above 2\nand so on; lower it"
        if self.code == "A":
            yield "code is A; take another"


class Everything(Settings, frozen=True):
    one: Listed | None = None
    several: tuple[Listed, ...] = ()
    marked: Annotated[list[Path], Checked(a_list)] = field(default_factory=list)
    named: dict[str, Listed] = field(default_factory=dict)
    steps: list[Play | Say] = field(default_factory=list)
    pair: tuple[int, Listed] | None = None
    plain: Path | None = None
    odd: tuple[Odd, ...] = ()
    other: dict[str, Odd] = field(default_factory=dict)
    shaped: Shaped | None = None
    table: Annotated[Odd | None, Checked(a_list)] = None

    def __post_init__(self) -> None:
        if self.plain == Path.cwd() / "unwanted":
            raise ValueError("plain is unwanted")


class Mine(Plugin):
    Config = Everything


def mistakes(table: dict[str, Any]) -> list[str]:
    try:
        from_mapping("mine", table, Mine)
    except ConfigError as error:
        return [str(each).removeprefix("configuration: plugins.mine") for each in error.mistakes]
    return []


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ({"one": "x"}, ".one"),
        ({"several": ["good", "x"]}, ".several"),
        ({"marked": ["x"]}, ".marked"),
        ({"named": {"a": "good", "b": "x"}}, ".named.b"),
        ({"steps": [{"do": "say", "file": "x"}, {"do": "play", "file": "x"}]}, ".steps.file"),
        ({"pair": [1, "x"]}, ".pair"),
    ],
)
def test_a_marked_path_is_looked_at_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: dict[str, Any], place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x"
    (tmp_path / "good").write_text("Ada")
    says = f"{place}: {file}"
    assert mistakes(table) == [
        f"{says} cannot be read: No such file or directory; correct it, or name another file"
    ]
    file.write_text("")
    assert mistakes(table) == [f"{says} is empty; write a name a line"]
    file.write_text("worse")
    said = f"{says} Says nothing of what to do; correct it, or name another file"
    assert mistakes(table) == [said]
    file.write_text("bad")
    (said,) = mistakes(table)
    assert said.startswith(f"{says} cannot be looked at: KeyError: ")
    assert "\n" not in said
    file.write_text("Ada\nBob")
    assert mistakes(table) == []


def test_what_is_not_marked_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("bad")
    assert mistakes({"table": {"token_file": str(tmp_path / "token")}}) == []
    assert mistakes({"plain": "/nowhere", "one": "/dev/zero/none"}) != []
    assert mistakes({"plain": "/nowhere"}) == []


def test_each_table_says_what_is_wrong_with_it() -> None:
    """The first mistake does not hide the others, nor one of the whole those of its parts."""
    table = {
        "odd": [{"least": 5}, {"least": 7, "most": 6}, {"most": 13}],
        "other": {
            "a": {"token": "wrong"},
            "b": {"most": "x"},
            "c": {"most": 13},
            "d": {"most": 14},
        },
        "one": "/nowhere",
        "unkown": 1,
    }
    assert mistakes(table) == [
        '.other.b.most: expected a whole number, found the text "x"; change it, or remove it for '
        "the default",
        ".unkown: unknown key; remove it, or use what [plugins.mine] may hold: one, several, "
        "marked, named, steps, pair, plain, odd, other, shaped, table",
        ".odd: least = 7 is above most; lower it",
        ".odd.most: 13 brings bad luck; write 12",
        ".other.a: token is wrong; change it, or remove it for the default",
        ".other.c.most: 13 brings bad luck; write 12",
        ".other.d: elsewhere: 14 is taken; write 15",  # no key of that table
        ".one: /nowhere cannot be read: No such file or directory; correct it, or name another "
        "file",
    ]


def test_a_table_says_all_that_is_wrong_with_it() -> None:
    assert mistakes({"shaped": {"code": "x1", "codes": ["y2", "A", "b"], "least": 3}}) == [
        ".shaped.code: has not the form ^[A-Z]$; voiced plugins mine says what may stand there",
        ".shaped.codes: has not the form ^[A-Z]$; voiced plugins mine says what may stand there",
        ".shaped.codes: has not the form ^[A-Z]$; voiced plugins mine says what may stand there",
    ]
    assert mistakes({"shaped": {"code": "A", "codes": ["A"], "least": 3}}) == [
        ".shaped.least: 3 is above 2 and so on; lower it",
        ".shaped: code is A; take another",
    ]
    assert mistakes({"shaped": {"least": 1}}) == []


def test_secrets_are_there_when_a_table_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "wrong")
    table = {"odd": [{"token_env": "TOKEN"}], "one": "/nowhere", "plain": "unwanted"}
    assert mistakes(table) == [
        ".odd: token is wrong; change it, or remove it for the default",
        ".one: /nowhere cannot be read: No such file or directory; correct it, or name another "
        "file",
    ]
    monkeypatch.setenv("TOKEN", "right")
    assert mistakes(table)[0].startswith(": plain is unwanted")
    monkeypatch.delenv("TOKEN")
    assert [each.partition(":")[0] for each in mistakes(table)] == [".odd.token_env", ".one"]


def test_the_places_of_a_list_with_mistakes_are_not_guessed() -> None:
    """What is left of such a list stands where something else stood in the file."""
    table = {"several": [3, "/nowhere"], "odd": ["x", {"most": 13}], "named": {"a": "/nowhere"}}
    assert [each.partition(":")[0] for each in mistakes(table)] == [".several", ".odd", ".named.a"]


def test_a_key_may_have_another_name_than_its_field() -> None:
    (named,) = [
        each
        for each in values(Odd, {"call-it": "x", "least": 1})
        if each.path == ("call-it",) and each.kind is str
    ]
    assert named.value == "x"
    assert from_mapping("mine", {"other": {"a": {"call-it": "x"}}}, Mine) == Everything(
        other={"a": Odd(named="x")}
    )
