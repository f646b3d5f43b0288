"""Transcripts of real calls, as files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st
from voiced_plugins import _papers
from voiced_plugins._keeping import sweep
from voiced_plugins.transcript import Transcript, Transcripts, TranscriptSettings

from tests.plugins.standin import standing_in
from voiced.engine import CallerTranscript
from voiced.plugin import Host, Line, Summary, Words
from voiced.testing import Scene, call_with, virtual_time


class Patient(Transcripts):
    """The clock of tests waits for threads that are counted here, and for no others."""

    def __init__(self, config: TranscriptSettings, host: Host) -> None:
        super().__init__(config, host)
        self.limiter = trio.to_thread.current_default_thread_limiter()


class OnTheClock(Transcript):
    Service = Patient


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def the(folder: Path, suffix: str) -> Path:
    (found,) = folder.rglob(f"*{suffix}")
    return found


async def conversation(scene: Scene) -> Summary:
    await scene.agent_says("Günaydın, こんにちは。")
    await scene.caller_says("İyi günler!")
    with trio.move_on_after(1.0):
        await scene.agent_says("One two three four five six seven eight.", 4000)
    await scene.caller_says("Stop.")
    await scene.hang_up()
    return scene.summary


@virtual_time
async def test_both_sides_are_written_as_said_and_as_heard(tmp_path: Path) -> None:
    settings = {"folder": str(tmp_path), "caller_label": "Arayan", "agent_label": "応答"}
    async with call_with(OnTheClock, settings) as call:
        summary = await conversation(call)
        facts = call.facts
    jsonl, text = the(tmp_path, ".jsonl"), the(tmp_path, ".txt")
    assert (facts["transcript_jsonl"], facts["transcript_text"]) == (str(jsonl), str(text))
    assert jsonl.stem == text.stem
    first, *words, last = lines_of(jsonl)
    assert (first["type"], first["call_id"], first["caller"]) == (
        "call",
        summary.call_id,
        "+15550199",
    )
    assert [(each["role"], each["text"], each["cut"]) for each in words[:3]] == [
        ("agent", "Günaydın, こんにちは。", False),
        ("caller", "İyi günler!", False),
        ("agent", "One two three four five six seven eight.", False),
    ]
    cut = [each for each in words if each["cut"]]
    assert [each["item_id"] for each in cut] == [words[2]["item_id"]]
    assert words[2]["text"].startswith(cut[0]["text"])
    times = [each["at_ms"] for each in words]
    assert times == sorted(times)
    assert 900 <= times[1] <= 2200
    assert (last["type"], last["reason"]) == ("end", "caller_hangup")
    heard = [(each["role"], each["text"], each["cut"]) for each in last["heard"]]
    assert heard == [(each.role, each.text, each.cut) for each in summary.transcript]
    assert text.read_text("utf-8").splitlines()[4:] == [
        "応答: Günaydın, こんにちは。",
        "Arayan: İyi günler!",
        f"応答: {cut[0]['text']} —",
        "Arayan: Stop.",
    ]
    assert text.stat().st_mode & 0o777 == jsonl.stat().st_mode & 0o777 == 0o640


@virtual_time
async def test_a_line_is_on_the_disk_while_the_call_lasts(tmp_path: Path) -> None:
    async with call_with(OnTheClock, {"folder": str(tmp_path), "format": "jsonl"}) as call:
        await call.caller_says("Now.")
        await call.until(lambda: list(tmp_path.rglob("*.jsonl")))
        assert [each["type"] for each in lines_of(the(tmp_path, ".jsonl"))] == ["call", "words"]
        await call.hang_up()
    assert not list(tmp_path.rglob("*.txt"))


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paper = _papers.Paper(tmp_path, "a", b'{"voiced":"transcript",}\n')
    real, left = os.write, [7]

    def nearly_full(fd: int, data: memoryview) -> int:
        if not left:
            raise OSError(28, "No space left on device")
        return real(fd, data[: left.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", nearly_full)
        with pytest.raises(OSError, match="No space"):
            paper.append(b'{"type":"words"}\n')
    assert paper.path.read_bytes() == b'{"voiced":"transcript",}\n'
    paper.append(b"{}\n")
    paper.close()
    assert paper.path.read_bytes() == b'{"voiced":"transcript",}\n{}\n'


@pytest.mark.parametrize("pieces", [True, False])
@virtual_time
async def test_pieces_of_sentences_are_a_setting(tmp_path: Path, pieces: bool) -> None:
    async with call_with(OnTheClock, {"folder": str(tmp_path), "pieces": pieces}) as call:
        for piece in ("It ", "is ", "me"):
            call.model.emit(CallerTranscript("item", piece, final=False))
        await call.settle()
        call.model.emit(CallerTranscript("item", "It is me", final=True))
        await call.hang_up()
    words = [each for each in lines_of(the(tmp_path, ".jsonl")) if each["type"] == "words"]
    said = [(each["text"], each["final"]) for each in words]
    assert said[-1] == ("It is me", True)
    assert said[:-1] == [("It ", False), ("is ", False), ("me", False)] * pieces


@virtual_time
async def test_nothing_said_is_no_file(tmp_path: Path) -> None:
    async with call_with(OnTheClock, {"folder": str(tmp_path)}) as call:
        await call.press("123#")
        await call.hang_up()
        assert call.facts == {}
    assert list(tmp_path.rglob("*.*")) == []


@virtual_time
async def test_a_text_alone(tmp_path: Path) -> None:
    async with call_with(OnTheClock, {"folder": str(tmp_path), "format": "text"}) as call:
        await call.caller_says("a\x1b[2Jb\nc")
        await call.press("4321")
        await call.hang_up()
    assert not list(tmp_path.rglob("*.jsonl"))
    text = the(tmp_path, ".txt").read_text("utf-8")
    assert text.endswith("\nCaller: a\ufffd[2Jb c\n")
    assert "4321" not in text


@virtual_time
async def test_nothing_stays_with_keep_days_0(tmp_path: Path) -> None:
    async with call_with(OnTheClock, {"folder": str(tmp_path), "keep_days": 0}) as call:
        await call.caller_says("Secret.")
        await call.until(lambda: list(tmp_path.rglob("*.jsonl")))
        await call.hang_up()
        assert call.facts == {}
    assert list(tmp_path.iterdir()) == []


async def test_a_file_is_bounded_but_has_its_end(tmp_path: Path) -> None:
    settings = {"folder": str(tmp_path), "max_mb": 1}
    with structlog.testing.capture_logs() as logs:
        async with call_with(OnTheClock, settings) as call:
            for number in range(40):
                text = f"{number:02}" * 15_000
                call.model.emit(CallerTranscript(f"item_{number}", text, final=True))
                await call.settle()
            await call.hang_up()
    lines = lines_of(the(tmp_path, ".jsonl"))
    assert 30 < len(lines) < 40
    assert lines[-1]["type"] == "end"
    assert len([each for each in logs if each["event"] == "transcript is full"]) == 1
    assert the(tmp_path, ".txt").stat().st_size <= 2**20


@virtual_time
async def test_a_disk_that_refuses_is_said_once_and_hurts_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    with structlog.testing.capture_logs() as logs:
        async with call_with(OnTheClock, {"folder": str(folder)}) as call:
            folder.rmdir()
            folder.write_text("no folder any more")
            await call.caller_says("One.")
            await call.caller_says("Two.")
            await call.hang_up()
            assert call.facts == {}
    said = [each for each in logs if each["event"] == "transcript not written"]
    assert len(said) == 2  # the lines, and the text at the end


async def test_what_is_no_unicode_is_written_all_the_same(tmp_path: Path) -> None:
    settings = TranscriptSettings(folder=tmp_path)

    class House:
        name = "transcript"
        state_dir = tmp_path

    service = Transcripts(settings, House())  # type: ignore[arg-type]
    await service.open()
    async with standing_in() as call:
        plugin = Transcript(call, settings, service)
        await plugin.on_transcript(Words("caller", "i", "a\udc80b", True))
        # The call's beginning, as in the names of what other plugins write of it.
        assert the(tmp_path, ".jsonl").match("*/2023-11-14/221320-*.jsonl")
        line = Line("caller", "a\udc80b", False)
        await plugin.on_call_end(
            Summary("aa", "done", 0.0, 1.0, 1000, 900, (), {}, {}, None, (line,), {})
        )
    assert lines_of(the(tmp_path, ".jsonl"))[1]["text"] == "a?b"
    assert "Caller: a\ufffdb" in the(tmp_path, ".txt").read_text("utf-8")


KILLED = """
import os, signal, sys
from pathlib import Path
from voiced_plugins._papers import Paper
paper = Paper(Path(sys.argv[1]), "x/killed", b'{"voiced":"transcript","type":"call"}\\n')
for number in range(50):
    paper.append(b'{"type":"words","n":%d}\\n' % number)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_all_lines_are_there_after_a_kill(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert ran.returncode == -signal.SIGKILL
    found = the(tmp_path, ".jsonl")
    assert [each.get("n") for each in lines_of(found)] == [None, *range(50)]
    removed = sweep(
        _papers.papers(tmp_path), tmp_path, older_than_s=0, max_bytes=None, now=time.time() + 1
    )
    assert removed.files == 1
    assert list(tmp_path.iterdir()) == []


# ---- clean-up ----

FIRST = b'{"voiced":"transcript","type":"call"}\n'


def test_a_clean_up_leaves_what_is_written_and_what_is_others(tmp_path: Path) -> None:
    live = _papers.Paper(tmp_path, "live", FIRST)
    over = _papers.Paper(tmp_path, "over", FIRST)
    over.close()
    text = _papers.write_text(tmp_path, "over", b"Transcript of call aa\n")
    again = _papers.write_text(tmp_path, "over", b"Transcript of call bb\n")
    assert again.name == "over-2.txt"
    others = [tmp_path / "notes.txt", tmp_path / "data.jsonl"]
    for each in others:
        each.write_text("mine")
    removed = sweep(
        _papers.papers(tmp_path), tmp_path, older_than_s=0, max_bytes=None, now=time.time() + 1
    )
    assert removed.files == 3
    assert sorted(tmp_path.iterdir()) == sorted([live.path, *others])
    assert not text.exists()
    live.close()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 400)), max_size=8), st.integers(0, 9))
def test_the_oldest_go_until_the_rest_fits(files: list[tuple[int, int]], days: int) -> None:
    import tempfile

    now = time.time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept: list[tuple[float, int]] = []
        for number, (age, size) in enumerate(files):
            paper = _papers.Paper(folder, f"d{number}/x", FIRST)
            paper.append(b"x" * size)
            paper.close()
            at = now - age * 86400 - number
            os.utime(paper.path, (at, at))
            kept.append((at, paper.size))
        sweep(_papers.papers(folder), folder, older_than_s=days * 86400, max_bytes=800, now=now)
        left = sorted(
            (each.stat().st_mtime, each.stat().st_size) for each in folder.rglob("*.jsonl")
        )
        young = sorted(each for each in kept if each[0] > now - days * 86400)
        while sum(size for _, size in young) > 800:
            young.pop(0)
        assert [size for _, size in left] == [size for _, size in young]
        assert all(any(each.iterdir()) for each in folder.iterdir())
