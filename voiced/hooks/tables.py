"""`[plugins.NAME]`: from what is written to what a plugin's `Config` type says.

In two steps. `check_plugins` is part of loading a configuration: it finds the mistakes, resolves
secrets and makes paths absolute, so that `Config.plugins` holds plain values that are known to be
right. `decode` makes the structs of them, where the plugins are to run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from voiced.config.document import Document
from voiced.config.findings import Findings
from voiced.config.mistakes import ConfigError, KeyPath
from voiced.config.resolve import secret
from voiced.config.schema import check_table, is_optional_secret
from voiced.config.types import Config
from voiced.hooks.registry import Registry, Unusable
from voiced.plugin import Plugin, PluginError, Settings

__all__ = ["KIND", "check_plugins", "decode", "from_mapping", "kind_of", "secret_names"]

KIND: Final = "plugin"
"""The key of a table that says which plugin it is for, where its name does not."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # it names a folder, too
_PLACE = re.compile(r"^(.*?) - at `(?:key in )?\$([^`]*)`$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")


def kind_of(name: str, table: Mapping[str, Any]) -> str:
    """Say which plugin the table `[plugins.NAME]` is for."""
    kind = table.get(KIND, name)
    return kind if isinstance(kind, str) else name


def check_plugins(
    tables: dict[str, dict[str, Any]],
    plugin_dir: Path | None,
    findings: Findings,
    environ: Mapping[str, str],
) -> dict[str, type[Plugin]]:
    """Check every table, complete it in place, and return the plugins that can be used."""
    registry = Registry(plugin_dir)
    usable: dict[str, type[Plugin]] = {}
    for name, table in tables.items():
        path: KeyPath = ("plugins", name)
        if not _NAME.fullmatch(name):
            remedy = f'call it by letters, digits, _ and -, and write {KIND} = "…" in it'
            findings.mistake(path, "is no name for a plugin's table", remedy)
            continue
        kind = table.get(KIND, name)
        if not isinstance(kind, str) or not kind:
            remedy = "write its name in quotes; voiced plugins lists them"
            findings.mistake((*path, KIND), "is no plugin's name", remedy)
            continue
        try:
            usable[name] = registry.load(kind)
        except Unusable as error:
            for message, remedy in error.reasons:
                findings.mistake((*path, KIND) if KIND in table else path, message, remedy)
            continue
        tables[name] = _check(path, table, usable[name], findings, environ)
    return usable


def decode(config: Config) -> dict[str, tuple[str, type[Plugin], Settings]]:
    """Make each table's settings: by its name, the plugin's name, class and settings.

    Raises PluginError, which names the table, where `config` has not been through `load`.
    """
    registry = Registry(config.daemon.plugin_dir) if config.plugins else None
    decoded = {}
    for name, table in config.plugins.items():
        assert registry is not None
        kind = kind_of(name, table)
        try:
            plugin = registry.load(kind)
            decoded[name] = (kind, plugin, _convert(table, plugin.Config))
        except (Unusable, ValueError, PluginError) as error:
            raise PluginError(f"[plugins.{name}]: {error}") from error
    return decoded


def from_mapping(name: str, table: Mapping[str, Any], plugin: type[Plugin]) -> Settings:
    """Make settings of what a TOML table would hold, paths counted from the working directory.

    Raises ConfigError with every mistake.
    """
    written = dict(table)
    findings = Findings(Document({"plugins": {name: written}}, Path.cwd()))
    valid = _check(("plugins", name), written, plugin, findings, os.environ)
    if findings.mistakes:
        raise ConfigError(findings.mistakes)
    return _convert(valid, plugin.Config)


def secret_names(config: Config) -> dict[str, frozenset[KeyPath]]:
    """Find what must not be shown: for each table the places of its secrets, below the table."""
    registry = Registry(config.daemon.plugin_dir) if config.plugins else None
    found = {}
    for name, table in config.plugins.items():
        assert registry is not None
        try:
            kind = inspect.type_info(registry.load(kind_of(name, table)).Config)
        except (Unusable, TypeError):
            continue
        found[name] = frozenset((*path, key) for path, _, key in _secrets(kind, table, ()))
    return found


