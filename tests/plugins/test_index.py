"""The index of a folder: words of many languages, and queries that are only words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voiced_plugins._index import Index, fold, match_query, passages

HOTEL = """\
# Hotel Aurora

Breakfast is served from 7 to 10 in the Garden Room.

## Parking
The garage has 40 places. A night costs 12 euros.

```
# not a heading
```

### Electric cars
Four charging stations, 22 kW each.

## Pets
Dogs are welcome; cats, too.
"""

TURKISH = """\
# Çalışma saatleri
Işıklı vitrinimiz her gün açıktır. Mağazamız hafta içi 09:00 ile 18:00 arasında hizmet verir.

# İade koşulları
Ürünler on dört gün içinde iade edilebilir. Kargo ücretsizdir.
"""

JAPANESE = """\
# 営業時間
当店の営業時間は午前九時から午後六時までです。定休日は水曜日です。

# 駐車場
駐車場は二十台分ございます。ガレージの利用は無料です。
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = tmp_path / "texts"
    (texts / "shops").mkdir(parents=True)
    (texts / "hotel.md").write_text(HOTEL, "utf-8")
    (texts / "shops" / "magaza.txt").write_text(TURKISH, "utf-8")
    (texts / "店舗.md").write_text(JAPANESE, "utf-8")
    return texts


def index_of(folder: Path, *, max_files: int = 100, max_kb: int = 64) -> Index:
    database = folder.parent / "index.sqlite"
    return Index(folder, database, max_files=max_files, max_kb=max_kb, passage_chars=400)


@pytest.fixture
def index(folder: Path) -> Iterator[Index]:
    made = index_of(folder)
    made.refresh()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("query", "file", "heading"),
    [
        ("parking", "hotel.md", "Hotel Aurora > Parking"),
        ("What does PARKING cost a night?", "hotel.md", "Hotel Aurora > Parking"),
        ("charging my car", "hotel.md", "Hotel Aurora > Parking > Electric cars"),
        ("breakfasts", "hotel.md", "Hotel Aurora"),
        ("dog", "hotel.md", "Hotel Aurora > Pets"),
        ("çalışma saatlerimiz", "shops/magaza.txt", "Çalışma saatleri"),
        ("CALISMA SAATLERI", "shops/magaza.txt", "Çalışma saatleri"),
        ("IŞIKLI", "shops/magaza.txt", "Çalışma saatleri"),
        ("iade", "shops/magaza.txt", "İade koşulları"),
        ("İADE KOŞULU", "shops/magaza.txt", "İade koşulları"),
        ("営業時間", "店舗.md", "営業時間"),
        ("営業時間は何時からですか", "店舗.md", "営業時間"),
        ("定休日", "店舗.md", "営業時間"),
        ("駐車", "店舗.md", "駐車場"),
        ("ガレージ", "店舗.md", "駐車場"),
        ("台", "店舗.md", "駐車場"),
    ],
)
def test_what_is_asked_is_found_first(index: Index, query: str, file: str, heading: str) -> None:
    found = index.search(query, 4)
    assert (found[0].file, found[0].heading) == (file, heading)


@pytest.mark.parametrize("query", ["", "?!", "xylophone", "zzzzz*", "カク"])
def test_what_is_not_there_is_not_found(index: Index, query: str) -> None:
    assert index.search(query, 4) == []


def test_no_more_is_found_than_asked_for(index: Index) -> None:
    assert len(index.search("the a is are from cars dogs breakfast", 2)) == 2


def test_what_changes_is_taken_in(folder: Path, index: Index) -> None:
    (folder / "hotel.md").write_text("# Sauna\nOpen all night.", "utf-8")
    (folder / "店舗.md").unlink()
    (folder / "new.txt").write_text("A swimming pool on the roof.", "utf-8")
    done = index.refresh()
    assert (done.changed, done.removed) == (2, 1)
    assert index.search("parking", 4) == []
    assert index.search("営業時間", 4) == []
    assert index.search("sauna", 4)[0].text == "Open all night."
    assert index.search("pool", 4)[0].file == "new.txt"
    done = index.refresh()
    assert (done.changed, done.removed) == (0, 0)


def test_an_index_is_kept_and_made_anew_when_it_is_made_otherwise(folder: Path) -> None:
    for chars, changed in ((400, 3), (400, 0), (300, 3)):
        made = Index(folder, folder.parent / "i.sqlite", max_files=9, max_kb=9, passage_chars=chars)
        assert made.refresh().changed == changed
        assert made.search("parking", 1)
        made.close()


def test_a_look_that_has_no_time_goes_on_the_next_time(folder: Path) -> None:
    made = index_of(folder)
    assert not made.refresh(within_s=0).whole
    assert made.search("parking", 1) == []
    done = made.refresh()
    assert (done.changed, done.whole) == (3, True)
    assert made.refresh(within_s=0).whole  # nothing was left to do
    made.close()


