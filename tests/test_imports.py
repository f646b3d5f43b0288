"""The order of imports: which part may know which (design section 3)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "voiced").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))

CARRIERS = ("voiced.twilio", "voiced.sip", "voiced.rtp")
ENGINES = ("voiced.realtime", "voiced.pipeline", "voiced.emulator")
PEERS = ("voiced.simulate",)

# What opens, accepts or drives sockets. Everything else is bytes in, events out.
NETWORK_MODULES = {"socket", "trio_websocket", "hypercorn", "quart", "quart_trio", "httpx", "dns"}
NETWORK_FILES = {"client", "endpoint", "socket", "websocket", "leg", "rest", "server", "daemon"}
NETWORK_FILES |= {"handover"}  # what the server's listener and hypercorn pass to each other
NETWORK_FILES |= {"stub_resolver"}  # asks the DNS
NETWORK_FILES |= {"notify"}  # tells the service manager, as sd_notify(3)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path, *, run_time_only: bool = True) -> Iterator[str]:
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if run_time_only and id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_carriers_and_engines_do_not_know_each_other(path: Path) -> None:
    name = name_of(path)
    for own, others in (
        (CARRIERS, ENGINES + PEERS),
        (ENGINES, CARRIERS + PEERS),
        (PEERS, CARRIERS + ENGINES),
    ):
        if within(name, own):
            assert not [module for module in imports(path) if within(module, others)]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_native_module_has_two_importers(path: Path) -> None:
    if name_of(path) not in {"voiced.audio", "voiced.frames"}:
        assert not [module for module in imports(path) if within(module, ("voiced._native",))]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_network_is_touched_where_the_name_says_so(path: Path) -> None:
    name = name_of(path)
    if path.stem in NETWORK_FILES or within(name, ("voiced.web",)):
        return
    found = {module.partition(".")[0] for module in imports(path)} & NETWORK_MODULES
    assert not found, f"{name} imports {found}"


@pytest.mark.parametrize("path", SOURCES + PLUGINS, ids=name_of)
def test_trio_alone(path: Path) -> None:
    assert not [module for module in imports(path) if within(module, ("asyncio", "anyio"))]


@pytest.mark.parametrize("path", PLUGINS, ids=name_of)
def test_plugins_come_through_the_public_door(path: Path) -> None:
    own = [module for module in imports(path) if within(module, ("voiced",))]
    assert all(within(module, ("voiced.plugin",)) for module in own)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_carriers_and_engines_know_nothing_of_plugins(path: Path) -> None:
    """What stands between plugins and calls imports the plugins' door; nothing below does."""
    if within(name_of(path), (*CARRIERS, *PEERS, "voiced.emulator", "voiced.realtime")):
        found = [m for m in imports(path) if within(m, ("voiced.plugin", "voiced.hooks"))]
        assert not found


def test_settings_are_read_without_the_plugins_code() -> None:
    """`voiced.hooks` is imported by the configuration only when a table names a plugin."""
    code = (
        "import sys; from voiced.config import load, Config; from voiced.config.render import "
        "render; render(Config()); sys.exit(bool({'voiced.hooks', 'trio'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
