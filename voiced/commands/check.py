"""`voiced check`."""

from __future__ import annotations

from pathlib import Path

import click

from voiced.commands.options import config_option, mistakes_reported
from voiced.config import Config, Loaded


@click.command("check")
@config_option
def command(config_path: Path | None) -> None:
    """Check the configuration: every mistake with its line and remedy, or what would run.

    Warnings do not make it fail.
    """
    from voiced.config import load

    with mistakes_reported(err=False):
        loaded = load(config_path)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}")
    click.echo(summary(loaded))


def summary(loaded: Loaded) -> str:
    """Say in one line what `voiced run` would do."""
    config = loaded.config
    agents = ", ".join(
        f"{name} on {agent.engine} ({config.engine[agent.engine].__struct_config__.tag})"
        for name, agent in config.agent.items()
    )
    callers = "Twilio" if config.twilio.auth_token else "loopback only, no Twilio auth token"
    scheme = "https" if config.http.tls_cert else "http"
    numbers = ", ".join(f"{number.match} -> {number.agent}" for number in config.number) or "none"
    trunks = ", ".join(f"{trunk.name} ({trunk.host})" for trunk in config.sip.trunk) or "none"
    sip = f"SIP on {', '.join(config.sip.listen)}, trunks: {trunks}; " if config.sip.listen else ""
    sources = ", ".join(map(str, loaded.sources)) or "built-in defaults"
    return (
        f"{sources}: ok; {scheme}://{config.http.listen} for {callers}; "
        f"{sip}agents: {agents}; numbers: {numbers}; journal: {_kept(config)}"
    )


def _kept(config: Config) -> str:
    days = config.daemon.journal_keep_days
    if isinstance(days, str):
        return "kept for ever"
    return f"kept {days:g} days" if days else "not kept"
