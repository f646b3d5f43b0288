"""`etc/README.md`, made from the types: `python -m voiced.config.reference > etc/README.md`."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect as types_of

from voiced.config import types

__all__ = ["reference", "rows_of", "tables_below"]

_INTRODUCTION: Final = """\
# Settings

This page is made from the types in `voiced/config/types_*.py`; `voiced.toml` beside it has every
key with its why.

- The file is the one named by `-c FILE`, else by `$VOICED_CONFIG`, else `/etc/voiced/voiced.toml`.
  Without any, voiced answers every number on its emulator.
- `conf.d/*.toml` beside the file are laid over it in the order of their names, key by key. A list,
  and so all `[[number]]` blocks together, is replaced as a whole.
- `voiced check` finds every mistake at once, `voiced config` prints what is in force, `voiced init`
  writes a file to start from.
- Durations end in their unit, `_s` or `_ms`. Relative paths are counted from the folder of the main
  file.
- A secret stands as `x`, in the file that `x_file` names, or in the environment variable that
  `x_env` names: exactly one of them. With systemd, `x_file = "name"` finds the credential `name`
  of `LoadCredential=`.
- A key that voiced does not know is an error.
"""

_OUTLINE: Final[Sequence[tuple[str, type]]] = (
    ("[daemon]", types.Daemon),
    ("[http]", types.Http),
    ("[twilio]", types.Twilio),
    ("[admin]", types.Admin),
    ("[sip]", types.Sip),
    ("[[sip.trunk]]", types.Trunk),
    ('[engine.NAME] with kind = "realtime"', types.RealtimeEngine),
    ('[engine.NAME] with kind = "pipeline"', types.PipelineEngine),
    ("[engine.NAME.stt]", types.SpeechToText),
    ("[engine.NAME.chat]", types.Chat),
    ("[engine.NAME.tts]", types.TextToSpeech),
    ('[engine.NAME] with kind = "emulator"', types.EmulatorEngine),
    ("[agent.NAME]", types.Agent),
    ('turn_detection of an agent with kind = "server_vad"', types.ServerVad),
    ('turn_detection of an agent with kind = "semantic_vad"', types.SemanticVad),
    ('turn_detection of an agent with kind = "none"', types.OwnVad),
    ("[[number]]", types.Number),
    ('[price."MODEL"]', types.Price),
    ("[cost]", types.Cost),
)

_PLUGINS: Final = """\
## `[plugins.NAME]`

A plugin's own table, with the plugin's own keys; the table switches the plugin on. NAME is the
plugin's, or any other beside `plugin = "…"`, so that two tables can use one plugin. `voiced
plugins` lists the plugins that there are, `voiced plugins NAME` the keys of one, and
`plugins/README.md` says how to write one.
"""


def reference() -> str:
    """Write the page: a table of keys for each TOML table."""
    return "\n".join([_INTRODUCTION, *(_section(*each) for each in _OUTLINE), _PLUGINS])


def _section(title: str, table: type) -> str:
    lines = [f"## `{title}`", "", inspect.cleandoc(table.__doc__ or "")]
    lines += ["", "| Key | Value | Default | Meaning |", "| --- | --- | --- | --- |"]
    for row in rows_of(table):
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join([*lines, ""])


def rows_of(table: type) -> Iterator[tuple[str, str, str, str]]:
    """Describe the keys of a struct: name, value, default, and the string under the field."""
    kind = types_of.type_info(table)
    if not isinstance(kind, types_of.StructType):
        raise TypeError(f"{table.__name__} is no struct")
    documents = [_documents(each) for each in table.__mro__]
    for field in kind.fields:
        meaning = next((each[field.name] for each in documents if field.name in each), "")
        yield f"`{field.encode_name}`", _value(field.type), _default(field), meaning


def tables_below(table: type, title: str) -> Iterator[tuple[str, type]]:
    """Name a struct and those in its fields, each once, as TOML does: `[a]`, `[a.b]`, `[[a.c]]`."""
    kind = types_of.type_info(table)
    seen: set[type] = set()

    def below(kind: types_of.Type, path: str, many: bool) -> Iterator[tuple[str, type]]:
        match kind:
            case types_of.StructType(cls=cls) if cls not in seen:
                seen.add(cls)
                tag = f' with {kind.tag_field} = "{kind.tag}"' if kind.tag_field else ""
                yield (f"[[{path}]]" if many else f"[{path}]") + tag, cls
                for field in kind.fields:
                    yield from below(field.type, f"{path}.{field.encode_name}", False)
            case types_of.UnionType(types=members):
                for member in members:
                    yield from below(member, path, many)
            case types_of.DictType(value_type=value):
                yield from below(value, f"{path}.NAME", False)
            case types_of.VarTupleType(item_type=item) | types_of.ListType(item_type=item):
                yield from below(item, path, True)

    yield from below(kind, title.strip("[]"), False)


def _value(kind: types_of.Type) -> str:
    match kind:
        case types_of.UnionType(types=members):
            if any(isinstance(member, types_of.StructType) for member in members):
                return "table"
            names = [_value(m) for m in members if not isinstance(m, types_of.NoneType)]
            return " or ".join(dict.fromkeys(names))
        case types_of.LiteralType(values=values):
            return ", ".join(f"`{json.dumps(value)}`" for value in values)
        case types_of.StructType():
            return "table"
        case types_of.AnyType():
            return "anything"
        case types_of.BoolType():
            return "`true`, `false`"
        case types_of.IntType() as number:
            return f"integer{_range(number)}"
        case types_of.FloatType() as number:
            return f"number{_range(number)}"
        case types_of.CustomType():
            return "path"
        case types_of.VarTupleType(item_type=item) | types_of.ListType(item_type=item):
            return f"list of {_value(item)}s"
        case types_of.DictType(value_type=value):
            return f"table of {_value(value)}"
    return "text"


def _range(number: types_of.IntType | types_of.FloatType) -> str:
    if number.ge is not None and number.le is not None:
        return f" {number.ge:g} to {number.le:g}"
    if number.ge is not None:
        return f" ≥ {number.ge:g}"
    return f" > {number.gt:g}" if number.gt is not None else ""


def _default(field: types_of.Field) -> str:
    if field.required:
        return "required"
    value: Any = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        return f'`{{ kind = "{tag}" }}`' if tag else ""
    if value in (None, msgspec.NODEFAULT, msgspec.UNSET):
        return ""
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


@cache
def _documents(table: type) -> Mapping[str, str]:
    """Collect the strings under the fields of a class; none where its source is not at hand."""
    file = getattr(sys.modules.get(table.__module__), "__file__", None)
    if file is None or not file.endswith(".py"):
        return {}
    tree = ast.parse(Path(file).read_text("utf-8"))
    return {
        name: text
        for each in ast.walk(tree)
        if isinstance(each, ast.ClassDef) and each.name == table.__name__
        for name, text in _fields(each)
    }


def _fields(table: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in zip(table.body, table.body[1:], strict=False):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, text


if __name__ == "__main__":
    sys.stdout.write(reference())
