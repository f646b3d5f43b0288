"""`[plugins.*]`: checked by the plugin's own type, together with the rest of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from voiced.config import ConfigError, load
from voiced.config.render import HIDDEN, render
from voiced.plugin import Settings

PLUGIN = """
from __future__ import annotations
from pathlib import Path
from typing import Any, Literal
from msgspec import Struct, field
from voiced.plugin import Plugin, PluginError, Settings

class Target(Struct, kw_only=True):
    url: str
    token: str | None = None
    token_file: Path | None = None
    token_env: str | None = None

class Play(Struct, tag_field="do", tag="play"):
    file: Path

class Say(Struct, tag_field="do", tag="say"):
    text: str

class Config(Settings, frozen=True):
    folder: Path | None = None
    retries: int = 3
    rate: Literal[8000, 16000] = 8000
    mode: Literal["on", "off"] = "on"
    targets: list[Target] = []
    steps: dict[str, Play | Say] = {}
    pair: tuple[int, str] | None = None
    anything: dict[str, Any] = {}
    def __post_init__(self):
        if self.retries == 13:
            raise PluginError("13 retries bring bad luck; write 12 or 14")
        if self.retries == 14:
            raise ValueError("14 retries are 13 and one more")
        if self.retries == 15:
            raise KeyError("nobody expects this")

class Mine(Plugin):
    Config = Config
