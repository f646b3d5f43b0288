"""Turkish and Japanese from end to end: configuration, models, callers, plugins, files.

Calls over both carriers, with both kinds of engine.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import trio

from tests.e2e.ears import find, samples
from tests.e2e.house import (
    SOON_S,
    House,
    Outcomes,
    Scenes,
    house,
    judge,
    nothing_is_left,
    played,
    until,
)
from tests.e2e.model import Conversation, engine, serve_models
from tests.e2e.test_sip_calls import address
from voiced import clips
from voiced.simulate import CallResult, Script
from voiced.simulate.script import (
    HangUp,
    Pause,
    Press,
    Say,
    SayWhileAgentSpeaks,
    Step,
    WaitForAgentSilence,
    WaitForAgentSpeech,
    WaitForHangUp,
)
from voiced.simulate.sip_caller import call as sip_call

LANGUAGES = ("tr", "ja")
LOCALES = {"tr": "tr-TR", "ja": "ja"}
NAMES = {"tr": "DANIŞMA ğüşİı", "ja": "受付 日本語"}
"""Of agents, folders and files."""
INSTRUCTIONS = {
    "tr": 'Sen "Işık Diş Kliniği"nin resepsiyonistisin.\nKısa konuş: İstanbul, ığüşöç ĞÜŞİÖÇ. 😀',
    "ja": "あなたは「日本語」の受付です。\n短く、丁寧に話してください。髙橋・𠮷野家。",
}
TELLS = {"tr": 'Arayana "şimdi" çağrı numarasını sor.', "ja": "お名前を伺ってください。𠮷"}
TOPIC = {"tr": "Çalışma saatleri", "ja": "営業時間"}
GREETED: tuple[Step, ...] = (WaitForAgentSpeech(300), WaitForAgentSilence(1800))
CUT_SLACK = 8
"""Characters by which the share of a text and the share of its audio may differ."""

scenes: Scenes[House] = Scenes()


def text_of(name: str, language: str) -> str:
    return clips.load(f"{name}_{language}").text


def number(name: str, language: str) -> str:
    return f"sip:{name}{NAMES[language].split()[0]}@*"


def agent(
    name: str, language: str, engine: str, more: str = "", plugins: tuple[str, ...] = ()
) -> str:
    """An agent whose name, number and words are in its language; TOML takes JSON's strings."""
    quoted = partial(json.dumps, ensure_ascii=False)
    table = quoted(f"{name} {NAMES[language]}")
    if "greeting" not in more:
        more = f"greeting_text = {quoted(text_of('greeting', language))}\n{more}"
    return (
        f"[agent.{table}]\nengine = {quoted(engine)}\nlanguage = {quoted(LOCALES[language])}\n"
        f"instructions = {quoted(INSTRUCTIONS[language])}\n{more}\n"
        f"[[number]]\nmatch = {quoted(number(name, language))}\nagent = {table}\n"
        f"plugins = {quoted([*plugins])}\n"
    )


def over(carrier: str, here: House, name: str, language: str, *steps: Step) -> Any:
    """Hold a call over a carrier; a SIP URI has the number's letters escaped."""
    script = Script(name, "", steps)
    called = number(name, language)
    if carrier == "twilio":
        return here.call(script, called.removeprefix("sip:").partition("@")[0])
    host, port = address(here)
    user = quote(called.removeprefix("sip:").partition("@")[0])
    return sip_call(script, uri=f"sip:{user}@{host}:{port}", deadline_s=60, codecs=("pcmu",))


async def held(
    here: House, carrier: str, name: str, language: str, *steps: Step, fact: str | None = None
) -> tuple[CallResult, dict[str, Any]]:
    """A call that goes well and its row, which has `fact`."""
    result = await over(carrier, here, name, language, *steps)
    assert (result.failure, result.violations) == (None, ())
    row = await here.row(result.call_sid)
    with trio.fail_after(SOON_S):
        while fact is not None and fact not in row["facts"]:
            await trio.sleep(0.02)
            row = await here.row(result.call_sid)
    assert row["agent"] == f"{name} {NAMES[language]}"
    return result, row


