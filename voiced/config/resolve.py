"""From what is written to what is meant: implied values, secrets, instructions from files.

Works on the valid part of a document, before it becomes a struct.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from voiced.config.files import exists, read_text
from voiced.config.findings import Findings
from voiced.config.mistakes import KeyPath, key_name
from voiced.config.types import DEFAULT_GREETING, DEFAULT_INSTRUCTIONS

__all__ = ["STEPS", "resolve", "secret"]

STEPS: Final = ("stt", "chat", "tts")
"""The tables of a pipeline engine, each with a server of its own."""

_MAX_SECRET: Final = 16 * 1024  # characters; far above any token, far below a wrong file
_MAX_INSTRUCTIONS: Final = 1024 * 1024
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_GREETINGS: Final = ("greeting", "greeting_text", "greeting_files")


def resolve(valid: dict[str, Any], findings: Findings, environ: Mapping[str, str]) -> None:
    """Complete `valid` in place."""
    _imply(valid, findings)
    for path, table, name in _secrets(valid):
        secret(path, table, name, findings, environ)
    for name, agent in valid.get("agent", {}).items():
        _agent(("agent", name), agent, findings)


def _imply(valid: dict[str, Any], findings: Findings) -> None:
    """Fill in tables and keys that are left out because only one answer makes sense."""
    agents, engines = valid.setdefault("agent", {}), valid.setdefault("engine", {})
    agent_names, engine_names = findings.names("agent"), findings.names("engine")
    if not agent_names:
        agents["reception"] = {}
    for name, agent in agents.items():
        path: KeyPath = ("agent", name)
        if not findings.written((*path, "engine")):
            agent["engine"] = engine_names[0] if engine_names else "offline"
            if len(engine_names) > 1:
                whole = "" if agent_names else f"write [{key_name(path)}] and "
                remedy = f"{whole}add engine = to it: one of {', '.join(engine_names)}"
                findings.mistake(path, "does not say which engine it uses", remedy)
    used = {agent.get(key) for agent in agents.values() for key in ("engine", "fallback_engine")}
    if not engine_names or ("offline" in used and "offline" not in engine_names):
        engines["offline"] = {"kind": "emulator"}
    if not findings.written(("number",)):
        valid["number"] = [{"match": "*", "agent": name} for name in agent_names or ["reception"]]
        if len(agent_names) > 1:
            message = "there are several agents and no [[number]] says which one answers"
            remedy = f'add [[number]] with match = "*" and agent = one of {", ".join(agent_names)}'
            findings.mistake(("agent",), message, remedy)


def _agent(path: KeyPath, agent: dict[str, Any], findings: Findings) -> None:
    if agent.get("transcription_model") == "off":
        agent["transcription_model"] = None
    if not any(findings.written((*path, key)) for key in _GREETINGS):
        agent["greeting"] = DEFAULT_GREETING
    if not any(findings.written((*path, key)) for key in ("instructions", "instructions_file")):
        agent["instructions"] = DEFAULT_INSTRUCTIONS
    if "instructions_file" in agent and "instructions" not in agent:
        key = (*path, "instructions_file")
        file = findings.document.folder / agent["instructions_file"]
        text = read_text(file, _MAX_INSTRUCTIONS, key, findings)
        if text is not None and not text.strip():
            findings.mistake(key, f"{file} is empty", "write the agent's instructions into it")
        agent["instructions"] = text


def _secrets(valid: dict[str, Any]) -> Iterator[tuple[KeyPath, dict[str, Any], str]]:
    yield ("twilio",), valid.setdefault("twilio", {}), "auth_token"
    yield ("twilio",), valid["twilio"], "auth_token_secondary"
    yield ("admin",), valid.setdefault("admin", {}), "token"
    for index, trunk in enumerate(valid.get("sip", {}).get("trunk", ())):
        yield ("sip", "trunk", index), trunk, "password"
    for name, engine in valid["engine"].items():
        if engine["kind"] == "realtime":
            yield ("engine", name), engine, "api_key"
        elif engine["kind"] == "pipeline":
            for step in STEPS:
                if step in engine:
                    yield ("engine", name, step), engine[step], "api_key"


def secret(
    path: KeyPath,
    table: dict[str, Any],
    name: str,
    findings: Findings,
    environ: Mapping[str, str],
) -> None:
    """Put the secret `name`, or its `_file` or `_env`, under `name` itself."""
    ways = (name, f"{name}_file", f"{name}_env")
    given = [way for way in ways if findings.written((*path, way))]
    if len(given) > 1:
        message = f"is given {len(given)} times: {', '.join(given)}"
        findings.mistake((*path, given[-1]), message, "keep one of them")
        return
    if not given or given[0] not in table:
        return
    key = (*path, given[0])
    if given[0] == ways[0]:
        _keep(table[name], key, "is empty", table, name, findings)
    elif given[0] == ways[1]:
        file = _credential(table[ways[1]], findings.document.folder, environ)
        table[ways[1]] = str(file)
        text = read_text(file, _MAX_SECRET, key, findings)
        if text is not None:
            _keep(text, key, f"{file} is empty", table, name, findings)
    else:
        variable = table[ways[2]]
        if not _VARIABLE.fullmatch(variable):
            # Often the secret itself, so it is not repeated.
            message = "is not the name of an environment variable"
            findings.mistake(key, message, "write the name, e.g. " + name.upper())
        elif variable not in environ:
            message = f"the environment variable {variable} is not set"
            findings.mistake(key, message, "set it for the daemon, or use " + ways[1])
        else:
            empty = f"the environment variable {variable} is empty"
            _keep(environ[variable], key, empty, table, name, findings)


def _credential(name: str, folder: Path, environ: Mapping[str, str]) -> Path:
    """Find a secret's file: relative names among systemd's credentials first."""
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    if credentials and not Path(name).is_absolute():
        file = Path(credentials) / name
        if exists(file):
            return file
    return folder / name


def _keep(
    value: str,
    key: KeyPath,
    empty: str,
    table: dict[str, Any],
    name: str,
    findings: Findings,
) -> None:
    value = value.strip()
    if not value:
        findings.mistake(key, empty, "put the secret there, or remove the key")
    elif len(value) > _MAX_SECRET or not value.isascii() or not value.isprintable():
        message = "what is there is no secret: it has several lines, or characters beyond ASCII"
        findings.mistake(key, message, "put the secret there and nothing else")
    else:
        table[name] = value
