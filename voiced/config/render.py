"""A configuration as TOML again: what is in force, secrets hidden."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import tomli_w
from msgspec import UNSET, Struct, structs

from voiced.config.mistakes import KeyPath
from voiced.config.types import SECRETS, Agent, Config, Provider, RealtimeEngine

__all__ = ["HIDDEN", "render"]

HIDDEN: Final = "********"
_SECRET_NAME = re.compile(r"key|token|secret|password|auth|cookie", re.IGNORECASE)


def render(config: Config) -> str:
    """Write `config` as TOML that `load` would read the same, but for the hidden secrets."""
    values = _table(config)
    if config.plugins:
        values["plugins"] = _plugins(config)
    return tomli_w.dumps(values, multiline_strings=True)


def _plugins(config: Config) -> dict[str, Any]:
    """The plugins' tables; what is secret in them, their own types say."""
    from voiced.hooks.tables import secret_names  # a cycle; and few files have plugins

    secrets = secret_names(config)
    tables = {}
    for name, table in config.plugins.items():
        # Without the plugin's types the names have to do.
        known = secrets.get(name)
        tables[name] = _hidden(table, (), known)
    return tables


def _hidden(value: Any, path: KeyPath, secrets: frozenset[KeyPath] | None) -> Any:
    if isinstance(value, dict):
        shown = {}
        for key, item in value.items():
            below = (*path, key)
            elsewhere = value.get(f"{key}_file") or value.get(f"{key}_env")
            secret = below in secrets if secrets is not None else bool(_SECRET_NAME.search(key))
            if secret and elsewhere:
                continue  # it came from there
            scalar = not isinstance(item, dict | list)
            if scalar and (secret or ("headers" in path and _SECRET_NAME.search(key))):
                shown[key] = HIDDEN
            else:
                shown[key] = _hidden(item, below, secrets)
        return shown
    if isinstance(value, list):
        return [_hidden(item, (*path, index), secrets) for index, item in enumerate(value)]
    return value


def _table(table: Struct) -> dict[str, Any]:
    tag = table.__struct_config__.tag
    values: dict[str, Any] = {} if tag is None else {"kind": tag}
    for field in structs.fields(table):
        value = getattr(table, field.name)
        if value is None and field.name == "transcription_model":
            value = "off"
        if value is None or value is UNSET or _came_from_elsewhere(table, field.name):
            continue
        if field.name in SECRETS:
            value = HIDDEN
        elif isinstance(table, RealtimeEngine | Provider) and field.name == "url":
            value = _without_secrets(value)
        elif isinstance(table, RealtimeEngine | Provider) and field.name == "headers":
            value = {
                name: HIDDEN if _SECRET_NAME.search(name) else text for name, text in value.items()
            }
        values[field.name] = _plain(value)
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return _table(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _came_from_elsewhere(table: Struct, name: str) -> bool:
    """Say whether the value was read from what `name_file` or `name_env` names."""
    if name in SECRETS:
        return any(getattr(table, name + way) is not None for way in ("_file", "_env"))
    if isinstance(table, Agent) and name == "instructions":
        return table.instructions_file is not None
    # An empty list beside another form of greeting would be a second one.
    return isinstance(table, Agent) and name == "greeting_files" and not table.greeting_files


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    query = [
        (name, HIDDEN if _SECRET_NAME.search(name) else value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    netloc = f"{HIDDEN}@{parts.netloc.rpartition('@')[2]}" if "@" in parts.netloc else parts.netloc
    return urlunsplit(parts._replace(netloc=netloc, query=urlencode(query, safe="*")))
