"""`[plugins.NAME]`: from what is written to what a plugin's `Config` type says.

In two steps. `check_plugins` is part of loading a configuration: it finds the mistakes, resolves
secrets and makes paths absolute, so that `Config.plugins` holds plain values that are known to be
right. `decode` makes the structs of them, where the plugins are to run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from voiced.config.document import Document
from voiced.config.files import exists, is_folder
from voiced.config.findings import Findings
from voiced.config.mistakes import ConfigError, KeyPath
from voiced.config.resolve import secret
from voiced.config.schema import check_table
from voiced.config.types import Config
from voiced.hooks.registry import Registry, Unusable
from voiced.hooks.stepping import described
from voiced.hooks.values import Value, make_absolute, secrets_of, values
from voiced.plugin import Checked, Plugin, PluginError, Settings, WavError
from voiced.regular import check_regular

__all__ = ["KIND", "check_plugins", "decode", "from_mapping", "kind_of", "secret_names"]

KIND: Final = "plugin"
"""The key of a table that says which plugin it is for, where its name does not."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # it names a folder, too
_PLACE = re.compile(r"^(.*?) - at `(?:key in )?\$([^`]*)`$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_MOST = 100  # mistakes of one table
_KEY = re.compile(r"([a-z_][a-z0-9_]*)(?:: | = )")
_Struct = TypeVar("_Struct")


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

    A `Path` may stand for its text. Raises ConfigError with every mistake.
    """
    written: dict[str, Any] = _as_written(dict(table))
    findings = Findings(Document({"plugins": {name: written}}, Path.cwd()))
    valid = _check(("plugins", name), written, plugin, findings, os.environ)
    if findings.mistakes:
        raise ConfigError(findings.mistakes)
    return _convert(valid, plugin.Config)


def _as_written(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_written(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_written(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def secret_names(config: Config) -> dict[str, frozenset[KeyPath]]:
    """Find what must not be shown: for each table the places of its secrets, below the table."""
    registry = Registry(config.daemon.plugin_dir) if config.plugins else None
    found = {}
    for name, table in config.plugins.items():
        assert registry is not None
        try:
            parts = list(values(registry.load(kind_of(name, table)).Config, table))
        except (Unusable, TypeError, NameError):
            continue
        found[name] = frozenset(
            (*part.path, key) for part in parts if part.is_table for key in secrets_of(part)
        )
    return found


def _check(
    path: KeyPath,
    table: dict[str, Any],
    plugin: type[Plugin],
    findings: Findings,
    environ: Mapping[str, str],
) -> dict[str, Any]:
    """Find the mistakes of one table, and return it complete."""
    written = {key: value for key, value in table.items() if key != KIND}
    try:
        kind = inspect.type_info(plugin.Config)
    except Exception as error:  # what msgspec says of an annotation that it cannot use
        remedy = "use types that msgspec knows; voiced.plugin.Settings says more"
        findings.mistake(path, f"{plugin.__name__}.Config is unusable: {error}"[:400], remedy)
        return table
    valid: dict[str, Any] = check_table(kind, written, path, findings)
    # Of a list with mistakes the valid part is left, whose places are not those of the file.
    parts = [
        part
        for part in values(plugin.Config, valid)
        if not any(
            isinstance(step, int) and not findings.sound((*path, *part.path[:depth]))
            for depth, step in enumerate(part.path)
        )
    ]
    for part in parts:
        if part.is_table:
            for key in secrets_of(part):
                secret((*path, *part.path), part.value, key, findings, environ)
    for part in parts:
        make_absolute(part, findings.document.folder)
    for part in parts:
        _fit((*path, *part.path), part, kind_of(str(path[-1]), table), findings)
    for part in parts:  # a table after those in it: what is wrong in one is said of that one
        if part.is_table and findings.sound((*path, *part.path)):
            _try((*path, *part.path), part, findings)
    for part in parts:
        if (file := part.file) is not None:
            for each in part.checks:
                _look((*path, *part.path), file, each, findings)
    return valid | ({KIND: table[KIND]} if KIND in table else {})


def _fit(path: KeyPath, part: Value, plugin: str, findings: Findings) -> None:
    """Say of a text that it has not the form it has to have; it may be a secret."""
    for pattern in part.patterns:
        if part.kind is str and isinstance(part.value, str) and not re.search(pattern, part.value):
            remedy = f"voiced plugins {plugin} says what may stand there"
            findings.mistake(path, f"has not the form {pattern}", remedy)


def _try(path: KeyPath, table: Value, findings: Findings) -> None:
    """Let msgspec and the plugin have the last word."""
    try:
        _convert(table.value, table.kind)
    except Exception as error:  # __post_init__ is a stranger's
        message, below = str(error), ""
        if found := _PLACE.match(message):
            message, below = found[1], found[2]
        steps: list[str | int] = [
            int(index) if index else key for key, index in _STEP.findall(below) if key or index
        ]
        remedy = "change it, or remove it for the default"
        if not isinstance(error, PluginError | ValueError | TypeError):
            message = f"its settings fail with {type(error).__name__}: {message}"
        for line in message.split("\n")[:_MOST]:
            if (said := _KEY.match(line)) and not steps and said[1] in table.value:
                key = said[1]  # whose line in the file is the right one
                _mistake((*path, key), line[said.end() :], remedy, findings)
            else:
                _mistake((*path, *steps), line, remedy, findings)


def _look(path: KeyPath, file: Path, check: Checked, findings: Findings) -> None:
    """Have a file looked at as the plugin wants it; it may be a folder, but nothing that blocks."""
    try:
        if exists(file) and not is_folder(file):
            check_regular(file)
        check.look(file)
    except OSError as error:
        said = f"cannot be read: {error.strerror or error}"
    except (PluginError, WavError, ValueError) as error:
        said = str(error)
    except Exception as error:  # a stranger's
        said = f"cannot be looked at: {described(error)}"
    else:
        return
    _mistake(path, f"{file} {said}", "correct it, or name another file", findings)


def _mistake(path: KeyPath, text: str, otherwise: str, findings: Findings) -> None:
    """A text in the words of a plugin: what is wrong, and after a semicolon what to do."""
    said, _, remedy = text[:400].replace("\n", " ").partition("; ")
    said = said[:1].lower() + said[1:]
    findings.mistake(path, said or "is wrong", remedy or otherwise)


def _convert(table: Mapping[str, Any], config: type[_Struct]) -> _Struct:
    """Raises ValueError (msgspec's), or what a `__post_init__` raises."""

    def decode_hook(kind: type, value: Any) -> Any:
        if issubclass(kind, Path) and isinstance(value, str):
            return kind(value)
        raise NotImplementedError(f"settings of the type {kind.__name__} are not known")

    plain = {key: value for key, value in table.items() if key != KIND}
    return msgspec.convert(plain, config, dec_hook=decode_hook)
