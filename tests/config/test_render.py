"""`voiced config`: what comes out is what went in, but for the secrets."""

from __future__ import annotations

from pathlib import Path

from voiced.config import Config, load
from voiced.config.render import HIDDEN, render


def reloaded(tmp_path: Path, text: str, **environ: str) -> tuple[Config, Config, str]:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text(text)
    config = load(first, environ=environ).config
    second.write_text(render(config))
    return config, load(second, environ=environ).config, second.read_text("utf-8")


def test_the_defaults_come_back(tmp_path: Path) -> None:
    (tmp_path / "voiced.toml").write_text(render(Config()))
    assert load(tmp_path / "voiced.toml", environ={}).config == Config()


def test_a_full_file_comes_back(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-secret")
    (tmp_path / "text").write_text("Be brief.\n")
    before, after, text = reloaded(
        tmp_path,
        '[daemon]\nstate_dir = "s"\n[http]\npublic_url = "https://a.example"\n'
        '[twilio]\nauth_token_env = "TOKEN"\n'
        '[engine.m]\nkind = "realtime"\napi_key_file = "key"\nheaders = { A = "b" }\n'
        '[engine.e]\nkind = "emulator"\n'
        '[agent."a b"]\nengine = "m"\ninstructions_file = "text"\ngreeting = ""\n'
        'turn_detection = { kind = "semantic_vad", eagerness = "low" }\n'
        'transcription_model = "off"\n'
        '[agent.b]\nengine = "e"\ngreeting_text = "Hello\\nthere"\n'
        '[[number]]\nmatch = "+1*"\nagent = "a b"\nmax_duration_s = 9\n'
        '[price."x.y"]\nper_minute = 0.5\n',
        TOKEN="secret-token",
    )
    assert after == before
    assert "sk-secret" not in text
    assert "secret-token" not in text
    assert "Be brief" not in text  # its file is named


def test_secrets_are_hidden_wherever_they_stand(tmp_path: Path) -> None:
    _, _, text = reloaded(
        tmp_path,
        '[http]\npublic_url = "https://a.example"\n[twilio]\nauth_token = "sk-1"\n'
        'auth_token_secondary = "sk-0"\n'
        '[engine.m]\nkind = "realtime"\napi_key = "sk-2"\n'
        'url = "wss://user:sk-3@a.example/x?model=m&api_key=sk-4"\n'
        'headers = { X-Api-Key = "sk-5", Cookie = "sk-6", X-Region = "eu" }\n',
    )
    assert "sk-" not in text
    assert f'auth_token = "{HIDDEN}"' in text
    assert f'auth_token_secondary = "{HIDDEN}"' in text
    assert f"wss://{HIDDEN}@a.example/x?model=m&api_key={HIDDEN}" in text
    assert 'X-Region = "eu"' in text
