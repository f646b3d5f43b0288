"""Checks of `plugin_dir` and `[plugins.*]`, and of the engines' steps that plugins supply.

What a plugin's own table may hold the plugin says, through `voiced.hooks`; that imports this
package, and is imported here when a file names a plugin.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from voiced.config.files import code_files, is_folder
from voiced.config.findings import Findings
from voiced.config.mistakes import KeyPath
from voiced.config.resolve import STEPS
from voiced.config.schema import close_match
from voiced.config.types import Config, PipelineEngine

__all__ = ["check_plugins", "check_providers"]

_OWN: Final = ("openai", "emulator")
"""Providers that every step of a pipeline has."""

Supplied = Mapping[str, frozenset[str]]
"""By `[plugins.NAME]`, the steps of a pipeline that the plugin supplies."""


def check_plugins(
    valid: dict[str, Any], findings: Findings, environ: Mapping[str, str]
) -> Supplied:
    """Check and complete the plugins' tables in `valid`. No code is run from an unsafe folder."""
    written = valid.get("daemon", {}).get("plugin_dir")
    folder = None if written is None else (findings.document.folder / written).absolute()
    if folder is not None and not _is_safe(folder, ("daemon", "plugin_dir"), findings):
        return {}
    tables = valid.get("plugins")
    if not tables or not findings.sound(("daemon", "plugin_dir")):
        return {}
    from voiced import hooks

    usable = hooks.check_plugins(tables, folder, findings, environ)
    return {name: frozenset(plugin.providers) for name, plugin in usable.items()}


def check_providers(config: Config, supplied: Supplied, findings: Findings) -> None:
    """Check that each step of each pipeline is done by somebody."""
    for name, engine in config.engine.items():
        if not isinstance(engine, PipelineEngine):
            continue
        path: KeyPath = ("engine", name)
        for step in STEPS:
            provider = getattr(engine, step).provider
            _provider((*path, step, "provider"), step, provider, _OWN, supplied, findings)
        own = ("energy",)
        _provider((*path, "detector"), "detector", engine.detector, own, supplied, findings)


def _provider(
    path: KeyPath,
    step: str,
    name: str,
    own: tuple[str, ...],
    supplied: Supplied,
    findings: Findings,
) -> None:
    if name in own or step in supplied.get(name, ()):
        return
    if name in supplied:
        message = f"the plugin {name} supplies no {step}"
    elif findings.written(("plugins", name)):
        return  # that table has its own mistake
    else:
        message = f"there is no {name}"
    known = [*own, *(each for each, steps in supplied.items() if step in steps)]
    meant = close_match(name, known)
    remedy = f"did you mean {meant}?" if meant else f"use one of: {', '.join(known)}"
    findings.mistake(path, message, remedy)


def _is_safe(folder: Path, key: KeyPath, findings: Findings) -> bool:
    """Say whether `folder` is one, and only its owner and group may write what runs from it."""
    if not is_folder(folder):
        findings.mistake(key, f"{folder} is no folder", "make it, or remove the key")
        return False
    try:
        code = [folder, *code_files(folder)]
        open_to_all = [each for each in code if each.stat().st_mode & stat.S_IWOTH]
    except OSError as error:
        message = f"{folder} cannot be read: {(error.strerror or str(error)).lower()}"
        findings.mistake(key, message, "correct the path, or let voiced's user read the folder")
        return False
    if open_to_all:
        message = f"every user of this machine can put code into {open_to_all[0]}"
        findings.mistake(key, message, f"chmod o-w {open_to_all[0]}")
    return not open_to_all
