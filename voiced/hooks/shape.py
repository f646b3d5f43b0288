"""What a plugin class has to look like; everything else is refused when it is loaded.

A hook that is misspelt, not `async` or takes other arguments would never be called, or fail in the
first call: both are told to whoever starts voiced.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from voiced.plugin import Plugin, Service, Settings

__all__ = ["ASKED", "AUDIO", "HOOKS", "PROVIDERS", "overridden", "problems"]

HOOKS: Final[frozenset[str]] = frozenset(
    name
    for name, value in vars(Plugin).items()
    if not name.startswith("_") and inspect.iscoroutinefunction(value)
)
"""Every hook there is, as `voiced.plugin.Plugin` defines them."""

ASKED: Final = frozenset({"greeting", "on_digit", "on_tool_call"})
"""Hooks whose answer the call waits for."""

AUDIO: Final = frozenset({"on_caller_audio", "on_agent_audio"})

PROVIDERS: Final = ("stt", "chat", "tts", "detector")
"""Steps of a pipeline that a plugin may supply."""

_ALIKE: Final = 0.85  # of difflib: "on_speach_started" is 0.94, "fetch_greeting" 0.73


def overridden(plugin: type[Plugin]) -> frozenset[str]:
    """Name the hooks that a plugin has made its own."""
    return frozenset(name for name in HOOKS if getattr(plugin, name) is not getattr(Plugin, name))


def problems(plugin: type[Plugin]) -> Iterator[tuple[str, str]]:
    """Find what is wrong with a plugin class, each with its remedy."""
    for name, value in _members(plugin, Plugin).items():
        if name in HOOKS:
            yield from _hook(plugin, name, value)
        elif not name.startswith("_"):
            yield from _misspelt(name, value)
    yield from _arguments("__init__", plugin.__init__, Plugin.__init__)
    if not _is_subclass(plugin.Config, Settings):
        yield "Config is no settings type", "derive it from voiced.plugin.Settings"
    if _is_subclass(plugin.Service, Service):
        yield from _service(plugin.Service)
    else:
        yield "Service is no service type", "derive it from voiced.plugin.Service"
    limit: object = plugin.time_limit_s
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit <= 60:
        yield "time_limit_s is no number of seconds up to 60", "write e.g. time_limit_s = 5.0"
    yield from _providers(plugin.providers)


def _members(plugin: type, base: type) -> dict[str, Any]:
    """What the class and its bases above `base` define, before any binding."""
    found: dict[str, Any] = {}
    for each in reversed(plugin.__mro__[: plugin.__mro__.index(base)]):
        found |= vars(each)
    return found


def _hook(plugin: type[Plugin], name: str, value: object) -> Iterator[tuple[str, str]]:
    if not inspect.isfunction(value) or not inspect.iscoroutinefunction(value):
        yield f"{name} is no coroutine function", f"write async def {name}(…)"
    else:
        yield from _arguments(name, value, getattr(Plugin, name))


def _misspelt(name: str, value: object) -> Iterator[tuple[str, str]]:
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    begins = plain.startswith("on_")
    if not begins and not inspect.iscoroutinefunction(value):
        return
    meant = difflib.get_close_matches(plain, sorted(HOOKS), 1, 0.6 if begins else _ALIKE)
    if begins or meant:
        other = "begin the name of a method of your own with _"
        yield f"{name} is no hook", f"did you mean {meant[0]}? Else {other}" if meant else other


def _arguments(
    name: str, own: Callable[..., object], wanted: Callable[..., object]
) -> Iterator[tuple[str, str]]:
    """Hooks are called with positional arguments, as many as the base class names."""
    parameters = list(inspect.signature(wanted).parameters)
    try:
        inspect.signature(own).bind(*parameters)
    except TypeError:
        takes = ", ".join(str(each) for each in inspect.signature(own).parameters.values())
        yield f"{name} takes ({takes})", f"write def {name}({', '.join(parameters)})"
    except ValueError:
        return  # a signature that Python does not know, of something built in


def _service(service: type[Service]) -> Iterator[tuple[str, str]]:
    for name in ("open", "run", "close"):
        value = getattr(service, name)
        if not inspect.iscoroutinefunction(value):
            yield f"Service.{name} is no coroutine function", f"write async def {name}(self)"
        else:
            yield from _arguments(name, value, getattr(Service, name))
    yield from _arguments("Service.__init__", service.__init__, Service.__init__)


def _providers(providers: object) -> Iterator[tuple[str, str]]:
    if not isinstance(providers, Mapping):
        yield "providers is no mapping", 'write e.g. providers = {"stt": Transcriber}'
        return
    for kind, value in providers.items():
        if kind not in PROVIDERS:
            yield f"providers has the unknown step {kind!r}", f"use {', '.join(PROVIDERS)}"
        elif not callable(value):
            yield f"providers[{kind!r}] cannot be called", "name a class or a function"
        else:
            yield from _arguments(f"providers[{kind!r}]", value, _make)


def _make(settings: object, service: Service) -> None:
    """How a step is made."""


def _is_subclass(value: object, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base)