def test_what_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "a-big.txt").write_text("x" * 3000)
    (folder / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.md").write_text("secret")
    made = index_of(folder, max_files=3, max_kb=2)
    assert made.refresh().left_out == (
        "a-big.txt: larger than 2 KiB",
        "店舗.md: more than 3 files",
        "latin.txt: not UTF-8",
    )
    assert made.search("secret", 4) == []
    made.close()


def test_what_is_no_text_file_is_not_waited_for(folder: Path) -> None:
    """A pipe has no end; a name need not be UTF-8; a folder may be called like a file."""
    os.mkfifo(folder / "pipe.md")
    (folder / "folder.md").mkdir()
    (folder / "folder.md" / "inside.txt").write_text("Marzipan is sold here.")
    (folder / os.fsdecode(b"caf\xe9.md")).write_text("Coffee.")
    (folder / "loop").symlink_to(folder)
    (folder / "loop.md").symlink_to(folder / "loop.md")
    index = Index(folder, folder.parent / "i.sqlite", max_files=9, max_kb=9, passage_chars=500)
    done = index.refresh()
    assert sorted(each.partition(":")[0] for each in done.left_out) == [
        r"'caf\udce9.md'",
        "loop.md",
        "pipe.md",
    ]
    assert [one.file for one in index.search("marzipan", 5)] == ["folder.md/inside.txt"]
    index.close()


def test_links_do_not_lead_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "passwords.txt").write_text("hunter2")
    (folder / "in").symlink_to(outside)
    (folder / "link.txt").symlink_to(outside / "passwords.txt")
    made = index_of(folder)
    assert made.refresh().left_out == ("link.txt: a link to somewhere else",)
    assert made.search("hunter2", 4) == []
    made.close()


def test_folding() -> None:
    assert fold("IŞIK Işık ışık ISIK") == "isik isik isik isik"
    assert fold("İSTANBUL istanbul") == "istanbul istanbul"
    assert fold("Straße ÉCOLE") == "strasse ecole"
    assert fold("ｶﾞレージ").split() == list("ガレージ")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NASTY = st.text(alphabet="\"'*()^:-+{}[]\\ANDORNEAT ab営業ıİ", max_size=40)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("shared") / "texts"
    folder.mkdir()
    (folder / "hotel.md").write_text(HOTEL, "utf-8")
    made = index_of(folder)
    made.refresh()
    yield made
    made.close()


@given(query=TEXTS | NASTY)
def test_any_query_is_only_words(shared: Index, query: str) -> None:
    shared.search(query, 4)  # sqlite3.OperationalError where its syntax got through
    match = match_query(query)
    assert match is None or len(match.split(" OR ")) <= 32


@given(text=TEXTS | NASTY)
def test_what_was_written_is_found_by_its_own_words(text: str) -> None:
    match = match_query(text)
    if match is None:
        return
    connection = sqlite3.connect(":memory:")
    connection.execute(
        "CREATE VIRTUAL TABLE t USING fts5 (x, tokenize='unicode61 remove_diacritics 0')"
    )
    connection.execute("INSERT INTO t VALUES (?)", (fold(text),))
    found = connection.execute("SELECT count(*) FROM t WHERE t MATCH ?", (match,)).fetchone()
    connection.close()
    assert found in ((1,), (0,))
    if text.isascii():
        assert found == (1,)


LINES = ["# A", "## B", "word " * 30, "", "営業" * 90, "```", "x" * 700, "."]


@settings(max_examples=150)
@given(
    st.lists(
        st.sampled_from(["# A", "## B", "word " * 30, "", "営業" * 90, "```", "x" * 700, "."])
    ),
    st.integers(100, 500),
)
def test_passages_hold_all_words_and_none_is_too_long(lines: list[str], most: int) -> None:
    text = "\n".join(lines)
    found = list(passages("f", text, most))
    assert all(0 < len(one.text) <= most for one in found)
    headings = {"# A", "## B"}
    fenced, kept = False, ""
    for line in lines:
        fenced ^= line.startswith("```")
        kept += "" if line in headings and not fenced else "".join(line.split())
    assert "".join("".join(one.text.split()) for one in found) == kept


def test_a_look_that_is_ended_keeps_whole_files_alone(folder: Path) -> None:
    """Wherever it is ended; the next one takes in the rest."""
    steps, ended = 0, True
    while ended:
        database = folder.parent / f"{steps}.sqlite"
        made = Index(folder, database, max_files=100, max_kb=64, passage_chars=400)
        left = steps

        def check() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        ended = False
        try:
            made.refresh(check=check)
        except KeyboardInterrupt:
            ended = True
        whole = made.refresh()
        assert made.refresh().changed == 0
        assert whole.passages == 8
        assert [one.heading for one in made.search("駐車", 4)] == ["駐車場"]
        made.close()
        steps += 1
    assert steps > 10
