"""What an operator names is read where it is a file; nothing else is waited for."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from voiced.config import ConfigError, load
from voiced.regular import open_regular, read_file
from voiced.wav import WavError
from voiced.wav import read as read_wav

PATIENCE_S = 5.0

PLUGIN = """
from __future__ import annotations
from pathlib import Path
from typing import Annotated
from voiced.plugin import Checked, Plugin, Settings

class Config(Settings, frozen=True):
    names: Annotated[Path, Checked(Path.read_text)]
    token: str | None = None
    token_file: Path | None = None
    token_env: str | None = None

class Mine(Plugin):
    Config = Config
"""


def at_once(function: Callable[[], object]) -> None:
    """Run it in a thread that may be left behind; raises what it raises, or AssertionError."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "it waits"
    if raised:
        raise raised[0]


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (os.mkfifo, "it is a named pipe, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
        (a_socket, "it is a socket, not a file"),
        (Path.mkdir, "Is a directory"),
        (lambda path: None, "No such file or directory"),
    ],
)
def test_what_is_no_file_is_refused_at_once(
    make: Callable[[Path], None], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    make(Path("x.wav"))
    with pytest.raises(OSError, match=why):
        at_once(lambda: read_file(Path("x.wav"), 10))
    with pytest.raises(WavError, match=f"^cannot be read: {why}$"):
        at_once(lambda: read_wav(Path("x.wav")))


def test_what_took_a_file_s_place_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "x")
    monkeypatch.setattr("voiced.regular.check_regular", lambda path: None)
    before = len([*Path("/proc/self/fd").iterdir()])
    with pytest.raises(OSError, match="named pipe"):
        at_once(lambda: open_regular(tmp_path / "x"))
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_a_file_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"0123456789")
    link.symlink_to(file)
    assert read_file(link, 10) == b"0123456789"
    with pytest.raises(OSError, match="it is larger than 9 bytes"):
        read_file(file, 9)
    with pytest.raises(OSError, match="null"):
        read_file(Path("a\0b"), 9)


NAMED = {
    "agent.reception.greeting_files": '[agent.reception]\ngreeting_files = ["pipe"]',
    "agent.reception.instructions_file": '[agent.reception]\ninstructions_file = "pipe"',
    "agent.reception.unavailable_file": '[agent.reception]\nunavailable_file = "pipe"',
    "agent.reception.one_moment_file": '[agent.reception]\none_moment_file = "pipe"',
    "agent.reception.still_there_file": '[agent.reception]\nstill_there_file = "pipe"',
    "agent.reception.farewell_file": '[agent.reception]\nfarewell_file = "pipe"',
    "admin.token_file": '[admin]\ntoken_file = "pipe"',
    "twilio.auth_token_file": '[twilio]\nauth_token_file = "pipe"',
    "http.tls_cert": '[http]\ntls_cert = "pipe"\ntls_key = "voiced.toml"',
    "http.tls_key": '[http]\ntls_key = "pipe"\ntls_cert = "voiced.toml"',
    "sip.ca_file": '[sip]\nca_file = "pipe"',
    "engine.far.ca_file": '[engine.far]\nkind = "realtime"\nca_file = "pipe"',
    "engine.far.api_key_file": '[engine.far]\nkind = "realtime"\napi_key_file = "pipe"',
    "plugins.prompts.open.files": '[plugins.prompts]\nopen = { files = ["pipe"] }',
    "plugins.recorder.announcement": '[plugins.recorder]\nannouncement = "pipe"',
    "plugins.recorder.encrypt_to": '[plugins.recorder]\nencrypt_to = "pipe"',
    "plugins.mine.names": '[daemon]\nplugin_dir = "own"\n[plugins.mine]\nnames = "pipe"',
    "plugins.mine.token_file": (
        '[daemon]\nplugin_dir = "own"\n[plugins.mine]\nnames = "voiced.toml"\ntoken_file = "pipe"'
    ),
}


@pytest.mark.parametrize("key", NAMED)
def test_a_pipe_in_place_of_a_file_is_a_mistake_of_its_key(key: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.py").write_text(PLUGIN, "utf-8")
    main = tmp_path / "voiced.toml"
    main.write_text(NAMED[key], "utf-8")
    with pytest.raises(ConfigError) as caught:
        at_once(lambda: load(main, environ={}))
    text = f"{tmp_path}/pipe cannot be read: it is a named pipe, not a file"
    found = {str(mistake) for mistake in caught.value.mistakes if text in str(mistake)}
    assert [mistake for mistake in found if f"{key}: " in mistake.replace("[0]", "")]


def test_a_pipe_among_the_drop_ins_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "voiced.toml").touch()
    (tmp_path / "conf.d").mkdir()
    os.mkfifo(tmp_path / "conf.d" / "more.toml")
    with pytest.raises(ConfigError, match="named pipe"):
        at_once(lambda: load(tmp_path / "voiced.toml", environ={}))


def test_the_main_file_may_come_from_a_command(tmp_path: Path) -> None:
    """`voiced check -c <(command)`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    written = threading.Thread(target=pipe.write_text, args=("[daemon]\nmax_calls = 7\n",))
    written.start()
    at_once(lambda: load(pipe, environ={}))
    written.join(PATIENCE_S)
