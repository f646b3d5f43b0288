"""`voiced check` names every file that the plugins' settings name and that cannot be used."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.plugins.sounds import a_wav
from voiced.config import ConfigError, load
from voiced.formats import PCM16_8K
from voiced.wav import header

EVERYTHING = """\
[plugins.prompts]
open = { files = ["good.wav", "gone.wav"] }
closed = { files = ["noise.wav"], then = "transfer" }
[plugins.prompts.holiday]
files = ["empty.wav"]

[plugins.recorder]
announcement = "gone.wav"
encrypt_to = "noise.wav"

[plugins.voicemail]
announcement = "gone.wav"
goodbye = "gone.wav"
leave = { message = "folder.wav" }

[plugins.dtmf.menu.main]
prompt = "gone.wav"
wrong = "gone.wav"
[plugins.dtmf.menu.main.keys]
1 = { play = ["good.wav", "gone.wav"] }
x = { say = "x" }
2.collect = { prompt = "gone.wav", wrong = "gone.wav", then = { play = ["gone.wav"] } }
[plugins.dtmf.menu.main.otherwise]
play = ["gone.wav"]
[plugins.dtmf.menu.other]
keys = { 1 = { transfer = "home" } }

[[plugins.tools.http]]
name = "order"
description = "Where an order is."
url = "https://shop.example.net/"
filler = "gone.wav"
"""

GONE = "FOLDER/gone.wav cannot be read: No such file or directory; name a WAV file"

MISTAKES = f"""\
2: plugins.prompts.open.files: {GONE}
3: plugins.prompts.closed: target belongs to then = "transfer"; add or remove it
3: plugins.prompts.closed.files: FOLDER/noise.wav is not a WAV file; name a WAV file
5: plugins.prompts.holiday.files: FOLDER/empty.wav holds no audio; name another file
8: plugins.recorder.announcement: {GONE}
9: plugins.recorder.encrypt_to: FOLDER/noise.wav is not a PEM public key; write it with openssl \
pkey -pubout
12: plugins.voicemail.announcement: {GONE}
13: plugins.voicemail.goodbye: {GONE}
14: plugins.voicemail.leave.message: FOLDER/folder.wav cannot be read: Is a directory; name a WAV \
file
17: plugins.dtmf.menu.main.prompt: {GONE}
18: plugins.dtmf.menu.main.wrong: {GONE}
19: plugins.dtmf.menu.main.keys: "x" are no keys; write up to 16 of 0-9 * # A-D
20: plugins.dtmf.menu.main.keys.1.play: {GONE}
22: plugins.dtmf.menu.main.keys.2.collect.then.play: {GONE}
22: plugins.dtmf.menu.main.keys.2.collect.prompt: {GONE}
22: plugins.dtmf.menu.main.keys.2.collect.wrong: {GONE}
24: plugins.dtmf.menu.main.otherwise.play: {GONE}
26: plugins.dtmf.menu.other.keys.1.transfer: home is no number; write +49… or \
sip:user@host
32: plugins.tools.http.filler: {GONE}
"""


def test_every_file_that_cannot_be_used_is_named_with_its_key(tmp_path: Path) -> None:
    a_wav(tmp_path, "good.wav", 20)
    (tmp_path / "noise.wav").write_bytes(b"no sound at all")
    (tmp_path / "empty.wav").write_bytes(header(PCM16_8K, 1, 0))
    (tmp_path / "folder.wav").mkdir()
    file = tmp_path / "voiced.toml"
    file.write_text(EVERYTHING, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    said = [str(each).removeprefix(f"{file}:") for each in caught.value.mistakes]
    expected = MISTAKES.replace("FOLDER", str(tmp_path)).splitlines()
    assert said == expected


@pytest.mark.parametrize("algorithm", ["x25519", "ed25519"])
def test_the_key_that_recordings_are_sealed_to_is_looked_at(algorithm: str, tmp_path: Path) -> None:
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    make = ["openssl", "genpkey", "-algorithm", algorithm, "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    file = tmp_path / "voiced.toml"
    file.write_text('[plugins.recorder]\nencrypt_to = "public.pem"\n', "utf-8")
    if algorithm == "x25519":
        load(file, environ={})
        return
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    (mistake,) = caught.value.mistakes
    assert str(mistake) == (
        f"{file}:2: plugins.recorder.encrypt_to: {public} is not an X25519 key; "
        "make one with openssl genpkey -algorithm x25519"
    )


def test_a_table_has_all_of_its_mistakes_told(tmp_path: Path) -> None:
    file = tmp_path / "voiced.toml"
    file.write_text(
        "[plugins.webhook]\n"
        'url = "ftp://x"\n'
        "events = []\n"
        "[plugins.prompts]\n"
        'time_zone = "Mars"\n'
        'holidays = ["12-25", "Easter", "2026-02-30"]\n'
        "[plugins.prompts.hours]\n"
        'mon = ["9-17", "09:00-17:00"]\n'
        'sun = ["never"]\n'
        "[plugins.recorder]\n"
        'pattern = "{number}/{when}"\n'
        'resume_digits = "1"\n'
        "[plugins.pins]\n"
        'plugin = "recorder"\n'
        'pause_digits = "x"\n'
        "[[plugins.tools.http]]\n"
        'name = "order"\n'
        'description = "Where an order is."\n'
        'url = "https://shop.example.net/{order}"\n'
        'headers = { X-Order = "{number}" }\n'
        'extract = "status"\n',
        "utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    said = [
        str(each).removeprefix(f"{file}:").replace(" plugins.", " ", 1)
        for each in caught.value.mistakes
    ]
    fields = "{agent}, {call_id}, {called}, {caller}, {carrier}, {date}, {direction}, {time}"
    no_day = 'is no day; write "2026-12-24" or "12-25"'
    no_hours = 'are no hours; write "09:00-17:30"'
    assert said == [
        "1: webhook: there is no secret; add secret_env, or unsigned = true",
        '2: webhook.url: "ftp://x" is none; write https://host/path',
        "3: webhook.events: there are none; leave it out for the usual ones",
        f'8: prompts.hours.mon: "9-17" {no_hours}',
        f'9: prompts.hours.sun: "never" {no_hours}',
        f"11: recorder.pattern: there is no {{number}}; write {fields}",
        f"11: recorder.pattern: there is no {{when}}; write {fields}",
        "12: recorder.resume_digits: pause_digits is missing; add it, or remove this one",
        "15: pins.pause_digits: has not the form ^[0-9*#A-D]{1,8}$; voiced plugins recorder says "
        "what may stand there",
        "19: tools.http.url: {order} is no argument; there are caller, called, call_id",
        "20: tools.http.headers: {number} is no argument; there are caller, called, call_id",
        '21: tools.http.extract: "status" is no JSON Pointer; begin it with /',
    ]
    file.write_text(
        file.read_text("utf-8").replace("9-17", "0-1").replace('["0-1", ', "["), "utf-8"
    )
    file.write_text(file.read_text("utf-8").replace('sun = ["never"]\n', ""), "utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    said = [str(each).removeprefix(f"{file}:") for each in caught.value.mistakes]
    assert said[3:6] == [
        '5: plugins.prompts.time_zone: "Mars" is not known; write one like "Europe/Berlin"',
        f'6: plugins.prompts.holidays: "Easter" {no_day}',
        f'6: plugins.prompts.holidays: "2026-02-30" {no_day}',
    ]
