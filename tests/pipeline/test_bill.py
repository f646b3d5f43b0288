"""What an answer of a pipeline is billed, as far as its server tells."""

from __future__ import annotations

import pytest

from voiced.engine import Usage
from voiced.pipeline.bill import Bill
from voiced.pipeline.providers import Message

ASKED = [Message("system", "Be brief."), Message("user", "What time is it?")]
ESTIMATE = Usage(text_in=-(-25 // 4) + 2 * 4, text_out=3)


def answered(*told: Usage) -> Usage | None:
    bill = Bill()
    bill.ask(ASKED, ())
    bill.take("It is noon.")
    for usage in told:
        bill.take(usage)
    return bill.usage()


def test_what_the_server_tells_counts() -> None:
    assert answered(Usage(text_in=30, text_out=4)) == Usage(text_in=30, text_out=4)


@pytest.mark.parametrize("told", [(), (Usage(),)])
def test_noughts_are_estimated_like_nothing(told: tuple[Usage, ...]) -> None:
    assert answered(*told) == ESTIMATE
