"""Checks of `[agent.*]` and `[[number]]`: who answers, and with what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from msgspec import UNSET

from voiced import wav
from voiced.config.engines import last_day
from voiced.config.findings import Findings
from voiced.config.mistakes import KeyPath, key_name
from voiced.config.numbers import covers, is_pattern, normalised
from voiced.config.schema import close_match
from voiced.config.types import GIVE_UP, Agent, Config, EngineConfig, PipelineEngine, RealtimeEngine

__all__ = ["check_agents"]

_MESSAGES: Final = ("unavailable_file", "one_moment_file", "still_there_file", "farewell_file")
_LANGUAGE = re.compile(r"auto|[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")  # ISO 639, or RFC 5646 around it


def check_agents(config: Config, findings: Findings) -> None:
    """Check every agent and every number."""
    for name, agent in config.agent.items():
        path: KeyPath = ("agent", name)
        _engine(path, agent, config, findings)
        _instructions(path, findings)
        _greeting(path, agent, findings)
        _silence(path, agent, findings)
        if not _LANGUAGE.fullmatch(agent.language):
            message = f'"{agent.language}" is no language code'
            findings.mistake((*path, "language"), message, 'write e.g. "en", "tr" or "auto"')
        for key in _MESSAGES:
            if (file := getattr(agent, key)) is not None:
                _wav((*path, key), file, findings)
        _fallback(path, agent, config, findings)
    _numbers(config, findings)


def _engine(path: KeyPath, agent: Agent, config: Config, findings: Findings) -> None:
    engine = config.engine.get(agent.engine)
    if engine is None:
        _no_engine((*path, "engine"), agent.engine, config, findings)
    elif isinstance(engine, RealtimeEngine) and engine.server in ("openai", "azure"):
        model = agent.transcription_model
        # What follows the default inside a voice session is not known yet: warn of a choice alone.
        chosen = findings.written((*path, "transcription_model"))
        if model is not None and chosen and (end := last_day(model)):
            message = f"{model} has its last day on {end[0]}; transcripts end with it"
            remedy = f'then use "{end[1]}", or "off"'
            findings.warn((*path, "transcription_model"), message, remedy)
    for key, silent_s in _silences(agent.engine, engine):
        patience_s = GIVE_UP * agent.no_answer_s
        if silent_s >= patience_s:
            own = (*path, "no_answer_s")
            where = key if findings.written(key) else own
            message = (
                f"calls end after {patience_s:g} s without an answer, before a model that is "
                f"silent for {silent_s:g} s is replaced"
            )
            remedy = f"keep {key_name(key)} below {GIVE_UP} times no_answer_s"
            if findings.sound(key, own):
                findings.warn(where, message, remedy)


def _silences(name: str, engine: EngineConfig | None) -> Iterator[tuple[KeyPath, float]]:
    """The settings that say after how many seconds without a sign of life an engine is lost."""
    if isinstance(engine, RealtimeEngine):
        yield ("engine", name, "silent_s"), engine.silent_s
    elif isinstance(engine, PipelineEngine):
        steps = {"stt": engine.stt, "chat": engine.chat, "tts": engine.tts}
        slowest = max(steps, key=lambda step: steps[step].timeout_s)
        yield ("engine", name, slowest, "timeout_s"), steps[slowest].timeout_s


def _no_engine(path: KeyPath, name: str, config: Config, findings: Findings) -> None:
    if not findings.written(("engine", name)):  # else that table has its own mistake
        known = findings.names("engine") or list(config.engine)
        findings.mistake(path, f"there is no [engine.{name}]", _choice(name, known))


def _fallback(path: KeyPath, agent: Agent, config: Config, findings: Findings) -> None:
    """Check what happens to callers when the engine is lost."""
    key = (*path, "fallback_engine")
    if agent.fallback_engine is not None:
        if agent.fallback_engine not in config.engine:
            _no_engine(key, agent.fallback_engine, config, findings)
        elif agent.fallback_engine == agent.engine:
            remedy = "name another engine, or remove the key"
            findings.mistake(key, f"{agent.engine} is the engine that was lost", remedy)
    target = agent.transfer_when_lost
    if target is not None and (target.endswith("*") or not is_pattern(target)):
        remedy = 'write "+4930…" with the country code, or "sip:…"'
        findings.mistake((*path, "transfer_when_lost"), f'"{target}" is no number', remedy)


def _instructions(path: KeyPath, findings: Findings) -> None:
    if all(findings.written((*path, key)) for key in ("instructions", "instructions_file")):
        message = "there are instructions as well"
        findings.mistake((*path, "instructions_file"), message, "keep one of the two")


def _greeting(path: KeyPath, agent: Agent, findings: Findings) -> None:
    keys = ("greeting", "greeting_text", "greeting_files")
    given = [key for key in keys if findings.written((*path, key))]
    if len(given) > 1:
        message = f"the greeting is given {len(given)} times: {', '.join(given)}"
        findings.mistake((*path, given[-1]), message, "keep one of them")
    if agent.greeting_text is not None and not agent.greeting_text.strip():
        remedy = 'write the words, or greeting = "" to wait for the caller'
        findings.mistake((*path, "greeting_text"), "is empty", remedy)
    for index, file in enumerate(agent.greeting_files):
        _wav((*path, "greeting_files", index), file, findings)


def _wav(path: KeyPath, file: Path, findings: Findings) -> None:
    try:
        content = wav.read(file)
    except wav.WavError as error:
        message, _, remedy = str(error).partition("; ")
        findings.mistake(path, f"{file} {message}", remedy or "name a WAV file")
    else:
        if not content.data:
            findings.mistake(path, f"{file} holds no audio", "name another file")


def _silence(path: KeyPath, agent: Agent, findings: Findings) -> None:
    prompt, hangup = agent.silence_prompt_s, agent.silence_hangup_s
    keys = ((*path, "silence_prompt_s"), (*path, "silence_hangup_s"))
    if prompt and hangup and prompt >= hangup and findings.sound(*keys):
        key = keys[0] if findings.written(keys[0]) else keys[1]
        message = f"silence_prompt_s ({prompt:g}) is not below silence_hangup_s ({hangup:g})"
        remedy = "ask before hanging up, or set one of them to 0 for never"
        findings.mistake(key, message, remedy)


def _numbers(config: Config, findings: Findings) -> None:
    written = findings.document.data.get("number")
    if written is not None and not isinstance(written, list):
        return  # a mistake already
    if not config.number and findings.sound(("number",)):
        findings.warn(("number",), "there is none, so no call is answered", "add a [[number]]")
    # Blocks that lack something are no longer in `config`; the others keep their places.
    places = [index for index, block in enumerate(written or ()) if _is_whole(block)]
    if written is None:
        places = list(range(len(config.number)))
    agents = findings.names("agent") or list(config.agent)
    trunks = ["twilio", *(trunk.name for trunk in config.sip.trunk)]
    before: list[str] = []
    for index, number in zip(places, config.number, strict=True):
        path: KeyPath = ("number", index)
        if number.agent not in agents:
            message = f"there is no [agent.{number.agent}]"
            findings.mistake((*path, "agent"), message, _choice(number.agent, agents))
        if not is_pattern(number.match):
            message = f'"{number.match}" is no number'
            remedy = 'write "+4930…" with the country code, "sip:…", a prefix "+4930*", or "*"'
            findings.mistake((*path, "match"), message, remedy)
            continue
        for earlier in before:
            if covers(earlier, number.match):
                same = normalised(earlier) == normalised(number.match)
                message = (
                    f'"{number.match}" stands in an earlier block'
                    if same
                    else f'never reached: "{earlier}" above matches it first'
                )
                remedy = "remove one of them" if same else "move this block above that one"
                findings.warn((*path, "match"), message, remedy)
                break
        if number.caller is not UNSET and not is_pattern(number.caller):
            message = f'"{number.caller}" is no number'
            remedy = 'write "+4930…" with the country code, "sip:…", a prefix "+49*", or "*"'
            findings.mistake((*path, "caller"), message, remedy)
        if number.plugins is not UNSET:
            _plugins((*path, "plugins"), number.plugins, findings)
        if number.trunk is not UNSET and number.trunk not in trunks:
            message = f'there is no [[sip.trunk]] with the name "{number.trunk}"'
            findings.mistake((*path, "trunk"), message, _choice(number.trunk, trunks))
        if number.caller is UNSET and number.trunk is UNSET and not number.headers:
            before.append(number.match)


def _plugins(path: KeyPath, names: tuple[str, ...], findings: Findings) -> None:
    known = findings.names("plugins")
    for index, name in enumerate(names):
        if name not in known:
            remedy = _choice(name, known) if known else f"add [plugins.{name}]"
            findings.mistake((*path, index), f"there is no [plugins.{name}]", remedy)
        elif name in names[:index]:
            findings.mistake((*path, index), f"{name} stands there twice", "remove one")


def _is_whole(block: object) -> bool:
    return (
        isinstance(block, dict)
        and isinstance(block.get("match"), str)
        and isinstance(block.get("agent"), str)
    )


def _choice(name: str, known: Iterable[str]) -> str:
    meant = close_match(name, known)
    return f"did you mean {meant}?" if meant else f"use one of: {', '.join(known)}"
