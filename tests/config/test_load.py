"""Where the configuration comes from, how files are joined, and what bad files do."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from voiced.config import ConfigError, Mistake, load, paths
from voiced.config.document import MAX_BYTES
from voiced.config.types import (
    DEFAULT_GREETING,
    DEFAULT_INSTRUCTIONS,
    Agent,
    Config,
    EmulatorEngine,
    Number,
)


@pytest.fixture(autouse=True)
def _no_system_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "DEFAULT_PATH", tmp_path / "etc" / "voiced.toml")


def written(folder: Path, text: str, name: str = "voiced.toml") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    return file


def mistake_of(path: Path) -> tuple[int | None, str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    (mistake,) = caught.value.mistakes
    assert mistake.file == path
    return mistake.line, f"{mistake.message}; {mistake.remedy}"


def test_without_any_file_the_defaults_answer_every_number_on_the_emulator() -> None:
    loaded = load(environ={})
    assert loaded.config == Config()
    assert loaded.config.engine == {"offline": EmulatorEngine()}
    assert loaded.config.agent["reception"].greeting == DEFAULT_GREETING
    assert loaded.config.number == (Number(match="*", agent="reception"),)
    assert loaded.sources == ()
    assert loaded.warnings == ()


def test_the_option_comes_before_the_variable_and_that_before_etc(tmp_path: Path) -> None:
    system = written(tmp_path / "etc", "daemon.max_calls = 1\n")
    variable = written(tmp_path, "daemon.max_calls = 2\n", "variable.toml")
    option = written(tmp_path, "daemon.max_calls = 3\n", "option.toml")
    environ = {"VOICED_CONFIG": str(variable)}
    assert load(option, environ=environ).config.daemon.max_calls == 3
    assert load(environ=environ).config.daemon.max_calls == 2
    assert load(environ={"VOICED_CONFIG": ""}).config.daemon.max_calls == 1
    assert load(environ={}).sources == (system,)


def test_drop_ins_are_laid_over_key_by_key_in_the_order_of_their_names(tmp_path: Path) -> None:
    main = written(tmp_path, '[daemon]\nmax_calls = 1\nlog_level = "debug"\ndrain_s = 1\n')
    late = written(tmp_path, "daemon.max_calls = 3\n", "conf.d/20.toml")
    early = written(tmp_path, "[daemon]\nmax_calls = 2\ndrain_s = 2\n", "conf.d/10.toml")
    written(tmp_path, "not TOML", "conf.d/30.txt")
    loaded = load(main, environ={})
    assert loaded.sources == (main, early, late)
    daemon = loaded.config.daemon
    assert (daemon.max_calls, daemon.drain_s, daemon.log_level) == (3, 2, "debug")


def test_drop_ins_stand_alone_where_there_is_no_main_file(tmp_path: Path) -> None:
    drop_in = written(tmp_path, "daemon.max_calls = 3\n", "etc/conf.d/a.toml")
    assert load(environ={}).sources == (drop_in,)


def test_mistakes_name_the_file_they_are_in(tmp_path: Path) -> None:
    main = written(tmp_path, '[daemon]\nmax_calls = 0\nlog_level = "x"\n[agent.a]\nengine = "n"\n')
    drop_in = written(tmp_path, "\n\n[daemon]\nmax_calls = -1\nnone = 1\n", "conf.d/a.toml")
    with pytest.raises(ConfigError) as caught:
        load(main, environ={})
    assert [(m.file, m.line, m.key) for m in caught.value.mistakes] == [
        (main, 3, "daemon.log_level"),
        (main, 5, "agent.a.engine"),
        (drop_in, 4, "daemon.max_calls"),
        (drop_in, 5, "daemon.none"),
    ]


def test_files_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    main = written(tmp_path, "[")
    drop_in = written(tmp_path, "=", "conf.d/a.toml")
    with pytest.raises(ConfigError) as caught:
        load(main, environ={})
    assert [(m.file, m.line) for m in caught.value.mistakes] == [(main, 1), (drop_in, 1)]


def test_a_drop_in_that_replaces_number_blocks_is_warned_of(tmp_path: Path) -> None:
    main = written(tmp_path, '[agent.a]\n[[number]]\nmatch = "+1"\nagent = "a"\n' * 1)
    drop_in = written(tmp_path, '[[number]]\nmatch = "*"\nagent = "a"\n', "conf.d/a.toml")
    loaded = load(main, environ={})
    assert loaded.config.number == (Number(match="*", agent="a"),)
    (warning,) = loaded.warnings
    assert (warning.file, warning.line, warning.key) == (drop_in, 1, "number")
    assert f"replaces all 1 of {main}" in warning.message


def test_left_out_tables_are_filled_in_where_one_answer_makes_sense(tmp_path: Path) -> None:
    main = written(
        tmp_path,
        '[engine.m]\nkind = "realtime"\nserver = "other"\nurl = "ws://127.0.0.1"\n'
        '[agent.sales]\ngreeting_text = "Hello"\ninstructions = "Sell."\n',
    )
    config = load(main, environ={}).config
    assert list(config.engine) == ["m"]
    assert config.agent["sales"] == Agent(engine="m", greeting_text="Hello", instructions="Sell.")
    assert config.number == (Number(match="*", agent="sales"),)


def test_an_agent_may_name_the_emulator_without_a_table_for_it(tmp_path: Path) -> None:
    main = written(
        tmp_path,
        '[engine.m]\nkind = "realtime"\nserver = "other"\n[agent.a]\nengine = "offline"\n',
    )
    config = load(main, environ={}).config
    assert config.engine["offline"] == EmulatorEngine()
    assert config.agent["a"].instructions == DEFAULT_INSTRUCTIONS


def test_an_empty_greeting_waits_for_the_caller(tmp_path: Path) -> None:
    agent = load(written(tmp_path, 'agent.a.greeting = ""'), environ={}).config.agent["a"]
    assert (agent.greeting, agent.greeting_text, agent.greeting_files) == ("", None, ())


def test_transcription_is_switched_off_by_name(tmp_path: Path) -> None:
    file = written(tmp_path, 'agent.a.transcription_model = "off"')
    assert load(file, environ={}).config.agent["a"].transcription_model is None


def test_instructions_are_read_from_their_file_beside_the_main_file(tmp_path: Path) -> None:
    main = written(tmp_path, "")
    written(tmp_path, 'agent.a.instructions_file = "texts/a.txt"', "conf.d/a.toml")
    text = written(tmp_path, "Sei freundlich. Größe!\n", "texts/a.txt")
    agent = load(main, environ={}).config.agent["a"]
    assert agent.instructions == "Sei freundlich. Größe!\n"
    assert agent.instructions_file == text


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, '[daemon]\nstate_dir = "state"\n')
    monkeypatch.chdir(tmp_path)
    assert load(Path("voiced.toml"), environ={}).config.daemon.state_dir == tmp_path / "state"


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "none.toml"
    line, text = mistake_of(file)
    assert (line, text) == (None, f"there is no such file; write one with: voiced init {file}")


def test_a_folder_is_one_line(tmp_path: Path) -> None:
    assert mistake_of(tmp_path) == (None, "is a folder; name the TOML file in it")


def test_a_loop_of_links_and_an_impossible_name_are_one_line_each(tmp_path: Path) -> None:
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    assert mistake_of(loop)[1].startswith("cannot be read: ")
    assert mistake_of(tmp_path / "a\0b")[1].startswith("cannot be read: ")
    assert mistake_of(tmp_path / ("a" * 300))[1].startswith("cannot be read: ")


def test_a_forbidden_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied")

    file = written(tmp_path, "")
    monkeypatch.setattr(Path, "open", refuse)
    assert mistake_of(file)[1].startswith("cannot be read: permission denied; let the user")


def test_bad_utf_8_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "voiced.toml"
    file.write_bytes(b"# one\n# caf\xe9\n")
    assert mistake_of(file) == (2, "is not UTF-8: byte 0xe9; save the file as UTF-8")


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "voiced.toml"
    file.write_bytes(b"\xef\xbb\xbfdaemon.max_calls = 7\r\n")
    assert load(file, environ={}).config.daemon.max_calls == 7


def test_what_was_piped_in_is_not_read_again() -> None:
    """As in `-c <(command)`: at a reload the pipe is empty, and no agent is meant to vanish."""
    reader, writer = os.pipe()
    try:
        os.write(writer, b"daemon.max_calls = 7")
        os.close(writer)
        path = Path(f"/dev/fd/{reader}")
        assert load(path, environ={}).config.daemon.max_calls == 7
        with pytest.raises(ConfigError, match="it is a named pipe, not a file"):
            load(path, environ={}, again=True)
    finally:
        os.close(reader)


def test_a_file_that_is_much_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "voiced.toml"
    with file.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    assert mistake_of(file) == (None, "is larger than 4 MiB; name a TOML file")


def test_nesting_beyond_reason_is_a_mistake(tmp_path: Path) -> None:
    file = written(tmp_path, "a = " + "[" * 100_000)
    assert mistake_of(file)[1].startswith("arrays or tables are nested too deep; ")


# fmt: off
KEYS = st.sampled_from([
    "daemon", "http", "twilio", "engine", "agent", "number", "price", "kind", "match", "a", "b",
    "max_calls", "listen", "public_url", "tls_cert", "tls_key", "trusted_proxies", "headers",
    "auth_token", "auth_token_secondary_env", "api_key", "api_key_file", "api_key_env", "url",
    "model", "server", "faults",
    "turn_detection", "greeting", "greeting_files", "instructions_file", "language", "threshold",
    "silence_prompt_s", "silence_hangup_s", "ca_file", "state_dir", "plugins", "plugin",
    "plugin_dir", "recorder", "dtmf", "menu", "keys", "folder", "fallback_engine", "stt", "chat",
    "tts", "provider", "rate", "transfer_when_lost", "cost", "day_usd", "call_usd",
]) | st.text(max_size=4)
# fmt: on
LEAVES = (
    st.sampled_from(
        [
            "realtime",
            "emulator",
            "pipeline",
            "server_vad",
            "recorder",
            "dtmf",
            "a",
            "b",
            "*",
            "+49",
            ".",
            "",
            "\0",
        ]
    )
    | st.sampled_from(["ws://[", "http://a:b", "[::1]:1", "https://x", "/", "a\nb", "ü" * 300])
    | st.text(max_size=8)
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.booleans()
    | st.dates()
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
AGENTS = st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=5), max_size=2)
ENGINES = st.dictionaries(
    KEYS,
    st.dictionaries(KEYS, VALUES, max_size=5).map(lambda table: {"kind": "realtime", **table})
    | st.dictionaries(KEYS, VALUES, max_size=5).map(lambda table: {"kind": "pipeline", **table}),
    max_size=2,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5) | st.fixed_dictionaries(
    {"agent": AGENTS, "engine": ENGINES},
    optional={
        "http": st.dictionaries(KEYS, VALUES, max_size=5),
        "plugins": st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=5), max_size=3),
        "number": st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=3),
    },
)


def loads_or_says_why(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "voiced.toml"
        file.write_bytes(content)
        mistakes: tuple[Mistake, ...] = ()
        try:
            load(file, environ={"VOICED_TEST": "x", "CREDENTIALS_DIRECTORY": folder})
        except ConfigError as error:
            mistakes = error.mistakes or (Mistake(None, None, "", "", ""),)
    for mistake in mistakes:
        assert mistake.message
        assert mistake.remedy
        assert str(mistake).isprintable()


@given(st.binary(max_size=80))
@settings(deadline=None)  # a busy machine is no defect
def test_no_bytes_raise_anything_but_config_error(content: bytes) -> None:
    loads_or_says_why(content)


@given(DOCUMENTS)
@settings(deadline=None)  # a busy machine is no defect
def test_no_document_raises_anything_but_config_error(document: dict[str, Any]) -> None:
    loads_or_says_why(tomli_w.dumps(document).encode("utf-8", "replace"))


@pytest.mark.parametrize(
    ("setting", "module", "extra"),
    [('srtp = "optional"', "pylibsrtp", "srtp"), ('codecs = ["g722"]', "G722", "g722")],
)
def test_a_package_that_is_missing_is_said_by_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, module: str, extra: str
) -> None:
    file = tmp_path / "voiced.toml"
    trunk = f'[[sip.trunk]]\nname = "a"\nhost = "192.0.2.1"\ntransport = "tls"\n{setting}\n'
    file.write_text('[sip]\nlisten = ["udp://127.0.0.1"]\n' + trunk)
    load(file, environ={})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"needs the package {module}.*voiced\\[{extra}"):
        load(file, environ={})
