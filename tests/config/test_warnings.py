"""What voiced runs with, though the operator may not want it."""

from __future__ import annotations

from pathlib import Path

import pytest

from voiced.config import load

REALTIME = '[engine.m]\nkind = "realtime"\napi_key_env = "KEY"\n'
AGENT = '[agent.a]\nengine = "m"\ntranscription_model = "off"\n'


def warnings_of(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "voiced.toml"
    file.write_text(text)
    loaded = load(file, environ={"KEY": "sk-x"})
    return [str(warning).removeprefix(f"{file}:") for warning in loaded.warnings]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            REALTIME + 'model = "gpt-realtime-2025-08-28"\n' + AGENT,
            "4: engine.m.model: gpt-realtime-2025-08-28 has its last day on 2027-01-20; "
            'use "gpt-realtime-2.1"',
        ),
        (
            REALTIME + '[agent.a]\nengine = "m"\ntranscription_model = "whisper-1"\n',
            "6: agent.a.transcription_model: whisper-1 has its last day on 2027-02-26; "
            'transcripts end with it; then use "gpt-transcribe", or "off"',
        ),
        (
            REALTIME + 'url = "ws://192.0.2.1/v1/realtime"\n' + AGENT,
            "4: engine.m.url: the API key and all calls travel to 192.0.2.1 unencrypted; "
            "use wss:// where the server offers it",
        ),
        (
            '[http]\nlisten = "0.0.0.0:8080"\n',
            "2: http.listen: others reach this address, and without an auth token they are all "
            "refused; set auth_token_file under [twilio], or listen on 127.0.0.1",
        ),
        (
            '[sip]\nlisten = ["udp://127.0.0.1"]\n',
            "2: sip.listen: no trunk is named, so every call is refused; add a [[sip.trunk]] with "
            "name and host",
        ),
        (
            '[sip]\nlisten = ["udp://127.0.0.1"]\n'
            '[[sip.trunk]]\nname = "a"\nhost = "192.0.2.1"\nsrtp = "required"\n',
            "6: sip.trunk.srtp: the keys of the audio travel in the open: transport is not tls; "
            'set transport = "tls" on this trunk',
        ),
        (
            '[admin]\nlisten = "0.0.0.0:9180"\n',
            "2: admin.listen: others reach this address, where tokens and metrics travel "
            "unencrypted; listen on 127.0.0.1 or a unix socket, behind a TLS proxy",
        ),
        (
            '[http]\npublic_url = "https://a.example"\n'
            '[twilio]\nauth_token_env = "KEY"\nvalidate_signature = false\n',
            "5: twilio.validate_signature: anybody who finds the port can make calls that you "
            "pay for; remove this key outside tests",
        ),
        (
            '[[number]]\nmatch = "+49 30 12"\nagent = "reception"\n'
            '[[number]]\nmatch = "+493012"\nagent = "reception"\n',
            '5: number.match: "+493012" stands in an earlier block; remove one of them',
        ),
        (
            '[[number]]\nmatch = "*"\nagent = "reception"\n'
            '[[number]]\nmatch = "+4930*"\nagent = "reception"\n',
            '5: number.match: never reached: "*" above matches it first; '
            "move this block above that one",
        ),
        ("number = []\n", "1: number: there is none, so no call is answered; add a [[number]]"),
        (
            '[price."gpt-realtime-3.1"]\ntext_in = 1\n',
            '1: price."gpt-realtime-3.1": no engine uses this model; '
            "correct the name, or remove the table",
        ),
        (
            REALTIME + 'model = "mine"\n' + AGENT + "[cost]\nday_usd = 10\n",
            '9: cost.day_usd: what mine costs is not known, and not counted; add a [price."mine"]',
        ),
        (
            REALTIME
            + AGENT.replace('"off"', '"ears"')
            + '[[number]]\nmatch = "*"\nagent = "a"\ncall_usd = 1\n',
            "10: number.call_usd: what ears costs is not known, and not counted; "
            'add a [price."ears"]',
        ),
        (
            '[engine.m]\nkind = "pipeline"\n[engine.m.stt]\nprovider = "emulator"\n'
            '[engine.m.chat]\nprovider = "emulator"\ntimeout_s = 12\n'
            '[engine.m.tts]\nprovider = "emulator"\n[agent.a]\nengine = "m"\n',
            "7: engine.m.chat.timeout_s: calls end after 12 s without an answer, before a model "
            "that is silent for 12 s is replaced; keep engine.m.chat.timeout_s below 3 times "
            "no_answer_s",
        ),
        (
            REALTIME + AGENT + "no_answer_s = 2.5\n",
            "7: agent.a.no_answer_s: calls end after 7.5 s without an answer, before a model that "
            "is silent for 8 s is replaced; keep engine.m.silent_s below 3 times no_answer_s",
        ),
        (
            '[engine.m]\nkind = "pipeline"\n[engine.m.stt]\nprovider = "emulator"\n'
            '[engine.m.chat]\nurl = "http://127.0.0.1:1/v1"\nmodel = "llama"\n'
            '[engine.m.tts]\nprovider = "emulator"\n[cost]\ncall_usd = 1\n',
            "11: cost.call_usd: what llama costs is not known, and not counted; "
            'add a [price."llama"]',
        ),
    ],
)
def test_a_warning_has_its_place_and_remedy(tmp_path: Path, text: str, expected: str) -> None:
    assert warnings_of(tmp_path, text) == [expected]


def test_a_good_file_has_none(tmp_path: Path) -> None:
    text = (
        '[http]\nlisten = "0.0.0.0:8080"\npublic_url = "https://a.example"\n'
        '[twilio]\nauth_token_env = "KEY"\n' + REALTIME + AGENT + "[[number]]\n"
        'match = "+4930*"\nagent = "a"\n[[number]]\nmatch = "*"\nagent = "a"\n'
        '[price."gpt-realtime-2.1"]\ntext_in = 1\n[cost]\nday_usd = 10\n'
    )
    assert warnings_of(tmp_path, text) == []
