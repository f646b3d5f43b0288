"""The folder of recordings: names, what a crash left, what has to go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voiced_plugins._keeping import sweep
from voiced_plugins._shelf import (
    FIELDS,
    Place,
    fill,
    mend,
    places,
    recordings,
    remove,
    wrong_pattern,
)
from voiced_plugins._wavfile import WavFile

from voiced.plugin import PCM16_8K, parse_wav

CALL = "00112233445566aa"
AT = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


def facts(**more: str) -> dict[str, str]:
    return {name: name for name in FIELDS} | more


def recording(path: Path, data: bytes = bytes(800), *, close: bool = True) -> WavFile:
    file = WavFile(path, PCM16_8K, 1, CALL)
    file.write(data)
    if close:
        file.close()
    return file


def aged(path: Path, days: float, now: float = AT) -> Path:
    os.utime(path, (now - days * 86400,) * 2)
    return path


def test_names_by_pattern() -> None:
    name = fill(
        "{called}/{date}/{time}-{caller}-{call_id}",
        facts(called="sip:reception@example.net", caller="+4930123", call_id=CALL),
        AT,
    )
    assert name == f"sip_reception@example.net/2023-11-14/221320-+4930123-{CALL}"


def test_letters_of_all_scripts_stay() -> None:
    assert fill("{caller}", facts(caller="Ayşe Öztürk 山田"), AT) == "Ayşe_Öztürk_山田"


@given(st.text(), st.text())
def test_no_caller_gets_out_of_the_folder(caller: str, called: str) -> None:
    name = fill("{called}/x/{caller}", facts(caller=caller, called=called), AT)
    first, middle, last = name.split("/")
    assert middle == "x"
    for part in (first, last):
        assert part.strip(".")
        assert len(part.encode()) <= 80
        assert part.isprintable()
        assert not set(part) & set('\\:*?"<>| \t\n\0/')
        assert part[0] != "."


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("", "path below"),
        ("/{caller}", "path below"),
        ("../{caller}", "path below"),
        ("a/./b", "path below"),
        ("{caller}/", "path below"),
        ("{number}", "there is no {number}"),
        ("{}", "there is no {}"),
        ("{caller", "expected"),
        ("{caller.__class__}", "there is no"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused(pattern: str, says: str) -> None:
    (wrong,) = wrong_pattern(pattern)
    assert wrong.startswith("pattern: ")
    assert "; write " in wrong or "; none of" in wrong
    assert says in wrong


def test_a_second_of_the_name_gets_a_number(tmp_path: Path) -> None:
    first, second, *_ = places(tmp_path, "a/b", ".wav")
    assert first == Place(tmp_path / "a/b.part.wav", tmp_path / "a/b.wav")
    assert second.final == tmp_path / "a/b-2.wav"


def test_what_a_crash_left_becomes_a_recording(tmp_path: Path) -> None:
    killed = recording(tmp_path / "n/a.part.wav", b"\x01\x00" * 400, close=False)
    os.close(killed._fd)
    with (tmp_path / "n/a.part.wav").open("ab") as file:
        file.write(b"\x01\x00" * 100 + b"\x01")  # the header did not learn of these
    empty = recording(tmp_path / "n/empty.part.wav", b"", close=False)
    os.close(empty._fd)
    live = recording(tmp_path / "live.part.wav", close=False)
    (tmp_path / "foreign.part.wav").write_bytes(b"RIFF")
    found = list(mend(tmp_path, keep=True))
    assert [(each.call_id, each.path) for each in found] == [(CALL, tmp_path / "n/a.wav")]
    assert parse_wav((tmp_path / "n/a.wav").read_bytes()).data == b"\x01\x00" * 500
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.wav"))
    assert left == ["foreign.part.wav", "live.part.wav", "n/a.wav"]
    live.write(bytes(100))  # is none the worse
    live.close()


def test_nothing_of_a_crash_is_kept_where_nothing_is_kept(tmp_path: Path) -> None:
    os.close(recording(tmp_path / "a.part.wav", close=False)._fd)
    assert list(mend(tmp_path, keep=False)) == []
    assert not list(tmp_path.iterdir())


def test_old_ones_go_with_their_folders(tmp_path: Path) -> None:
    for name, days in (("a/old", 31), ("a/new", 29), ("b/old", 40)):
        recording(tmp_path / f"{name}.wav")
        aged(tmp_path / f"{name}.wav", days)
    live = recording(tmp_path / "c/live.part.wav", close=False)
    aged(tmp_path / "c/live.part.wav", 50)
    (tmp_path / "b2").mkdir()
    notes = tmp_path / "b3" / "music.wav"
    notes.parent.mkdir()
    notes.write_bytes(b"RIFF of somebody else")
    aged(notes, 100)
    swept = sweep(recordings(tmp_path), tmp_path, older_than_s=30 * 86400, max_bytes=None, now=AT)
    assert swept.files == 2
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["a", "a/new.wav", "b3", "b3/music.wav", "c", "c/live.part.wav"]
    live.close()


def test_the_oldest_go_until_the_rest_fits(tmp_path: Path) -> None:
    for days in range(5):
        recording(tmp_path / f"{days}.wav", bytes(10_000))
        aged(tmp_path / f"{days}.wav", days)
    size = (tmp_path / "0.wav").stat().st_size
    swept = sweep(recordings(tmp_path), tmp_path, older_than_s=None, max_bytes=3 * size, now=AT)
    assert (swept.files, swept.size) == (2, 2 * size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.wav", "1.wav", "2.wav"]


def test_removing_takes_empty_folders_but_not_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    recording(folder / "a/b/c.wav")
    recording(folder / "a/d.wav")
    remove(folder / "a/b/c.wav", folder)
    assert not (folder / "a/b").exists()
    remove(folder / "a/d.wav", folder)
    assert list(folder.iterdir()) == []