def _check(
    path: KeyPath,
    table: dict[str, Any],
    plugin: type[Plugin],
    findings: Findings,
    environ: Mapping[str, str],
) -> dict[str, Any]:
    """Find the mistakes of one table, and return it complete."""
    before = len(findings.mistakes)
    written = {key: value for key, value in table.items() if key != KIND}
    try:
        kind = inspect.type_info(plugin.Config)
    except Exception as error:  # what msgspec says of an annotation that it cannot use
        remedy = "use types that msgspec knows; voiced.plugin.Settings says more"
        findings.mistake(path, f"{plugin.__name__}.Config is unusable: {error}"[:400], remedy)
        return table
    valid: dict[str, Any] = check_table(kind, written, path, findings)
    if len(findings.mistakes) == before:
        for below, part, key in _secrets(kind, valid, ()):
            secret((*path, *below), part, key, findings, environ)
        valid = _absolute(kind, valid, findings.document.folder)
    if len(findings.mistakes) == before:
        _try(path, valid, plugin, findings)
    return valid | ({KIND: table[KIND]} if KIND in table else {})


def _try(path: KeyPath, valid: dict[str, Any], plugin: type[Plugin], findings: Findings) -> None:
    """Let msgspec and the plugin have the last word."""
    try:
        _convert(valid, plugin.Config)
    except Exception as error:  # __post_init__ is a stranger's
        message, below = str(error), ""
        if found := _PLACE.match(message):
            message, below = found[1], found[2]
        steps: list[str | int] = [
            int(index) if index else key for key, index in _STEP.findall(below) if key or index
        ]
        if not isinstance(error, PluginError | ValueError | TypeError):
            message = f"its settings fail with {type(error).__name__}: {message}"
        said, _, remedy = message[:400].replace("\n", " ").partition("; ")
        remedy = remedy or "change it, or remove it for the default"
        findings.mistake((*path, *steps), said[:1].lower() + said[1:] or "is wrong", remedy)


def _convert(table: Mapping[str, Any], config: type[Settings]) -> Settings:
    """Raises ValueError (msgspec's), or what a `__post_init__` raises."""

    def decode_hook(kind: type, value: Any) -> Any:
        if issubclass(kind, Path) and isinstance(value, str):
            return kind(value)
        raise NotImplementedError(f"settings of the type {kind.__name__} are not known")

    plain = {key: value for key, value in table.items() if key != KIND}
    return msgspec.convert(plain, config, dec_hook=decode_hook)


def _parts(
    kind: inspect.Type, value: Any, path: KeyPath
) -> Iterator[tuple[inspect.Type, Any, KeyPath, Any, str | int]]:
    """Everything below `value`: its type, the value, its place, and what holds it under what."""
    match kind:
        case inspect.UnionType(types=members):
            for member in members:
                if not isinstance(member, inspect.StructType) or _is_tagged(member, value):
                    yield from _parts(member, value, path)
        case inspect.StructType(fields=fields) if isinstance(value, dict):
            for field in fields:
                if field.encode_name in value:
                    below = (*path, field.encode_name)
                    item = value[field.encode_name]
                    yield field.type, item, below, value, field.encode_name
                    yield from _parts(field.type, item, below)
        case inspect.DictType(value_type=inner) if isinstance(value, dict):
            for key, item in value.items():
                yield inner, item, (*path, key), value, key
                yield from _parts(inner, item, (*path, key))
        case inspect.VarTupleType(item_type=inner) | inspect.ListType(item_type=inner) if (
            isinstance(value, list)
        ):
            for index, item in enumerate(value):
                yield inner, item, (*path, index), value, index
                yield from _parts(inner, item, (*path, index))


def _is_tagged(kind: inspect.StructType, value: Any) -> bool:
    if kind.tag_field is None:
        return True
    return isinstance(value, dict) and value.get(kind.tag_field) == kind.tag


def _secrets(
    kind: inspect.Type, table: Any, path: KeyPath
) -> Iterator[tuple[KeyPath, dict[str, Any], str]]:
    """Each table below `table` (itself too) with the name of a secret that it may hold."""
    tables = [(kind, table, path)]
    tables += [(below, value, place) for below, value, place, _, _ in _parts(kind, table, path)]
    seen: set[KeyPath] = set()
    for each, value, place in tables:
        for struct in each.types if isinstance(each, inspect.UnionType) else (each,):
            if not isinstance(struct, inspect.StructType) or not isinstance(value, dict):
                continue
            if _is_tagged(struct, value):
                for name in is_optional_secret(struct):
                    if (*place, name) not in seen:
                        seen.add((*place, name))
                        yield place, value, name


def _absolute(kind: inspect.Type, valid: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Count paths from the folder of the main file."""
    for each, value, _, holder, key in list(_parts(kind, valid, ())):
        members = each.types if isinstance(each, inspect.UnionType) else (each,)
        is_path = any(isinstance(m, inspect.CustomType) and m.cls is Path for m in members)
        if is_path and isinstance(value, str):
            holder[key] = str((folder / value).absolute())
    return valid