def said(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(entry["role"], entry["text"]) for entry in row["transcript"]]


PIECE = 1600
"""Samples that are looked for at a time, 200 ms: a telephone on UDP stretches what lies between."""


def scene(name: str, scenario: Callable[..., Awaitable[None]], **more: Any) -> None:
    """Add a scene; `more` are arguments of the scenario's."""
    scenes[name] = partial(scenario, **more)


async def heard(result: CallResult, clip: str) -> None:
    """The clip was heard."""
    await trio.to_thread.run_sync(find_pieces, result, clip)


def find_pieces(result: CallResult, clip: str) -> None:
    """Its pieces, but for a few that a busy machine has torn, one after the other."""
    if find(result, clip) is not None:
        return
    sound = samples(result)
    wanted = np.frombuffer(clips.load(clip).pcm, "<i2").astype(np.float64)
    pieces = [wanted[at : at + PIECE] for at in range(0, len(wanted) - PIECE + 1, PIECE)]
    loud = [piece for piece in pieces if np.sqrt(np.mean(piece**2)) > 500]
    sums = np.concatenate([[0.0], np.cumsum(sound**2)])
    energy = np.sqrt(sums[PIECE:] - sums[:-PIECE]) + 1.0
    size = 1 << (len(sound) + PIECE).bit_length()
    spectrum = np.fft.rfft(sound, size)
    found = []
    for piece in loud:
        both = np.fft.irfft(spectrum * np.conj(np.fft.rfft(piece, size)), size)[: len(energy)]
        alike = both / energy / np.sqrt(piece @ piece)
        if alike.max() > 0.9:
            found.append(int(np.argmax(alike)))
    assert len(found) >= 0.6 * len(loud), (clip, len(found), len(loud), result.lag_ms)


# ---- conversations

ASKS: tuple[str, ...] = ("hours", "recall", "thanks")


def conversation(language: str) -> list[tuple[str, str]]:
    """All that is said in one, by `ASKS`."""
    words = {name: text_of(name, language) for name in (*ASKS, "greeting", "goodbye")}
    between = "" if language == "ja" else " "
    return [
        ("agent", words["greeting"]),
        ("caller", words["hours"]),
        ("agent", text_of("opening_hours", language)),
        ("caller", words["recall"]),
        ("agent", text_of("you_asked", language) + between + words["hours"]),
        ("caller", words["thanks"]),
        ("agent", words["goodbye"]),
    ]


async def converses(here: House, carrier: str, kind: str, language: str) -> None:
    steps = [*GREETED]
    for name in ASKS:
        steps += [Say(f"{name}_{language}"), *GREETED]
    result, row = await held(
        here, carrier, kind, language, *steps, HangUp(), fact="transcript_text"
    )
    assert row["reason"] == "caller_hangup"
    assert said(row) == conversation(language)
    for clip in ("greeting", "opening_hours", "goodbye"):
        if kind == "talks":  # the other speaks at 24 kHz, a sentence at a time
            await heard(result, f"{clip}_{language}")
    kept = check_papers(row, language)
    assert kept == conversation(language)
    recording = Path(row["facts"]["recording"])
    assert recording.parent.name == NAMES[language].replace(" ", "_") + "_kayıt_録音"
    assert recording.stat().st_size == row["facts"]["recording_bytes"] > 100_000


def check_papers(row: Mapping[str, Any], language: str) -> list[tuple[str, str]]:
    """The files of the transcript: UTF-8, nothing escaped, the same words; what was heard."""
    lines = Path(row["facts"]["transcript_jsonl"]).read_text("utf-8").splitlines()
    assert "\\u" not in "".join(lines)
    first, *_, last = map(json.loads, lines)
    assert first["agent"] == row["agent"]
    text = Path(row["facts"]["transcript_text"]).read_text("utf-8")
    label = "Arayan ışık" if language == "tr" else "お客様"
    for role, words in said(row):
        assert f"{label if role == 'caller' else 'Agent'}: {words}\n" in text
    return [(each["role"], each["text"]) for each in last["heard"]]


