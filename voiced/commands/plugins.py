"""`voiced plugins`, `voiced plugins NAME`, `voiced plugins new NAME`."""

from __future__ import annotations

import importlib.util
import inspect
import keyword
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from voiced.commands.options import config_option

if TYPE_CHECKING:
    from voiced.config import Config
    from voiced.hooks.registry import Available
    from voiced.plugin import Plugin

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class _Plugins(click.Group):
    """What is no subcommand is a plugin's name."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or _show(cmd_name)


@click.group(
    "plugins", cls=_Plugins, invoke_without_command=True, subcommand_metavar="[NAME | new]"
)
@config_option
@click.pass_context
def command(ctx: click.Context, config_path: Path | None) -> None:
    """List the plugins that there are, or show the hooks and settings of one.

    A plugin is switched on by its table [plugins.NAME]. `voiced plugins new NAME` writes one to
    begin with, and its test.
    """
    ctx.obj = config_path
    if ctx.invoked_subcommand is None:
        _list(config_path)


@command.command("new")
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where to, instead of here; plugin_dir of the configuration is where voiced looks.",
)
def new(name: str, directory: Path) -> None:
    """Write a plugin NAME that works, and a test of it."""
    from voiced.commands.newplugin import plugin_text, test_text
    from voiced.hooks.registry import Registry

    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise click.UsageError("write a name of lower-case letters, digits and _, e.g. my_plugin")
    if any(each.kind == name for each in Registry()):
        raise click.ClickException(f"there is a plugin {name} already; choose another name")
    if (why := _why_not(name)) is not None:
        raise click.ClickException(f"{name} {why}; choose another name")
    files = {
        directory / f"{name}.py": plugin_text(name),
        directory / f"test_{name}.py": test_text(name),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in files:
            if path.exists():
                raise click.ClickException(f"{path} is there already; choose another name")
        for path, text in files.items():
            path.write_text(text, "utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"{directory} cannot be written: {reason}; name another folder"
        raise click.ClickException(message) from None
    plugin, test = files
    click.echo(f"wrote {plugin} and {test}")
    click.echo(f"next: python -m pytest {test}")
    click.echo(f'then: plugin_dir = "{directory.absolute()}" under [daemon], and [plugins.{name}]')


def _why_not(name: str) -> str | None:
    """Why no plugin may be called that, though it is a name."""
    if name == "new":
        return "is what writes one"
    if name == "conftest" or name.startswith("test_"):
        return "would be taken for a file of tests"
    if name in sys.builtin_module_names or importlib.util.find_spec(name) is not None:
        return "is a module that others import: in its folder they would find the plugin"
    return None


def _list(config_path: Path | None) -> None:
    from voiced.commands.tables import table
    from voiced.hooks.registry import Registry, Unusable
    from voiced.hooks.tables import kind_of

    config, wrong = _configuration(config_path)
    registry = Registry(None if config is None else config.daemon.plugin_dir)
    enabled: dict[str, list[str]] = {}
    for name, written in ({} if config is None else config.plugins).items():
        enabled.setdefault(kind_of(name, written), []).append(name)
    rows = []
    for each in registry:
        try:
            says = _first_line(registry.load(each.kind))
        except Unusable as error:
            says = f"cannot be used: {error}"
        rows.append((each.kind, each.source, ", ".join(enabled.get(each.kind, ())), says))
    click.echo(table(("PLUGIN", "FROM", "ENABLED AS", "WHAT IT DOES"), rows))
    if wrong:
        raise click.exceptions.Exit(1)


def _show(name: str) -> click.Command:
    @click.command(name, add_help_option=False)
    @config_option
    @click.pass_obj
    def show(before: Path | None, config_path: Path | None) -> None:
        from voiced.hooks.registry import Registry, Unusable

        config, wrong = _configuration(config_path or before)
        registry = Registry(None if config is None else config.daemon.plugin_dir)
        try:
            plugin = registry.load(name)
        except Unusable as error:
            raise click.ClickException(str(error)) from None
        found = next(each for each in registry if each.kind == name)
        click.echo(_described(found, plugin))
        if wrong:
            raise click.exceptions.Exit(1)

    return show


def _configuration(config_path: Path | None) -> tuple[Config | None, bool]:
    """Load it; with mistakes, which are said, the plugins are listed all the same."""
    from voiced.config import ConfigError, load

    try:
        return load(config_path).config, False
    except ConfigError as error:
        for mistake in error.mistakes:
            click.echo(str(mistake), err=True)
        return None, True


def _first_line(plugin: type[Plugin]) -> str:
    return _documentation(plugin).partition("\n")[0]


def _documentation(plugin: type[Plugin]) -> str:
    """A plugin is a module, so its module's words; else the class's own."""
    own = getattr(inspect.getmodule(plugin), "__doc__", None) or vars(plugin).get("__doc__")
    return inspect.cleandoc(own or "")


def _described(found: Available, plugin: type[Plugin]) -> str:
    from voiced.config.reference import rows_of, tables_below
    from voiced.hooks.shape import overridden

    lines = [f"{found.kind} ({found.source})", "", _documentation(plugin), ""]
    lines += [f"Hooks: {', '.join(sorted(overridden(plugin))) or 'none'}"]
    if plugin.providers:
        lines += [f"Steps of a pipeline: {', '.join(sorted(plugin.providers))}"]
    for title, struct in tables_below(plugin.Config, f"[plugins.{found.kind}]"):
        lines += ["", title]
        for row in rows_of(struct):
            key, value, default, meaning = (cell.replace("`", "") for cell in row)
            lines.append(f"  {key}: {value}" + (f" ({default})" if default else ""))
            lines += textwrap.wrap(meaning, 88, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)
