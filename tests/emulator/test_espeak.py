"""What espeak-ng speaks: callers' lines in other voices are known, texts come in their language."""

from __future__ import annotations

import subprocess

import pytest

from voiced import clips
from voiced.emulator.answers import Line
from voiced.emulator.recognise import recognise
from voiced.emulator.speaking import Request, sound_of
from voiced.emulator.speech import Voice, _for_synthesis, _telephone
from voiced.formats import PCM16_24K

LANGUAGES = {"en": "hours", "tr": "hours_tr", "ja": "hours_ja"}


def spoken(clip: clips.Clip, variant: str, pitch: int) -> bytes:
    """The caller's line in another voice, PCM16 at 8 kHz."""
    command = ["espeak-ng", "-v", f"{clip.language}+{variant}", "-p", str(pitch), "-s", "165"]
    text = (clip.say or clip.text).encode()
    done = subprocess.run(
        [*command, "--stdin", "--stdout"], input=text, capture_output=True, check=True
    )
    return _telephone(done.stdout)


@pytest.mark.parametrize(("variant", "pitch"), [("m3", 25), ("m1", 40), ("f2", 62)])
@pytest.mark.parametrize("name", clips.names("caller"))
async def test_a_line_is_known_in_other_voices(name: str, variant: str, pitch: int) -> None:
    assert await recognise(spoken(clips.load(name), variant, pitch)) == name


@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_the_speech_endpoint_says_the_transcription_knows(language: str) -> None:
    clip = clips.load(LANGUAGES[language])
    sound = await sound_of(Request(clip.text, "alloy", wav=False), Voice("auto"))
    assert sound.format == PCM16_24K
    pcm = b"".join(sound.data[at : at + 2] for at in range(0, len(sound.data), 6))
    assert await recognise(pcm) == clip.name


@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_text_is_spoken_in_its_language(language: str) -> None:
    texts = {"en": "It rains.", "tr": "Yağmur yağıyor.", "ja": "あめが ふっています。"}
    said = await Voice("espeak").say(Line(texts[language], language), "marin", b"")
    assert said.text == texts[language]
    assert 500 < len(said.pcm) // 16 < 4000


def test_kanji_of_known_sentences_are_written_for_the_synthesiser() -> None:
    clip = clips.load("opening_hours_ja")
    assert _for_synthesis(f"はい。{clip.text}") == f"はい。{clip.say}"
    assert _for_synthesis("Hello") == "Hello"
