"""Checks of `[engine.*]` and `[price.*]`."""

from __future__ import annotations

import re
import shutil
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import UNSET

from voiced.config.addresses import is_loopback
from voiced.config.files import readable
from voiced.config.findings import Findings
from voiced.config.mistakes import KeyPath, key_name
from voiced.config.prices import billed, billed_models, prices
from voiced.config.types import (
    Config,
    EmulatorEngine,
    Provider,
    RealtimeEngine,
)
from voiced.emulator.options import OptionsError, parse_faults

__all__ = ["check_engines", "last_day"]

_LOCAL_SERVERS: Final = ("localai", "speaches", "vllm-omni", "other")
_CREDENTIAL_HEADERS: Final = ("authorization", "api-key", "x-api-key")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2, token

# OpenAI's list of shutdown dates, state of November 2026; a dated snapshot ends with its model.
_LAST_DAYS: Final = (
    (r"gpt-realtime(-20\d\d-\d\d-\d\d)?", "2027-01-20", "gpt-realtime-2.1"),
    (r"gpt-realtime-mini(-20\d\d-\d\d-\d\d)?", "2027-01-20", "gpt-realtime-2.1-mini"),
    (r"gpt-4o-realtime.*", "2027-01-20", "gpt-realtime-2.1"),
    (r"gpt-4o-mini-realtime.*", "2027-01-20", "gpt-realtime-2.1-mini"),
    (r"whisper-1|gpt-4o(-mini)?-transcribe.*", "2027-02-26", "gpt-transcribe"),
)


def last_day(model: str) -> tuple[str, str] | None:
    """Look up when OpenAI ends a model, as an ISO date, and what replaces it."""
    for pattern, day, replacement in _LAST_DAYS:
        if re.fullmatch(pattern, model):
            return day, replacement
    return None


def check_engines(config: Config, findings: Findings) -> None:
    """Check what talks, and what it costs."""
    for name, engine in config.engine.items():
        path: KeyPath = ("engine", name)
        if isinstance(engine, EmulatorEngine):
            if engine.speech == "espeak" and shutil.which("espeak-ng") is None:
                message = "there is no espeak-ng on this machine"
                remedy = 'install it (apt install espeak-ng), or write speech = "auto"'
                findings.mistake((*path, "speech"), message, remedy)
            _faults((*path, "faults"), engine, findings)
        elif isinstance(engine, RealtimeEngine):
            _realtime(path, engine, findings)
        else:
            for step, provider in {
                "stt": engine.stt,
                "chat": engine.chat,
                "tts": engine.tts,
            }.items():
                _provider((*path, step), provider, findings)
    _prices(config, findings)


def _faults(path: KeyPath, engine: EmulatorEngine, findings: Findings) -> None:
    for name, value in engine.faults.items():
        try:
            parse_faults({name: value})
        except OptionsError as error:
            message, _, remedy = str(error).partition("; ")
            findings.mistake((*path, name), message, remedy or "correct the value")


def _realtime(path: KeyPath, engine: RealtimeEngine, findings: Findings) -> None:
    local = _url((*path, "url"), engine, findings)
    _headers((*path, "headers"), engine.headers, findings)
    if engine.ca_file is not None and readable(engine.ca_file, (*path, "ca_file"), findings):
        _certificates(engine.ca_file, (*path, "ca_file"), findings)
    given = any(
        findings.written((*path, key)) for key in ("api_key", "api_key_file", "api_key_env")
    ) or any(header.lower() in _CREDENTIAL_HEADERS for header in engine.headers)
    needed = not local and engine.server not in _LOCAL_SERVERS
    sound = findings.sound((*path, "url"), (*path, "server"), (*path, "headers"))
    if needed and not given and sound:
        remedy = 'add api_key_file or api_key_env; for a server that needs none, server = "other"'
        findings.mistake(path, "has no API key", remedy)
    if engine.server in ("openai", "azure") and (end := last_day(engine.model)):
        message = f"{engine.model} has its last day on {end[0]}"
        findings.warn((*path, "model"), message, f'use "{end[1]}"')


