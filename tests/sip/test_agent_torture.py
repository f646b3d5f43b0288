"""Each torture case through a user agent: the outcome that the RFC's table names."""

from __future__ import annotations

import pytest

from tests.sip.calls import Phone, quiet
from tests.sip.torture.case import Case
from tests.sip.torture.cases import CASES
from tests.sip.wire import Wire
from voiced.sip.errors import ParseError
from voiced.sip.message import parse
from voiced.sip.options import Options

SERVED = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS")  # what the table supposes


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.section}-{case.name}")
def test_outcome(case: Case) -> None:
    wire = Wire()
    version = 6 if b"IN IP6" in case.data else 4
    here, there = ("2001:db8::1", "2001:db8::9") if version == 6 else ("192.0.2.1", "192.0.2.9")
    phone = Phone(wire.node(here, name="phone"), Options(allow=SERVED))
    flow = wire.flow(phone.node, (there, 5060))
    try:
        message = parse(case.data)
    except ParseError as error:
        phone.agent.malformed(error, flow)
    else:
        phone.agent.layer.receive(message, flow)
    sent = [packet.data for packet in wire.log]
    statuses = {int(data[8:11]) for data in sent if data.startswith(b"SIP/2.0 ")}
    assert len(statuses) == len(sent) <= 1
    if case.uas:
        assert statuses & case.uas
        if case.refused is None:
            # What a refusal repeats of a malformed request could not be parsed.
            assert parse(sent[0]).to.tag
    else:
        assert not sent
    quiet(wire, phone)
