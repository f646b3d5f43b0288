"""From files to a checked configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from voiced.config import schema
from voiced.config.agents import check_agents
from voiced.config.document import Document, read
from voiced.config.engines import check_engines
from voiced.config.findings import Findings
from voiced.config.listeners import check_listeners
from voiced.config.mistakes import ConfigError, KeyPath, Mistake
from voiced.config.paths import DROP_INS, find
from voiced.config.plugins import check_plugins, check_providers
from voiced.config.resolve import STEPS, resolve
from voiced.config.trunks import check_sip
from voiced.config.types import Config

__all__ = ["Loaded", "load"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that voiced can run with."""

    config: Config
    sources: tuple[Path, ...]
    """The files it came from, in the order in which they were laid over each other; may be none."""
    warnings: tuple[Mistake, ...]


def load(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    again: bool = False,
) -> Loaded:
    """Read and check the configuration: `path`, or else where `paths.find` looks.

    Drop-ins (`conf.d/*.toml` beside the main file, in the order of their names) are laid over it
    key by key. Without any file the defaults answer every number on the emulator. What is read
    `again` has to be a file: a pipe has nothing left to say, which would be those defaults.

    Raises ConfigError with every mistake of all files.
    """
    environ = os.environ if environ is None else environ
    document, warnings = _read_all(*find(path, environ), again)
    findings = Findings(document)
    findings.warnings += warnings
    valid = schema.check(findings)
    resolve(valid, findings, environ)
    supplied = check_plugins(valid, findings, environ)
    config = schema.convert(valid, document.folder)
    check_listeners(config, findings)
    check_sip(config, findings)
    check_engines(config, findings)
    check_providers(config, supplied, findings)
    check_agents(config, findings)
    if findings.mistakes:
        raise ConfigError(_in_order(findings.mistakes, document))
    _privacy(config, findings)
    return Loaded(config, tuple(document.files), _in_order(findings.warnings, document))


def _read_all(main: Path, named: bool, again: bool) -> tuple[Document, list[Mistake]]:
    document = Document(folder=main.parent)
    warnings: list[Mistake] = []
    mistakes: list[Mistake] = []
    files = [main] if named or os.path.lexists(main) else []
    try:
        drop_ins = sorted((main.parent / DROP_INS).glob("*.toml"))
    except (OSError, ValueError):  # a folder that may not be read holds none for us
        drop_ins = []
    for file in [*files, *drop_ins]:
        try:
            piped = named and file is main and not again
            warnings += document.lay_over(read(file, piped=piped))
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:  # what the other files say means little without these
        raise ConfigError(mistakes)
    return document, warnings


def _privacy(config: Config, findings: Findings) -> None:
    """Warn of secrets in a file that every user of the machine may read."""
    paths: list[KeyPath] = [("twilio", "auth_token"), ("twilio", "auth_token_secondary")]
    paths += [("admin", "token")]
    paths += [("engine", name, "api_key") for name in config.engine]
    paths += [("engine", name, step, "api_key") for name in config.engine for step in STEPS]
    paths += [("sip", "trunk", index, "password") for index in range(len(config.sip.trunk))]
    if config.plugins:
        from voiced.hooks.tables import secret_names  # which imports this package

        for name, places in secret_names(config).items():
            paths += [("plugins", name, *place) for place in sorted(places, key=str)]
    for path in paths:
        file = findings.document.place(path).file
        if not findings.written(path) or file is None:
            continue
        try:
            mode = file.stat().st_mode
        except OSError:
            continue
        if mode & 0o004:
            remedy = f"chmod 640 {file}, or use {path[-1]}_file"
            findings.warn(path, "every user of this machine can read this secret", remedy)


def _in_order(mistakes: list[Mistake], document: Document) -> tuple[Mistake, ...]:
    """Sort by file, then by line."""
    order = {file: index for index, file in enumerate(document.files)}

    def place(mistake: Mistake) -> tuple[int, int]:
        return (-1 if mistake.file is None else order[mistake.file], mistake.line or 0)

    return tuple(sorted(mistakes, key=place))
