"""Words of peers that are not UTF-8, or control a terminal."""

from __future__ import annotations

import io
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest
import structlog
import trio

from voiced import log
from voiced.journal import Journal, Row
from voiced.text import encodable, printable
from voiced.web.replies import json_answer

ODD = b"a\xff\x1b\xc3\xbc".decode("utf-8", "surrogateescape")


def test_printable_and_encodable() -> None:
    assert printable(ODD) == "a\ufffd\ufffd\u00fc"
    assert printable("\r\n\x00\x7f\x9b\u2028") == "\ufffd" * 6
    assert printable("Gr\u00fc\u00dfe \U0001f600") == "Gr\u00fc\u00dfe \U0001f600"
    assert encodable(ODD) == "a?\x1b\u00fc"


def test_a_log_line_is_written_whatever_is_in_it() -> None:
    stream = io.StringIO()
    before = structlog.get_config()
    try:
        log.configure("info", "json", stream=stream)
        structlog.get_logger("voiced.test").info("it happened", why=ODD, where=Path("/x"))
    finally:
        structlog.configure(**before)
    line = json.loads(stream.getvalue().encode("utf-8"))
    assert (line["event"], line["why"]) == ("it happened", "a?\x1b\u00fc")


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("full", [True, False], ids=["full", "hung up"])
def test_a_log_line_that_cannot_be_written_ends_nothing(
    form: Literal["json", "text"], full: bool
) -> None:
    """As where the disk is full, or the terminal or who has read at a pipe's end has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    stream, told = os.fdopen(writer, "w"), False
    before = structlog.get_config()
    try:
        with suppress(OSError), Path("/dev/full").open("w") as disk:
            log.configure("info", form, stream=disk if full else stream)
            for _ in range(3):
                structlog.get_logger("voiced.test").error("it happened", why="x" * 9000)
            structlog.get_logger("voiced.test").error("it happened again")
            told = True
    finally:
        structlog.configure(**before)
        with suppress(OSError):
            stream.close()
    assert told


async def test_an_answer_to_an_operator_whatever_is_in_it() -> None:
    answer = json_answer({"text": ODD})
    assert json.loads(await answer.get_data()) == {"text": "a?\x1b\u00fc"}


async def test_a_row_is_stored_whatever_is_in_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        for number, text in enumerate((ODD, "fine")):
            journal.write(
                Row(
                    call_id=str(number),
                    carrier="sip",
                    carrier_call_id=text,
                    direction="inbound",
                    caller=text,
                    called="",
                    agent="a",
                    engine="e",
                    model="m",
                    started_at=float(number),
                    media={"text": text},
                )
            )
        journal.close()
    assert [row["caller"] for row in journal.calls()] == ["fine", "a?\x1b\u00fc"]