"""


class Hidden(Settings, frozen=True):
    token: str | None = None
    token_file: Path | None = None
    token_env: str | None = None
    other: int = 0


def written(folder: Path, text: str, plugin: str = PLUGIN) -> Path:
    (folder / "plugins").mkdir(mode=0o755, exist_ok=True)
    (folder / "plugins" / "mine.py").write_text(plugin)
    file = folder / "voiced.toml"
    file.write_text('[daemon]\nplugin_dir = "plugins"\n' + text)
    return file


def table(folder: Path, text: str, **environ: str) -> dict[str, Any]:
    return load(written(folder, text), environ=environ).config.plugins["mine"]


def test_a_table_without_keys_enables_the_plugin(tmp_path: Path) -> None:
    assert table(tmp_path, "[plugins.mine]") == {}


def test_paths_are_counted_from_the_file_and_secrets_found(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    found = table(
        tmp_path,
        '[plugins.mine]\nfolder = "rec"\npair = [1, "x"]\nanything = { a = [1, {}] }\n'
        'steps = { a = { do = "play", file = "a.wav" }, b = { do = "say", text = "a.wav" } }\n'
        '[[plugins.mine.targets]]\nurl = "a"\ntoken_file = "token"\n'
        '[[plugins.mine.targets]]\nurl = "b"\ntoken_env = "T"\n',
        T="from-env",
    )
    assert found == {
        "folder": str(tmp_path / "rec"),
        "pair": [1, "x"],
        "anything": {"a": [1, {}]},
        "steps": {
            "a": {"do": "play", "file": str(tmp_path / "a.wav")},
            "b": {"do": "say", "text": "a.wav"},
        },
        "targets": [
            {"url": "a", "token": "from-file", "token_file": str(tmp_path / "token")},
            {"url": "b", "token": "from-env", "token_env": "T"},
        ],
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[plugins.mine]\nretrys = 1", "4: plugins.mine.retrys: unknown key; did you mean ret"),
        ('[plugins.mine]\nretries = "1"', "4: plugins.mine.retries: expected a whole number, fo"),
        ("[plugins.mine]\nrate = 9000", "4: plugins.mine.rate: expected 8000 or 16000, found th"),
        ('[plugins.mine]\nmode = "of"', '4: plugins.mine.mode: expected "off" or "on", found th'),
        ("[plugins.mine]\nfolder = 3", "4: plugins.mine.folder: expected a path, found the num"),
        ('[plugins.mine]\npair = ["x", 1]', "4: plugins.mine.pair: expected `int`, got `str`; ch"),
        ("[plugins.mine]\nretries = 13", "3: plugins.mine: 13 retries bring bad luck; write 12 or"),
        ("[plugins.mine]\nretries = 14", "3: plugins.mine: 14 retries are 13 and one more; chan"),
        ("[plugins.mine]\nretries = 15", "3: plugins.mine: its settings fail with KeyError: 'nob"),
        ("[[plugins.mine.targets]]\n", '3: plugins.mine.targets: has no url; add url = "…"'),
        (
            '[[plugins.mine.targets]]\nurl = "u"\ntoken = "a"\ntoken_env = "T"',
            "6: plugins.mine.targets.token_env: is given 2 times: token, token_env; keep one of",
        ),
        (
            '[[plugins.mine.targets]]\nurl = "u"\ntoken = 12345',
            "5: plugins.mine.targets.token: expected text, found something else (not shown: it m",
        ),
        (
            '[plugins.mine.steps.a]\ndo = "pley"',
            '4: plugins.mine.steps.a.do: expected "play" or "say", found the text "pley"; did you',
        ),
        ('[plugins.menu]\nplugin = "mime"', "4: plugins.menu.plugin: there is no plugin mime; did"),
        (
            "[plugins]\nmine = 3",
            "4: plugins.mine: expected a table, found the number 3; write a [ta",
        ),
    ],
)
def test_a_mistake_has_its_line_and_remedy(tmp_path: Path, text: str, expected: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file, environ={"T": "x"})
    (mistake,) = caught.value.mistakes
    assert str(mistake).startswith(f"{file}:{expected}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[plugins.knowledge]\nfolder = "none"',
            "4: plugins.knowledge.folder: FOLDER/none is no folder; make it, or name the one",
        ),
        (
            '[plugins.knowledge]\nfolder = "voiced.toml"',
            "4: plugins.knowledge.folder: FOLDER/voiced.toml is no folder; make it, or name",
        ),
        (
            '[plugins.dtmf.menu.main.keys]\nx = { say = "x" }',
            '3: plugins.dtmf.menu.main.keys: "x" are no keys; write up to 16 of 0-9 * # A-D',
        ),
    ],
)
def test_bundled_plugins_say_what_to_do(tmp_path: Path, text: str, expected: str) -> None:
    test_a_mistake_has_its_line_and_remedy(
        tmp_path, text, expected.replace("FOLDER", str(tmp_path))
    )


def test_mistakes_of_plugins_stand_among_the_others(tmp_path: Path) -> None:
    file = written(tmp_path, "max_calls = 0\n[plugins.mine]\nretrys = 1\n[http]\nlisten = 1\n")
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert [mistake.line for mistake in caught.value.mistakes] == [3, 5, 7]


def test_two_tables_may_use_one_plugin(tmp_path: Path) -> None:
    text = '[plugins.mine]\n[plugins.other]\nplugin = "mine"\nretries = 7\n'
    config = load(written(tmp_path, text), environ={}).config
    assert config.plugins == {"mine": {}, "other": {"plugin": "mine", "retries": 7}}


@pytest.mark.parametrize("name", ["plugins", "plugins/mine.py"])
def test_a_folder_where_anybody_may_put_code_is_not_used(tmp_path: Path, name: str) -> None:
    file = written(tmp_path, "[plugins.mine]\n", "raise RuntimeError('run all the same')")
    (tmp_path / name).chmod(0o777)
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    (mistake,) = caught.value.mistakes
    assert (mistake.line, mistake.key) == (2, "daemon.plugin_dir")
    assert f"can put code into {tmp_path / name}; chmod o-w {tmp_path / name}" in str(mistake)


def test_no_plugin_is_imported_that_no_table_names(tmp_path: Path) -> None:
    file = written(tmp_path, "", "raise RuntimeError('run all the same')")
    assert load(file, environ={}).config.plugins == {}


def test_secrets_of_plugins_are_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    file = written(
        tmp_path,
        '[plugins.mine]\nanything = { headers = { X-Api-Key = "sk-3", X = "y" } }\n'
        '[[plugins.mine.targets]]\nurl = "a"\ntoken_file = "token"\n'
        '[[plugins.mine.targets]]\nurl = "b"\ntoken = "sk-1"\n',
    )
    config = load(file, environ={}).config
    assert "sk-1" not in repr(config)
    assert repr(Hidden(token="sk-1", token_file=Path("f"), other=3)) == (
        f"Hidden(token=..., token_file={Path('f')!r}, token_env=None, other=3)"
    )
    text = render(config)
    assert "sk-" not in text
    assert "from-file" not in text
    assert text.count(HIDDEN) == 2
    assert f'token_file = "{tmp_path / "token"}"' in text
    again = tmp_path / "again.toml"
    again.write_text(text)
    found = load(again, environ={}).config.plugins["mine"]["targets"]
    assert found[0] == config.plugins["mine"]["targets"][0]


def test_a_secret_that_everybody_can_read_is_warned_of(tmp_path: Path) -> None:
    file = written(tmp_path, '[[plugins.mine.targets]]\nurl = "b"\ntoken = "sk-1"\n')
    file.chmod(0o640)
    assert load(file, environ={}).warnings == ()
    file.chmod(0o644)
    (warning,) = load(file, environ={}).warnings
    assert (warning.line, warning.key) == (5, "plugins.mine.targets.token")


def test_steps_of_a_pipeline_come_from_a_plugin(tmp_path: Path) -> None:
    plugin = (
        "from voiced.plugin import Plugin\n"
        "class Step:\n    def __init__(self, settings, service): pass\n"
        'class Mine(Plugin):\n    providers = {"stt": Step, "detector": Step}\n'
    )
    pipeline = (
        '[plugins.mine]\n[engine.p]\nkind = "pipeline"\ndetector = "mine"\n'
        'stt = {{ provider = "mine" }}\nchat = {{ provider = "emulator" }}\n'
        'tts = {{ provider = "{tts}" }}\n'
    )
    load(written(tmp_path, pipeline.format(tts="emulator"), plugin), environ={})
    file = written(tmp_path, pipeline.format(tts="mine"), plugin)
    with pytest.raises(ConfigError, match=r"9: engine.p.tts.provider: the plugin mine supplies no"):
        load(file, environ={})
