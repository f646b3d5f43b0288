"""One bad file per mistake: `data/*.toml`, whose first line says what must be said about it.

The line reads `# LINE: KEY | part of the message and remedy`; a file has this one mistake alone.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from voiced.config import ConfigError, load

DATA = Path(__file__).parent / "data"
FILES = sorted(DATA.glob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_bad_file_gives_one_mistake_with_its_place_and_remedy(file: Path) -> None:
    expected = re.fullmatch(r"# (\d+): ?(.*?) ?\| (.*)", file.read_text("utf-8").splitlines()[0])
    assert expected is not None
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    first = [m for m in caught.value.mistakes if m.line == int(expected[1])]
    assert len(first) == 1, str(caught.value)
    mistake = first[0]
    assert mistake.file == file
    assert mistake.key == expected[2]
    text = f"{mistake.message}; {mistake.remedy}".replace(f"{DATA}/", "")
    assert expected[3] in text
    assert mistake.remedy
    assert str(mistake).startswith(f"{file}:{expected[1]}: ")
    # The certificate and its key are both missing: two mistakes are right there.
    assert len(caught.value.mistakes) == (2 if file.stem == "tls_missing" else 1)


def test_all_mistakes_of_a_file_are_found_at_once_in_the_order_of_their_lines(
    tmp_path: Path,
) -> None:
    file = tmp_path / "voiced.toml"
    file.write_text(
        '[daemon]\nmax_call = 1\nlog_level = "loud"\n'
        '[http]\nlisten = "nowhere"\n'
        '[engine.m]\nkind = "realtime"\nurl = "http://127.0.0.1"\n'
        '[agent.a]\nengine = "n"\ngreeting_files = ["a.wav"]\nsilence_hangup_s = 3\n'
        '[[number]]\nmatch = "12"\nagent = "b"\n[[number]]\nmatch = 3\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert [(m.line, m.key) for m in caught.value.mistakes] == [
        (2, "daemon.max_call"),
        (3, "daemon.log_level"),
        (5, "http.listen"),
        (8, "engine.m.url"),
        (10, "agent.a.engine"),
        (11, "agent.a.greeting_files"),
        (12, "agent.a.silence_hangup_s"),
        (14, "number.match"),
        (15, "number.agent"),
        (16, "number"),
        (17, "number.match"),
    ]
    assert len(str(caught.value).splitlines()) == 11


def test_one_slip_gives_one_message(tmp_path: Path) -> None:
    """A value that is wrong in itself is not compared with others."""
    file = tmp_path / "voiced.toml"
    file.write_text(
        '[engine.m]\nkind = "realtime"\napi_key_file = 3\n'
        '[agent.a]\nengine = "m"\nsilence_prompt_s = "x"\nsilence_hangup_s = 2\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert [m.line for m in caught.value.mistakes] == [3, 6]


def test_a_message_is_one_printable_line_whatever_was_written(tmp_path: Path) -> None:
    file = tmp_path / "voiced.toml"
    file.write_text('[http]\nlisten = "a\\nb\\u001b[2J"\n"x\\ny" = 1\n')
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert len(str(caught.value).splitlines()) == 2
    assert all(str(mistake).isprintable() for mistake in caught.value.mistakes)
    assert "a\\nb\\x1b[2J" in str(caught.value)
