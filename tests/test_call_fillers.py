"""A filler covers for a silence, and makes way for what was waited for."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.test_call import Scene, answer, scene, turn
from tests.test_call_plugins import Diary
from tests.test_call_plugins import scene as scene_with
from voiced import clips, wav
from voiced.config.types import Agent
from voiced.engine import EngineEvent, Ready, Reconnecting, ResponseDone, Resumed, ToolCall
from voiced.formats import PCM16_8K
from voiced.plugin import Clip, Tool
from voiced.states import CallState
from voiced.talk.patience import LOST_FILLER_S
from voiced.talk.tooling import TOOL_FILLER_S
from voiced.talk.voice import FILLER_REST_S

LONG_S = 10.0
RESUMED: list[EngineEvent] = [Resumed("e", "test-model", False, answering=True)]
LOST: list[EngineEvent] = [Reconnecting("close_1006", "gone")]


def music(folder: Path) -> Path:
    """Something long to hear."""
    path = folder / "music.wav"
    size = int(16_000 * LONG_S)
    path.write_bytes(wav.header(PCM16_8K, 1, size) + b"\x00\x10" * (size // 2))
    return path


def quiet(**more: object) -> Agent:
    return Agent(greeting="", silence_prompt_s=0, silence_hangup_s=0, **more)  # type: ignore[arg-type]


def heard_ms(s: Scene, item: str) -> int:
    return s.call.voice.playout.heard_ms(item)


async def loaded(s: Scene) -> None:
    """The agent's messages have been read, which takes a thread, and no virtual time."""
    while s.call.agent.one_moment_file and not s.call.sounds._messages:
        await trio.sleep(0.001)


async def lose(s: Scene) -> None:
    """The model is lost while it owes an answer, and a filler begins."""
    await loaded(s)
    s.model.emit(Ready(), *turn(), *LOST)
    await trio.sleep(LOST_FILLER_S + 0.1)
    assert not s.call.voice.playout.idle


@pytest.mark.parametrize("after_s", [0.2, 3.0, LONG_S - FILLER_REST_S - 0.5])
async def test_a_long_filler_makes_way_for_the_answer(
    autojump_clock: object, tmp_path: Path, after_s: float
) -> None:
    async with scene(quiet(one_moment_file=music(tmp_path))) as s:
        await lose(s)
        await trio.sleep(after_s)
        s.model.emit(*RESUMED, *answer("item_a", 1000))
        await trio.sleep(1.05)
        assert heard_ms(s, "item_a") == 1000
        assert s.at(CallState.LISTENING)


async def test_little_of_a_filler_is_heard_out(autojump_clock: object, tmp_path: Path) -> None:
    async with scene(quiet(one_moment_file=music(tmp_path))) as s:
        await lose(s)
        await trio.sleep(LONG_S - FILLER_REST_S)
        s.model.emit(*RESUMED, *answer("item_a", 1000))
        await trio.sleep(FILLER_REST_S - 0.3)
        assert heard_ms(s, "item_a") == 0
        await trio.sleep(1.5)
        assert heard_ms(s, "item_a") == 1000


@pytest.mark.parametrize("language", ["en-US", "tr-TR", "ja-JP"])
async def test_the_bundled_filler_is_heard_whole(autojump_clock: object, language: str) -> None:
    async with scene(quiet(language=language)) as s:
        await lose(s)
        s.model.emit(*RESUMED, *answer("item_a", 1000))
        await trio.sleep(3.5)
        whole = 8000 + 8 * clips.load(bundled(language)).duration_ms
        assert s.leg.bytes_played() == pytest.approx(whole, abs=160)


def bundled(language: str) -> str:
    short = language.partition("-")[0]
    return "one_moment" if short == "en" else f"one_moment_{short}"


async def test_a_tools_filler_makes_way_too(autojump_clock: object) -> None:
    async def slow(arguments: object) -> str:
        await trio.sleep(3)
        return "done"

    async with scene_with(Diary, agent=quiet()) as s:
        s.call.register_tool(Tool("slow", "Slow.", slow, filler="unavailable"))
        s.model.emit(Ready(), *turn(), ToolCall("call_1", "item_f", "slow", "{}"))
        await trio.sleep(TOOL_FILLER_S + 0.5)
        assert not s.call.voice.playout.idle
        await trio.sleep(2.5)
        s.model.emit(*answer("item_a", 1000))
        await trio.sleep(1.05)
        assert heard_ms(s, "item_a") == 1000