for kind in ("talks", "legacy"):
    for language in LANGUAGES:
        for carrier in ("twilio", "sip"):
            if (kind, language, carrier) in (("legacy", "tr", "twilio"), ("legacy", "ja", "sip")):
                continue  # the rest is the same
            name = f"{kind}_{language}_{carrier}"
            scene(name, converses, carrier=carrier, kind=kind, language=language)


async def interrupts(here: House, language: str, kind: str = "talks") -> None:
    """What was heard of an answer is its beginning, at a word or, without spaces, a character."""
    steps = (*GREETED, Say(f"hours_{language}"), SayWhileAgentSpeaks("thanks_ja", 900), *GREETED)
    result, row = await held(here, "twilio", kind, language, *steps, HangUp())
    whole = text_of("opening_hours", language)
    cuts = [entry["text"] for entry in row["transcript"] if entry["cut"]]
    assert len(cuts) == 1, row["transcript"]
    (cut,) = cuts
    assert whole.startswith(cut)
    assert 0 < len(cut) < len(whole)
    (attempt,) = result.interruptions
    if attempt.cut:
        parts = [each for each in result.agent if each.cut]
        assert len(parts) == 1, result.agent
        (part,) = parts
        share = (part.end_ms - part.start_ms) / clips.load(f"opening_hours_{language}").duration_ms
        if kind == "talks":
            assert abs(len(cut) - share * len(whole)) < CUT_SLACK
    assert language == "ja" or whole[len(cut)] == " "


for language in LANGUAGES:
    scene(f"interrupted_{language}", interrupts, language=language)
scene("interrupted_legacy_ja", interrupts, language="ja", kind="legacy")


# ---- what voiced says itself


async def is_silent(here: House, carrier: str, language: str) -> None:
    """Asked and bidden farewell in the agent's language, without a word of the model."""
    result, row = await held(here, carrier, "waits", language, WaitForHangUp())
    assert row["reason"] == "caller_silence"
    await heard(result, f"still_there_{language}")
    await heard(result, f"farewell_{language}")


async def says_farewell(here: House, carrier: str, language: str) -> None:
    result, row = await held(here, carrier, "short", language, WaitForHangUp())
    assert row["reason"] == "max_duration"
    await heard(result, f"goodbye_{language}")
    assert said(row)[-1] == ("agent", text_of("goodbye", language))


async def is_unreachable(here: House, carrier: str, language: str) -> None:
    result, row = await held(here, carrier, "lost", language, WaitForHangUp())
    assert row["reason"] == "model_unreachable"
    await heard(result, f"unavailable_{language}")


async def has_its_own(here: House, carrier: str, language: str) -> None:
    """A file of the agent's wins, under whatever name."""
    result, row = await held(here, carrier, "own", language, WaitForHangUp())
    assert row["reason"] == "model_unreachable"
    await heard(result, "who")


for name, scenario in (
    ("silent", is_silent),
    ("farewell", says_farewell),
    ("unreachable", is_unreachable),
    ("own_message", has_its_own),
):
    for language, carrier in (("tr", "twilio"), ("ja", "sip")):
        scene(f"{name}_{language}", scenario, carrier=carrier, language=language)


# ---- plugins


async def presses(here: House, carrier: str, language: str) -> None:
    """A menu in the caller's language: words, a text for the model, a file of that name."""
    steps = (*GREETED, Press("1"), *GREETED, Press("2"), *GREETED, Press("3"), *GREETED, HangUp())
    result, row = await held(here, carrier, "menu", language, *steps)
    await heard(result, f"tell_me_more_{language}")
    await heard(result, "who")
    assert ("agent", text_of("tell_me_more", language)) in said(row)


async def announces(here: House, carrier: str, language: str) -> None:
    """A file, a bundled message in the agent's language by its name, a file of a hook's."""
    result, row = await held(here, carrier, "closed", language, WaitForHangUp())
    assert row["reason"] == "prompts"
    await heard(result, "who")


async def knows(here: House, carrier: str, language: str) -> None:
    """The model finds what the texts say; their names and headings are in that language."""
    steps = (*GREETED, Say(f"hours_{language}"), *GREETED, Pause(200), HangUp())
    _, row = await held(here, carrier, "knows", language, *steps)
    answer = said(row)[-1][1]
    assert f"{TOPIC[language]} {NAMES[language]}" in answer, row["transcript"]


