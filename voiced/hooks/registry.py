"""Which plugins there are, and the class of each; a module is imported only when it is asked for.

A plugin comes from a file in `plugin_dir`, from the entry points that installed packages declare
under `voiced.plugins`, or with voiced. Two of one name are refused: nobody could tell which runs.
"""

from __future__ import annotations

import ctypes
import importlib.util
import inspect
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Final

from voiced.config.files import code_files
from voiced.config.schema import close_match
from voiced.hooks.shape import problems
from voiced.hooks.stepping import described
from voiced.plugin import Plugin

__all__ = ["GROUP", "IMPORT_S", "Available", "Registry", "Unusable"]

GROUP: Final = "voiced.plugins"
"""Of entry points."""

IMPORT_S: Final = 10.0
"""How long importing one plugin may take: longer, and it does more than define itself."""


class Unusable(Exception):
    """A plugin that cannot be used; `reasons` are pairs of what is wrong and what to do."""

    def __init__(self, *reasons: tuple[str, str]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(f"{message}; {remedy}" for message, remedy in reasons))


@dataclass(frozen=True, slots=True)
class Available:
    """A plugin that was found, not imported yet."""

    kind: str
    """Its name."""
    source: str
    """Where it was found, for people: `bundled`, a package, or a file."""
    load: Callable[[], object]


class Registry:
    """The plugins that can be enabled."""

    def __init__(self, plugin_dir: Path | None = None) -> None:
        self._found: dict[str, list[Available]] = {}
        for each in (*_bundled(), *_entry_points(), *_files(plugin_dir)):
            self._found.setdefault(each.kind, []).append(each)

    def __iter__(self) -> Iterator[Available]:
        """All of them, by name."""
        for kind in sorted(self._found):
            yield from self._found[kind]

    def load(self, kind: str) -> type[Plugin]:
        """Import a plugin's class and check it. Raises Unusable, whatever is wrong with it."""
        found = self._found.get(kind, [])
        if not found:
            meant = close_match(kind, self._found)
            known = ", ".join(sorted(self._found)) or "none"
            remedy = f"did you mean {meant}?" if meant else f"there are: {known}"
            raise Unusable((f"there is no plugin {kind}", remedy))
        if len(found) > 1:
            places = " and ".join(each.source for each in found)
            raise Unusable((f"there are {len(found)} plugins {kind}: {places}", "rename one"))
        return checked(found[0])


def checked(available: Available) -> type[Plugin]:
    """Import what was found. Raises Unusable where it is no plugin, or one that cannot work."""
    loaded = _in_time(available.load)
    if isinstance(loaded, ModuleType):
        loaded = _only_plugin(loaded)
    if not (isinstance(loaded, type) and issubclass(loaded, Plugin)):
        name = getattr(loaded, "__name__", repr(loaded))[:80]
        raise Unusable((f"{name} is no plugin", "derive it from voiced.plugin.Plugin"))
    found = [(f"{loaded.__name__}: {message}", remedy) for message, remedy in problems(loaded)]
    if found:
        raise Unusable(*found)
    return loaded


def _bundled() -> Iterator[Available]:
    for module in pkgutil.iter_modules(import_module("voiced_plugins").__path__):
        if not module.name.startswith("_"):
            load = partial(import_module, f"voiced_plugins.{module.name}")
            yield Available(module.name, "bundled", load)


def _entry_points() -> Iterator[Available]:
    for each in entry_points(group=GROUP):
        package = each.dist.name if each.dist is not None else each.value
        yield Available(each.name, f"package {package}", each.load)


def _files(folder: Path | None) -> Iterator[Available]:
    if folder is None:
        return
    try:
        files = code_files(folder)
    except OSError:  # the check of `plugin_dir` has said so
        return
    for file in files:
        # Not a file of tests, as `voiced plugins new` writes one beside the plugin.
        if not file.name.startswith(("_", "test_", "conftest.")):
            yield Available(file.stem, str(file), partial(_import_file, file))


_files_imported: dict[Path, tuple[tuple[int, int], ModuleType]] = {}
"""One class for one text: what `voiced check` looked at is what calls get, until it changes."""


def _import_file(file: Path) -> ModuleType:
    stat = file.stat()
    stamp = (stat.st_mtime_ns, stat.st_size)
    known = _files_imported.get(file)
    if known is not None and known[0] == stamp:
        return known[1]
    name = f"voiced_plugin_dir.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError("Python does not take it for a module")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module  # where annotations are looked up
    try:
        # Not by the loader: its cache of bytecode goes by the second, and is in that folder.
        exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)  # noqa: S102
    except BaseException:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise
    _files_imported[file] = (stamp, module)
    return module


def _only_plugin(module: ModuleType) -> type[Plugin]:
    own = [
        each
        for name, each in vars(module).items()
        if isinstance(each, type)
        and issubclass(each, Plugin)
        and each.__module__ == module.__name__
        and not name.startswith("_")
    ]
    if len(own) == 1:
        return own[0]
    if not own:
        remedy = "write one class in it that derives from voiced.plugin.Plugin"
        raise Unusable(("its module defines no plugin", remedy))
    names = ", ".join(each.__name__ for each in own)
    remedy = "keep one to a module, and begin the names of base classes with _"
    raise Unusable((f"its module defines {len(own)} plugins: {names}", remedy))


def _in_time(load: Callable[[], object]) -> object:
    """Import in a thread; one that hangs is told to stop, and left behind. Raises Unusable."""
    result: list[object] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            result.append(load())
        except BaseException as error:  # also sys.exit() at the top of a module
            failed.append(error)

    thread = threading.Thread(target=work, name="plugin import", daemon=True)
    thread.start()
    thread.join(IMPORT_S)
    if failed:
        raise Unusable(_import_problem(failed[0])) from failed[0]
    if not result:
        message = f"importing it takes longer than {IMPORT_S:g} s{_stop(thread)}"
        raise Unusable((message, "work in the service's open(), not where a module is imported"))
    return result[0]


def _stop(thread: threading.Thread) -> str:
    """Have a thread that imports end, and say where it is.

    A loop in Python would take turns with the calls for as long as voiced runs. What waits for
    something else, or will not be stopped, stays; as a daemon thread it keeps nothing from ending.
    """
    frame = sys._current_frames().get(thread.ident or 0)
    place = ""
    while frame is not None:  # outwards: the plugin's own line, not one of a library that it calls
        file = frame.f_code.co_filename
        if file == __file__:
            break
        if "importlib" not in file:
            place = f" ({Path(file).name}, line {frame.f_lineno})"
        frame = frame.f_back
    # https://docs.python.org/3/c-api/init.html: raised at the thread's next step, if it makes one.
    ident = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit))
    return place


def _import_problem(error: BaseException) -> tuple[str, str]:
    text = described(error)[:300]
    if isinstance(error, SyntaxError):
        return f"is not Python: {error.msg} (line {error.lineno})", "correct the file"
    place = ""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    for frame in reversed(frames):
        if "importlib" not in frame.filename and frame.filename != __file__:
            place = f" ({Path(frame.filename).name}, line {frame.lineno})"
            break
    remedy = "correct the plugin"
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        remedy = f"install {package} for the Python that runs voiced, or correct the plugin"
    elif isinstance(error, OSError):
        remedy = "let voiced's user read the file"
    return f"cannot be imported: {text}{place}", remedy
