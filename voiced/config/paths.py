"""Where the configuration is looked for and where state is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from voiced.config.types import Config

__all__ = ["DEFAULT_PATH", "DROP_INS", "find", "state_dir"]

DEFAULT_PATH: Final = Path("/etc/voiced/voiced.toml")
SYSTEM_STATE_DIR: Final = Path("/var/lib/voiced")
DROP_INS: Final = "conf.d"
"""The folder of drop-ins, beside the main file."""


def find(path: Path | None, environ: Mapping[str, str]) -> tuple[Path, bool]:
    """Choose the main file: `path` (`-c`), `$VOICED_CONFIG`, `/etc/voiced/voiced.toml`.

    The flag says whether somebody named the file, so that it has to exist.
    """
    if path is not None:
        return path, True
    if named := environ.get("VOICED_CONFIG"):
        return Path(named), True
    return DEFAULT_PATH, False


def state_dir(config: Config, environ: Mapping[str, str] | None = None) -> Path:
    """Choose the folder for what outlives a restart; it need not exist yet.

    The file's `state_dir`; systemd's (StateDirectory=, the first if several, systemd.exec(5));
    `/var/lib/voiced` for root; else the user's (XDG Base Directory Specification 0.8).
    """
    environ = os.environ if environ is None else environ
    if config.daemon.state_dir is not None:
        return config.daemon.state_dir
    if systemd := environ.get("STATE_DIRECTORY"):
        return Path(systemd.split(":")[0])
    if os.geteuid() == 0:
        return SYSTEM_STATE_DIR
    home = environ.get("XDG_STATE_HOME", "")
    # "If an implementation encounters a relative path in any of these variables it should
    # consider the path invalid and ignore it."
    if Path(home).is_absolute():
        return Path(home) / "voiced"
    try:
        return Path.home() / ".local" / "state" / "voiced"
    except RuntimeError:  # a user of a container, without a name and a home
        return SYSTEM_STATE_DIR