for name, scenario in (("keys", presses), ("announced", announces), ("knowledge", knows)):
    for language, carrier in (("tr", "sip"), ("ja", "twilio")):
        scene(f"{name}_{language}", scenario, carrier=carrier, language=language)


# ---- what a server gets

got: dict[str, list[dict[str, Any]]] = {language: [] for language in LANGUAGES}


async def writes_down(session: Conversation, language: str) -> None:
    """A server that keeps what it is sent, and speaks whenever it is asked to."""
    events = got[language]
    events.clear()  # of a scene that is played again
    await session.send("session.created", session={"id": "sess_1", "type": "realtime"})
    while True:
        event = json.loads(await session.socket.get_message())
        if event["type"] != "input_audio_buffer.append":
            events.append(event)
        if event["type"] == "session.update":
            await session.send("session.updated", session=event["session"])
        elif event["type"] == "response.create":
            await session.speak()


@asynccontextmanager
async def operator(here: House) -> AsyncIterator[httpx.AsyncClient]:
    listening = next(line for line in here.logs if line["event"] == "listening")
    token = (here.state_dir / "admin.token").read_text().strip()
    async with httpx.AsyncClient(
        base_url=f"http://{listening['admin']}", headers={"Authorization": f"Bearer {token}"}
    ) as client:
        yield client


async def told(here: House, language: str) -> None:
    """Instructions, greeting, an operator's texts: to the server letter by letter."""
    done = trio.Event()
    script = Script("told", "", (*GREETED, WaitForAgentSpeech(300, 30), *GREETED, Pause(3000)))
    name = number("kept", language).removeprefix("sip:").partition("@")[0]

    async def calls() -> None:
        result = await here.call(script, name)
        assert result.failure is None, result.failure
        done.set()

    def received(kind: str) -> list[dict[str, Any]]:
        return [event for event in got[language] if event["type"] == kind]

    async with trio.open_nursery() as nursery, operator(here) as client:
        nursery.start_soon(calls)
        await until(lambda: bool(received("response.create")), "the greeting")
        await trio.sleep(1)
        live = (await client.get("/api/calls")).json()["calls"]
        (mine,) = [each for each in live if each["agent"] == f"kept {NAMES[language]}"]
        exact = text_of("opening_hours", language)
        for text, exactly in ((exact, True), (TELLS[language], False)):
            body = {"text": text, "exactly": exactly}
            answer = await client.post(f"/api/calls/{mine['id']}/say", json=body)
            assert answer.status_code == 200, answer.text
        shown = (await client.get(f"/api/calls/{mine['id']}")).content.decode()
        assert NAMES[language] in shown
        await done.wait()
    assert received("session.update")[0]["session"]["instructions"] == INSTRUCTIONS[language]
    transcription = json.dumps(received("session.update")[0])
    assert f'"language": "{language}"' in transcription
    asked = [event.get("response", {}).get("instructions") for event in received("response.create")]
    greeting = text_of("greeting", language)
    assert [text is not None and greeting in text for text in asked] == [True, False, False]
    assert exact in (asked[1] or "")
    (item,) = received("conversation.item.create")
    assert item["item"]["content"][0]["text"] == TELLS[language]


for language in LANGUAGES:
    scene(f"told_{language}", told, language=language)


# ---- the stage

HEAD = """
[engine."müşteri 音声"]
kind = "emulator"
speech = "clips"
[engine.anything]
kind = "emulator"
[engine.legacy]
kind = "pipeline"
stt = { provider = "emulator" }
chat = { provider = "emulator" }
tts = { provider = "emulator" }
[engine.gone]
kind = "emulator"
faults = { refuse_status = 503 }

[sip]
listen = ["udp://127.0.0.1:0"]
[[sip.trunk]]
name = "taşıyıcı 電話"
host = "127.0.0.1"
allow = ["127.0.0.1/32"]
"""
LABELS = {"tr": "Arayan ışık", "ja": "お客様"}
EMULATED = "müşteri 音声"