def _url(path: KeyPath, engine: RealtimeEngine, findings: Findings) -> bool:
    """Check the URL, and say whether the server is on this machine."""
    try:
        parts = urlsplit(engine.url)
        _ = parts.port
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    remedy = 'write e.g. "wss://api.openai.com/v1/realtime"'
    if parts.scheme in ("http", "https") and host:
        meant = "wss" if parts.scheme == "https" else "ws"
        remedy = f"write {meant}:// in place of {parts.scheme}://"
        findings.mistake(path, "the protocol runs over a WebSocket, not over HTTP", remedy)
    elif parts.scheme not in ("ws", "wss") or not host or not engine.url.isprintable():
        findings.mistake(path, "is not a wss:// or ws:// URL", remedy)
    elif parts.fragment or " " in engine.url:
        findings.mistake(path, "has a space or a fragment (#)", remedy)
    elif parts.scheme == "ws" and not is_loopback(host) and engine.api_key is not None:
        message = f"the API key and all calls travel to {host} unencrypted"
        findings.warn(path, message, "use wss:// where the server offers it")
    return host is not None and is_loopback(host)


def _provider(path: KeyPath, provider: Provider, findings: Findings) -> None:
    """Check a server with OpenAI's HTTP API; a plugin's provider makes of it what it likes."""
    _headers((*path, "headers"), provider.headers, findings)
    if provider.provider != "openai":
        return
    key = (*path, "url")
    try:
        parts = urlsplit(provider.url)
        _ = parts.port
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    remedy = 'write e.g. "https://api.openai.com/v1"'
    if parts.scheme not in ("http", "https") or not host or not provider.url.isprintable():
        findings.mistake(key, "is not an https:// or http:// URL", remedy)
    elif parts.query or parts.fragment or " " in provider.url:
        findings.mistake(key, "has a space, a query (?) or a fragment (#)", remedy)
    elif parts.scheme == "http" and not is_loopback(host) and provider.api_key is not None:
        message = f"the API key and all calls travel to {host} unencrypted"
        findings.warn(key, message, "use https:// where the server offers it")
    given = any(findings.written((*path, f"api_key{way}")) for way in ("", "_file", "_env"))
    given = given or any(name.lower() in _CREDENTIAL_HEADERS for name in provider.headers)
    if host == "api.openai.com" and not given and findings.sound(key, (*path, "headers")):
        where = path if findings.written(path) else path[:-1]
        remedy = f"add api_key_file or api_key_env to [{key_name(path)}]"
        findings.mistake(where, f"{path[-1]} has no API key", remedy)


def _headers(path: KeyPath, headers: Mapping[str, str], findings: Findings) -> None:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            remedy = "write a name of letters, digits and -"
            findings.mistake((*path, name), "is not a header name", remedy)
        elif not value.isascii() or not value.isprintable():
            message = "has characters that no header may hold"
            findings.mistake((*path, name), message, "use printable ASCII")


def _certificates(file: Path, path: KeyPath, findings: Findings) -> None:
    try:
        ssl.create_default_context(cafile=str(file))
    except (ssl.SSLError, OSError, ValueError):
        findings.mistake(path, f"{file} holds no PEM certificates", "name a PEM file")


def _prices(config: Config, findings: Findings) -> None:
    """Figures that nobody pays by, and caps that nobody can keep to."""
    if not findings.sound(("engine",), ("agent",), ("price",)):
        return
    models = billed_models(config)
    for engine in config.engine.values():
        for agent in config.agent.values():  # an engine that no agent names is still an engine
            by = billed(engine, agent)
            models |= {name for name in (by.model, by.transcription, by.speech) if name}
    for model in config.price:
        if model not in models:
            message = "no engine uses this model"
            findings.warn(("price", model), message, "correct the name, or remove the table")
    for path in _caps(config):
        for model in sorted(billed_models(config) - prices(config).keys()):
            message = f"what {model} costs is not known, and not counted"
            findings.warn(path, message, f'add a [price."{model}"]')


def _caps(config: Config) -> list[KeyPath]:
    """Find where a cap is set; the first place will do."""
    places: list[KeyPath] = [
        ("cost", key)
        for key in ("call_usd", "number_usd", "day_usd")
        if getattr(config.cost, key) is not None
    ]
    places += [
        ("number", index, key)
        for index, number in enumerate(config.number)
        for key in ("call_usd", "number_usd")
        if getattr(number, key) is not UNSET
    ]
    return places[:1]
