"""Folders that others may write to, and names that callers choose."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from voiced_plugins import _papers
from voiced_plugins._disk import make_folder, open_new, open_regular
from voiced_plugins._keeping import sweep
from voiced_plugins._shelf import SEALED, fill, mend, places, recordings, wrong_pattern
from voiced_plugins._wavfile import WavFile, repair, wav_call_of

from voiced.plugin import PCM16_8K

CALL = "00112233445566aa"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def recording(path: Path) -> Path:
    file = WavFile(path, PCM16_8K, 1, CALL)
    file.write(bytes(800))
    file.close()
    return path


def test_no_folder_is_everybodys(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        make_folder(tmp_path / "a" / "b" / "c")
        os.close(open_new(tmp_path / "d" / "e" / "f.wav"))
        recording(tmp_path / "+15550199" / "2026-11-21" / "a.wav")
    finally:
        os.umask(before)
    for each in ("a", "a/b", "a/b/c", "d", "d/e", "+15550199", "+15550199/2026-11-21"):
        assert mode(tmp_path / each) == 0o750
    assert mode(tmp_path / "d/e/f.wav") == 0o640


def test_only_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"here")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"here"
    for name in ("pipe", "link", "missing", "."):
        for write in (False, True):
            with pytest.raises(OSError, match=str(tmp_path)):
                open_regular(tmp_path / name, write=write)


def test_others_pipes_and_links_hold_nothing_up(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", recording(tmp_path / "elsewhere.wav")
    folder.mkdir()
    for name in ("a.wav", "a.part.wav", f"a.wav{SEALED}", "a.jsonl", "a.txt"):
        os.mkfifo(folder / name)
        (folder / f"l{name}").symlink_to(elsewhere)
    os.truncate(elsewhere, elsewhere.stat().st_size - 100)
    before = elsewhere.read_bytes()
    assert list(mend(folder, keep=True)) == []
    assert sweep(recordings(folder), folder, older_than_s=0, max_bytes=None, now=0).files == 0
    assert sweep(_papers.papers(folder), folder, older_than_s=0, max_bytes=None, now=0).files == 0
    assert elsewhere.read_bytes() == before


@given(st.binary(max_size=300), st.integers(0, 200))
def test_no_content_of_a_file_stops_a_start(tail: bytes, cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = recording(folder / "a.part.wav")
        content = path.read_bytes()[:cut] + tail
        path.write_bytes(content)
        wav_call_of(content)
        with open_regular(path, write=True) as file:
            repair(file.fileno())
        path.write_bytes(content)
        list(mend(folder, keep=True))


def test_nothing_stays_of_a_file_that_could_not_be_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes, at: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        WavFile(tmp_path / "+15550199.part.wav", PCM16_8K, 1, CALL)
    assert list(tmp_path.iterdir()) == []


def test_a_paper_that_could_not_be_begun_holds_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    open_before = open_files()
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        _papers.Paper(tmp_path, "a", b'{"voiced":"transcript",}\n')
    assert list(tmp_path.iterdir()) == []
    assert open_files() == open_before


def test_where_nothing_is_kept_the_clock_does_not_matter(tmp_path: Path) -> None:
    """It was set back since."""
    path = recording(tmp_path / "a.wav")
    paper = _papers.Paper(tmp_path, "a", b'{"voiced":"transcript",}\n')
    paper.close()
    for each in (path, paper.path):
        os.utime(each, (2_000_000_000, 2_000_000_000))
    for found in (recordings(tmp_path), _papers.papers(tmp_path)):
        assert sweep(found, tmp_path, older_than_s=0, max_bytes=None, now=1_700_000_000).files == 1


def test_what_is_written_is_not_swept(tmp_path: Path) -> None:
    """By the sweep of another daemon, or of a service that a reload has replaced."""
    paper = _papers.Paper(tmp_path, "a", b'{"voiced":"transcript",}\n')
    for kept in (True, False):
        if not kept:
            paper.close()
        found = _papers.papers(tmp_path)
        sweep(found, tmp_path, older_than_s=0, max_bytes=0, now=4_000_000_000.0)
        assert paper.path.exists() == kept


@given(st.text(), st.text(), st.text())
@example("x.part", "", "")
@example("x" * 200 + ".part", "", "")
def test_no_caller_makes_a_name_that_cannot_be_or_is_never_removed(
    caller: str, called: str, agent: str
) -> None:
    pattern = "{agent}-{called}-{caller}-{call_id}/{call_id}{caller}"
    assert not list(wrong_pattern(pattern))
    facts = {"caller": caller, "called": called, "agent": agent, "call_id": CALL}
    name = fill(pattern, facts, 0)
    place = next(places(Path("folder"), name, f".wav{SEALED}"))
    for part in place.part.parts:
        assert len(part.encode()) <= 255
    assert not place.final.name.removesuffix(SEALED).endswith(".part.wav")


def test_a_caller_cannot_keep_a_recording_from_being_removed(tmp_path: Path) -> None:
    facts = {"caller": "x.part", "call_id": CALL}
    place = next(places(tmp_path, fill("{call_id}-{caller}", facts, 0), ".wav"))
    recording(place.part).rename(place.final)
    assert sweep(recordings(tmp_path), tmp_path, older_than_s=0, max_bytes=None, now=0).files == 1


def test_a_long_name_is_cut(tmp_path: Path) -> None:
    long = {"caller": "1" * 300, "called": "2" * 300, "agent": "3" * 64, "call_id": CALL}
    name = fill("{caller}-{called}-{agent}-{call_id}", long, 0)
    recording(next(places(tmp_path, name, f".wav{SEALED}")).part)