def clears(s: Scene) -> list[float]:
    """When the carrier's buffer is emptied, from now on."""
    times: list[float] = []
    clear = s.leg.clear

    def noted() -> int:
        times.append(trio.current_time())
        return clear()

    s.leg.clear = noted  # type: ignore[method-assign]
    return times


@pytest.mark.parametrize("whole", [False, True])
async def test_a_filler_that_is_read_behind_the_answer_is_not_heard(
    autojump_clock: object, whole: bool
) -> None:
    """The tool returns while the clip is read: nothing is left to cover for, nothing is torn."""

    async def slow(arguments: object) -> str:
        await trio.sleep(TOOL_FILLER_S + 0.1)
        return "done"

    async with scene_with(Diary, agent=quiet()) as s:
        read = s.call.clipboard._read

        async def slowly(clip: Clip) -> bytes:
            await trio.sleep(0.5)
            return await read(clip)

        s.call.clipboard._read = slowly
        torn = clears(s)
        s.call.register_tool(Tool("slow", "Slow.", slow, filler="unavailable"))
        s.model.emit(Ready(), *turn(), ToolCall("call_1", "item_f", "slow", "{}"))
        await trio.sleep(TOOL_FILLER_S + 0.2)
        told = answer("item_a", 4000)
        s.model.emit(*(told if whole else told[:20]))
        await trio.sleep(1)
        s.model.emit(*(() if whole else told[20:]))
        await trio.sleep(5)
        assert heard_ms(s, "item_a") == 4000
        assert s.leg.bytes_played() == 8 * 4000
        assert not torn
        assert s.at(CallState.LISTENING)


async def test_a_filler_that_is_over_tears_nothing(autojump_clock: object) -> None:
    """A clip of a plugin's is being heard when the answer comes: heard out, without a break."""
    async with scene_with(Diary, agent=quiet()) as s:
        s.model.emit(Ready(), *turn())
        await trio.sleep(0.1)
        s.call.voice.play_clip("one_moment", filler=True)
        await trio.sleep(2.5)
        assert s.call.voice.playout.idle
        torn = clears(s)
        s.call.voice.queue("clip:9", b"\x21" * 8 * 5000)
        await trio.sleep(1)
        s.model.emit(*answer("item_a", 1000))
        await trio.sleep(5.05)
        assert heard_ms(s, "item_a") == 1000
        assert not torn


async def test_a_filler_that_is_almost_over_is_heard_out(autojump_clock: object) -> None:
    """However much waits behind it."""
    async with scene_with(Diary, agent=quiet()) as s:
        s.model.emit(Ready(), *turn())
        await trio.sleep(0.1)
        s.call.voice.play_clip("one_moment", filler=True)
        s.call.voice.queue("clip:9", b"\x21" * 8 * 5000)
        await trio.sleep(0.2)
        torn = clears(s)
        s.model.emit(*answer("item_a", 1000))
        await trio.sleep(9)
        assert heard_ms(s, "item_a") == 1000
        assert not torn


async def test_a_stalled_answers_filler_makes_way_for_its_rest(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with scene(quiet(one_moment_file=music(tmp_path), no_answer_s=4)) as s:
        await loaded(s)
        begun = answer("item_a", 2000)
        s.model.emit(Ready(), *turn(), *begun[:4])
        await trio.sleep(6)
        assert heard_ms(s, "item_a") == 600
        s.model.emit(*begun[4:])
        await trio.sleep(1.45)
        assert heard_ms(s, "item_a") == 2000


async def test_what_is_no_filler_is_heard_out(autojump_clock: object, tmp_path: Path) -> None:
    """What a plugin has played was meant to be heard, whatever filler there was before."""
    async with scene_with(Diary, agent=quiet(one_moment_file=music(tmp_path))) as s:
        await lose(s)
        s.model.emit(*RESUMED, ResponseDone("x", "cancelled"))
        await trio.sleep(LONG_S + 1)
        playing = s.call.clipboard.play(("unavailable",))
        await trio.sleep(0.5)
        s.model.emit(*answer("item_a", 1000))
        assert await playing.heard()
        await trio.sleep(1.05)
        assert heard_ms(s, "item_a") == 1000