def plugins_of(folder: Path, language: str) -> str:
    """Each with names, files and texts in the language."""
    name, quoted = NAMES[language], partial(json.dumps, ensure_ascii=False)
    files = folder / name
    files.mkdir()
    who = Path(clips.__file__).parent / "who.wav"
    (files / f"{name}.wav").write_bytes(who.read_bytes())
    (files / "unrelated.md").write_text("# Parking\nBehind the house.", "utf-8")
    topic = f"# {TOPIC[language]}\n{TOPIC[language]} {name}: 08:00."
    (files / f"{name}.md").write_text(topic, "utf-8")
    wave = quoted(f"{name}/{name}.wav")
    kept = quoted(str(folder / f"{name.replace(' ', '_')}_kayıt_録音"))
    return f"""
[plugins.recorder_{language}]
plugin = "recorder"
folder = {kept}
pattern = "{{call_id}}"
[plugins.transcript_{language}]
plugin = "transcript"
folder = {quoted(f"yazı {name}")}
pattern = {quoted(name + " {called}-{agent}-{call_id}")}
caller_label = {quoted(LABELS[language])}
[plugins.knowledge_{language}]
plugin = "knowledge"
folder = {quoted(name)}
tool = "opening_hours"
[plugins.prompts_{language}]
plugin = "prompts"
hours = {{}}
closed = {{ files = [{wave}], then = "hang_up" }}
[plugins.dtmf_{language}]
plugin = "dtmf"
start = {quoted(name)}
[plugins.dtmf_{language}.menu.{quoted(name)}.keys]
1 = {{ say = {quoted(text_of("tell_me_more", language))} }}
2 = {{ tell = {quoted(TELLS[language])} }}
3 = {{ play = [{wave}] }}
"""


def agents_of(language: str) -> str:
    name, quoted = NAMES[language], partial(json.dumps, ensure_ascii=False)
    papers = (f"recorder_{language}", f"transcript_{language}")
    farewell = f"farewell_text = {quoted(text_of('goodbye', language))}"
    waits = 'greeting = ""\nsilence_prompt_s = 0.8\nsilence_hangup_s = 5.0'
    own = f"unavailable_file = {quoted(f'{name}/{name}.wav')}\nreconnect_s = 0"
    return "".join(
        (
            agent("talks", language, EMULATED, plugins=papers),
            agent("legacy", language, "legacy", plugins=papers),
            agent("waits", language, EMULATED, waits),
            agent("short", language, EMULATED, f"max_duration_s = 1.0\n{farewell}"),
            agent("lost", language, "gone", "reconnect_s = 0"),
            agent("own", language, "gone", own),
            agent("menu", language, EMULATED, plugins=(f"dtmf_{language}",)),
            agent("closed", language, EMULATED, plugins=(f"prompts_{language}",)),
            agent("knows", language, "anything", plugins=(f"knowledge_{language}",)),
            agent("kept", language, f"kept_{language}"),
        )
    )


async def afterwards(here: House) -> None:
    await nothing_is_left(here)
    wrong = [
        line
        for line in here.logs
        if line["log_level"] == "error" or (line.get("plugin") and line["log_level"] == "warning")
        if "blocked_ms" not in line  # a busy machine's doing
    ]
    assert not wrong, wrong


async def all_of_it(folder: Path) -> Outcomes:
    async with trio.open_nursery() as nursery:
        kept = {f"kept_{each}": partial(writes_down, language=each) for each in LANGUAGES}
        port = await nursery.start(serve_models, kept)
        text = HEAD + "".join(engine(name, port) for name in kept)
        text += "".join(plugins_of(folder, each) + agents_of(each) for each in LANGUAGES)
        async with house(folder, text) as here:
            outcomes = await scenes.play(here, afterwards)
        nursery.cancel_scope.cancel()
    return outcomes


outcomes = played(all_of_it, folder="diller 言語 ğüşİ")


@pytest.mark.parametrize("name", scenes.names)
def test_calls(outcomes: Outcomes, name: str) -> None:
    judge(outcomes, name)
