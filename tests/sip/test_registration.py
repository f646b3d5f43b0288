"""A registration against a registrar of the tests', for months of virtual time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sip.recorders import Side, reply
from tests.sip.test_outgoing import challenger
from tests.sip.wire import Packet, Wire
from voiced.sip.digest import Authenticator, Credentials, Verifier
from voiced.sip.message import Request, response_to
from voiced.sip.registration import Registration
from voiced.sip.transactions import ServerTransaction
from voiced.sip.transport import Target
from voiced.sip.uri import SipUri, parse_name_addr, parse_uri

CONTACT = SipUri("sip", "alice", None, "192.0.2.1", 5060)
Answer = Callable[[ServerTransaction], object]


class Net:
    def __init__(self, *, random: float = 0.5, **more: Any) -> None:
        self.wire = Wire()
        self.alice = Side(self.wire, self.wire.node("192.0.2.1", name="alice"))
        self.registrar = Side(self.wire, self.wire.node("192.0.2.9", name="registrar"))
        self.target: Sequence[Target] = [self.registrar.node.target()]
        self.look_ups = 0
        self.states: list[str] = []
        uri = parse_uri("sip:example.org")
        assert isinstance(uri, SipUri)
        more.setdefault("contact", CONTACT)
        more.setdefault("find_targets", self.find_targets)
        self.registration = Registration(
            self.alice.layer,
            registrar=uri,
            aor=parse_name_addr('"Alice" <sip:alice@example.org>'),
            random=lambda: random,
            changed=self.changed,
            **more,
        )

    def find_targets(self, found: Callable[[Sequence[Target]], None]) -> None:
        self.look_ups += 1
        found(self.target)

    def changed(self) -> None:
        if not self.states or self.states[-1] != self.registration.state:
            self.states.append(self.registration.state)

    # As methods: mypy takes an attribute to stay what an assertion has said of it.
    def state(self) -> str:
        return self.registration.state

    def registered(self) -> bool:
        return self.registration.registered

    def answer(self, answer: Answer) -> None:
        self.registrar.server.answer = answer

    def start(self, answer: Answer) -> Registration:
        self.answer(answer)
        self.registration.start()
        self.wire.run(0.1)
        return self.registration

    @property
    def requests(self) -> list[Request]:
        return [tx.request for tx in self.registrar.server.requests]

    def times(self) -> list[float]:
        """When requests arrived, since the start."""
        return [packet.at - 1000 for packet in self.wire.log if str(packet).startswith("alice>")]

    def idle_after_stop(self) -> None:
        self.registration.stop()
        self.wire.run_until_idle(100)
        assert self.state() == "unregistered"
        assert self.alice.idle
        assert len(self.wire.timers) == 0


def grant(seconds: int | None = None, *contacts: str, **more: str) -> Answer:
    """A 200 that grants the contact asked for, or names these."""

    def answer(tx: ServerTransaction) -> None:
        (asked,) = tx.request.contacts
        named = list(contacts)
        if not named and asked.expires != 0:
            life = asked.expires if seconds is None else seconds
            named = [f"<{asked.uri}>;expires={life}"]
        headers = [("Contact", contact) for contact in named]
        headers += [(name.replace("_", "-"), value) for name, value in more.items()]
        tx.respond(response_to(tx.request, 200, to_tag=tx.to_tag, headers=headers))

    return answer


def refuse(status: int, **more: str) -> Answer:
    return lambda tx: reply(tx, status, **more)


def test_registers_refreshes_and_removes_its_binding() -> None:
    net = Net(headers=[("User-Agent", "voiced")])
    registration = net.registration
    assert net.state() == "idle"
    net.start(grant(600, Service_Route="<sip:edge1;lr>, <sip:edge2;lr>"))
    assert net.states == ["registering", "registered"]
    first = net.requests[0]
    assert str(first.uri) == "sip:example.org"
    assert str(first.to) == '"Alice" <sip:alice@example.org>'
    assert first.from_.uri == first.to.uri
    assert first.from_.tag
    assert first.expires == 3600
    assert [(contact.uri, contact.expires) for contact in first.contacts] == [(CONTACT, 3600)]
    assert first.headers.get("User-Agent") == "voiced"
    assert first.supported == ("path",)
    assert net.registered()
    assert registration.expires_at == pytest.approx(1600, abs=0.1)
    assert registration.next_at == pytest.approx(1000 + 600 * 0.85, abs=0.1)
    assert [str(route) for route in registration.service_route] == [
        "<sip:edge1;lr>",
        "<sip:edge2;lr>",
    ]
    registration.start()
    net.wire.run(509)
    assert len(net.requests) == 1
    net.answer(grant(600))
    net.wire.run(2)
    second = net.requests[1]
    assert second.call_id == first.call_id
    assert second.cseq.number > first.cseq.number
    assert net.state() == "registered"
    assert net.states == ["registering", "registered"], "a refresh is not a change"
    assert registration.service_route == ()
    registration.stop()
    assert net.state() == "unregistering"
    net.wire.run(1)
    last = net.requests[2]
    assert last.expires == 0
    assert [(contact.uri, contact.expires) for contact in last.contacts] == [(CONTACT, 0)]
    assert net.states[2:] == ["unregistering", "unregistered"]
    assert not net.registered()
    assert registration.expires_at is None
    net.idle_after_stop()


@pytest.mark.parametrize(("random", "share"), [(0.0, 0.8), (0.5, 0.85), (1.0, 0.9)])
def test_refreshes_at_80_to_90_percent(random: float, share: float) -> None:
    net = Net(random=random)
    registration = net.start(grant(100))
    assert registration.next_at == pytest.approx(1000.02 + 100 * share, abs=0.01)


def headed(seconds: str) -> Answer:
    return lambda tx: reply(tx, 200, Expires=seconds, Contact=f"<{CONTACT}>")


@pytest.mark.parametrize(
    ("answer", "life"),
    [
        (grant(120), 120),
        (headed("90"), 90),
        (refuse(200), 3600),
        (refuse(200, Contact=f"<{CONTACT}>"), 3600),
        (grant(1_000_000_000), 3600),
        (grant(10), 10),
        (grant(0, "<sip:alice@192.0.2.77:5060>;expires=50", f"<{CONTACT}>;expires=70"), 70),
        (grant(0, f"<{CONTACT};transport=tcp>;expires=50", f"<{CONTACT}>;expires=70"), 70),
        (grant(0, "<sip:alice@203.0.113.8:1024>;expires=55"), 55),
        (grant(0, "<sip:x@203.0.113.8:1024>;expires=56"), 56),
        (
            grant(
                0,
                "<sip:bob@203.0.113.7>;expires=20",
                "<sip:alice@203.0.113.8:1024>;expires=60",
                "<sip:alice@203.0.113.8:1025>;expires=40",
            ),
            40,
        ),
        (grant(0, "<sip:x@h1>;expires=5", "<sip:y@h2>;expires=6"), 3600),
        (grant(0, f"<{CONTACT}>;expires=soon"), 3600),
    ],
    ids=[
        "contact",
        "header",
        "nothing",
        "contact without",
        "too long",
        "short",
        "several",
        "nearly equal",
        "rewritten",
        "all rewritten",
        "several rewritten",
        "not ours",
        "malformed",
    ],
)
def test_the_life_of_the_binding(answer: Answer, life: int) -> None:
    net = Net()
    registration = net.start(answer)
    assert net.state() == "registered"
    assert registration.expires_at == pytest.approx(1000 + life, abs=0.1)


def test_a_tiny_life_is_not_refreshed_all_the_time() -> None:
    net = Net(random=0.0)
    net.start(grant(1))
    net.wire.run(60)
    assert 10 <= len(net.requests) <= 16


def test_a_contact_granted_nothing_is_a_failure_that_may_pass() -> None:
    net = Net()
    registration = net.start(grant(0))
    assert net.state() == "retrying"
    assert "dropped it" in registration.why
    net.answer(grant(60))
    net.wire.run(5)
    assert net.state() == "registered"
    assert registration.why == ""


def test_too_brief_is_asked_again_for_longer() -> None:
    net = Net(expires_s=60)

    def answer(tx: ServerTransaction) -> None:
        if (tx.request.expires or 0) < 300:
            reply(tx, 423, Min_Expires="300")
        else:
            grant()(tx)

    net.start(answer)
    assert net.state() == "registered"
    assert [request.expires for request in net.requests] == [60, 300]
    net.wire.run(280)
    assert [request.expires for request in net.requests] == [60, 300, 300], "it is remembered"


@pytest.mark.parametrize(
    "answer",
    [
        refuse(423),
        refuse(423, Min_Expires="5"),
        refuse(423, Min_Expires="4000000000"),
        lambda tx: reply(tx, 423, Min_Expires=str((tx.request.expires or 0) + 1)),
    ],
)
def test_too_brief_without_reason_does_not_loop(answer: Answer) -> None:
    net = Net()
    net.start(answer)
    net.wire.run(5)
    assert net.state() == "failed"
    assert len(net.requests) <= 3


def test_credentials() -> None:
    net = Net(authenticator=Authenticator(Credentials("alice", "secret")))
    verifier = Verifier("example.org", ("MD5",), net.wire.clock, nonce_life_s=200)
    net.start(challenger(verifier, 401, grant(100)))
    assert net.state() == "registered"
    assert len(net.requests) == 2
    net.wire.run(90)
    assert len(net.requests) == 3, "the nonce is good for the refresh"
    net.wire.run(1000)
    assert net.states == ["registering", "registered"], "stale nonces are replaced on the way"
    numbers = [request.cseq.number for request in net.requests]
    assert numbers == sorted(set(numbers))
    net.idle_after_stop()
    assert net.requests[-1].expires == 0
    assert "Authorization" in net.requests[-1].headers


def test_a_wrong_password_is_said_and_not_hammered() -> None:
    net = Net(authenticator=Authenticator(Credentials("alice", "wrong")))
    verifier = Verifier("example.org", ("MD5",), net.wire.clock)
    registration = net.start(challenger(verifier, 401, grant(100)))
    assert net.state() == "failed"
    assert registration.status == 401
    assert registration.why == "401 Unauthorized: check username and password"
    net.wire.run(3600)
    assert len(net.requests) <= 2 * 9
    assert net.state() == "failed"
    # The operator has had it mended on the other side.
    net.answer(grant(100))
    registration.refresh()
    net.wire.run(1)
    assert net.state() == "registered"


@pytest.mark.parametrize("status", [400, 403, 404, 405, 416, 420, 600, 603])
def test_other_refusals_are_slow_too(status: int) -> None:
    net = Net(random=0.0)
    registration = net.start(refuse(status, Retry_After="1"))
    assert net.state() == "failed"
    assert registration.why.startswith(str(status))
    assert registration.next_at == pytest.approx(1000 + 300, abs=0.1)


def test_a_redirect_is_not_followed_but_said() -> None:
    net = Net()
    registration = net.start(refuse(302, Contact="<sip:other.example>"))
    assert net.state() == "failed"
    assert "to sip:other.example: set it as the registrar" in registration.why
    assert len(net.requests) == 1


@pytest.mark.parametrize("status", [429, 480, 500, 503, 504])
def test_a_failure_that_may_pass_is_retried_ever_more_seldom(status: int) -> None:
    net = Net(random=1.0)
    registration = net.start(refuse(status))
    assert net.state() == "retrying"
    net.wire.run(3000)
    times = net.times()
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[:8] == pytest.approx([2, 4, 8, 16, 32, 64, 128, 256], abs=0.1)
    assert waits[8:] == pytest.approx([300] * len(waits[8:]), abs=0.1)
    net.answer(grant(60))
    net.wire.run(301)
    assert net.state() == "registered"
    assert registration.next_at is not None
    net.answer(refuse(503))
    net.wire.run(registration.next_at - net.wire.clock.time + 1)
    assert net.state() == "retrying"
    assert registration.next_at - net.wire.clock.time <= 2, "it begins anew after a success"


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        ("60", 60, 66),
        ("0", 1, 2),
        ("1", 1, 2),
        ("4000000000", 3600, 3960),
        ("120 (maintenance)", 120, 132),
    ],
)
def test_retry_after_is_honoured_within_reason(retry_after: str, least: float, most: float) -> None:
    for random in (0.0, 1.0):
        net = Net(random=random)
        registration = net.start(refuse(503, Retry_After=retry_after))
        assert registration.next_at is not None
        assert least - 0.1 <= registration.next_at - 1000 <= most + 0.1


def test_a_malformed_answer_is_a_failure_that_may_pass() -> None:
    net = Net()
    registration = net.start(refuse(200, Contact="<<>>"))
    assert net.state() == "retrying"
    assert "malformed" in registration.why


def test_a_registrar_that_is_silent() -> None:
    net = Net()
    registration = net.start(lambda tx: tx.drop())
    assert net.state() == "registering"
    net.wire.run(33)
    assert net.state() == "retrying"
    assert registration.why == "no answer in time"
    assert registration.status is None
    net.answer(grant(60))
    net.wire.run(5)
    assert net.state() == "registered"


def test_a_lost_registrar_is_noticed_when_the_binding_ends() -> None:
    net = Net()
    registration = net.start(grant(100))
    net.answer(refuse(503))
    net.wire.run(90)
    assert net.state() == "retrying"
    assert net.registered(), "the binding holds for ten seconds more"
    net.wire.run(60)
    assert not net.registered()
    assert registration.expires_at is None


def test_the_next_address_is_tried() -> None:
    net = Net()
    net.target = [Target("udp", "192.0.2.99", 5060), *net.target]
    net.start(grant(60))
    assert net.state() == "registered"
    assert net.wire.trace()[0] == "alice>192.0.2.99:5060 REGISTER"


def test_addresses_are_looked_up_each_time_and_may_be_unknown() -> None:
    net = Net(random=0.0)
    known, net.target = net.target, []
    registration = net.start(grant(60))
    assert net.state() == "retrying"
    assert registration.why == "no address found for example.org"
    net.target = known
    net.wire.run(3)
    assert net.state() == "registered"
    assert net.look_ups == 2


def test_a_look_up_that_never_ends_is_given_up_and_its_late_result_ignored() -> None:
    waiting: list[Callable[[Sequence[Target]], None]] = []
    net = Net(find_targets=waiting.append)
    net.start(grant(60))
    net.wire.run(29)
    assert net.state() == "registering"
    net.wire.run(2)
    assert net.state() == "retrying"
    waiting[0](net.target)
    net.wire.run(0.1)
    assert net.requests == []
    net.wire.run(2)
    waiting[1](net.target)
    net.wire.run(0.1)
    assert net.state() == "registered"
    assert len(net.requests) == 1


def test_the_contact_may_depend_on_the_address_and_is_removed_as_it_was_bound() -> None:
    made = iter(
        [SipUri("sip", "a", None, "192.0.2.1", 1), SipUri("sip", "a", None, "192.0.2.1", 2)]
    )
    asked: list[Target] = []

    def contact(target: Target) -> SipUri:
        asked.append(target)
        return next(made, CONTACT)

    net = Net(contact=contact)
    net.start(grant(60))
    assert asked == net.target
    net.registration.stop()
    net.wire.run(1)
    assert [request.contacts[0].uri for request in net.requests] == [
        SipUri("sip", "a", None, "192.0.2.1", 1)
    ] * 2


def test_stop_before_start_and_twice() -> None:
    net = Net()
    net.registration.stop()
    assert net.state() == "unregistered"
    net.registration.stop()
    net.registration.refresh()
    assert net.wire.log == []
    net.registration.start()
    net.answer(grant(60))
    net.wire.run(1)
    assert net.state() == "registered"


def test_stop_waits_no_longer_than_4_s() -> None:
    net = Net()
    registration = net.start(grant(60))
    net.answer(lambda tx: tx.drop())
    registration.stop()
    net.wire.run(3.9)
    assert net.state() == "unregistering"
    net.wire.run(0.2)
    assert net.state() == "unregistered"
    net.idle_after_stop()


def test_stop_while_the_first_request_is_under_way_removes_what_it_may_have_bound() -> None:
    net = Net()
    net.answer(lambda tx: tx.drop())
    net.registration.start()
    net.wire.run(0.05)
    net.answer(grant(60))
    net.registration.stop()
    net.wire.run(1)
    assert net.requests[-1].expires == 0
    assert net.requests[-1].cseq.number > net.requests[0].cseq.number
    net.idle_after_stop()


@pytest.mark.parametrize("answer", [refuse(503), refuse(401), refuse(423), refuse(200)])
def test_whatever_answers_the_removal_is_the_end(answer: Answer) -> None:
    net = Net()
    registration = net.start(grant(60))
    net.answer(answer)
    registration.stop()
    net.wire.run(1)
    assert net.state() == "unregistered"
    net.idle_after_stop()


def test_start_during_the_removal_registers_again() -> None:
    net = Net()
    registration = net.start(grant(60))
    registration.stop()
    registration.start()
    net.wire.run(1)
    assert net.state() == "registered"


ANSWERS: list[tuple[str, Answer]] = [
    ("grant 60", grant(60)),
    ("grant 0", grant(0)),
    ("grant 10**9", grant(10**9)),
    ("silence", lambda tx: tx.drop()),
    ("503", refuse(503)),
    ("503 later", refuse(503, Retry_After="30")),
    ("403", refuse(403)),
    ("423", refuse(423, Min_Expires="7200")),
    ("302", refuse(302)),
    ("nonsense", refuse(200, Contact="???", Expires="x")),
    ("400", refuse(400)),
]


def falls_silent(step: tuple[str, int, float]) -> bool:
    """The registrar is to forget what it gets, so that each repetition is new to it."""
    return step[0] == "answer" and ANSWERS[step[1]][0] == "silence"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["answer", "answer", "time", "time", "start", "stop", "refresh"]),
        st.integers(0, 10),
        st.sampled_from([0.05, 1.0, 20.0, 400.0]),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(
    steps=STEPS,
    random=st.sampled_from([0.0, 0.5, 1.0]),
    loss=st.sampled_from([0.0, 0.5]),
    seed=st.randoms(use_true_random=False),
)
def test_whatever_the_registrar_does(
    steps: list[tuple[str, int, float]], random: float, loss: float, seed: Any
) -> None:
    net = Net(random=random)

    def fate(packet: Packet) -> Sequence[float]:
        return () if seed.random() < loss else (0.0,)

    net.wire.fate = fate
    registration = net.registration
    for what, number, seconds in steps:
        if what == "answer":
            net.answer(ANSWERS[number][1])
        elif what == "time":
            sent = len(net.requests)
            net.wire.run(seconds)
            # A refresh every 4 s at the most, after a failure or two in 1 s each.
            assert len(net.requests) - sent <= 6 + seconds / 2
        elif what == "start":
            registration.start()
        elif what == "stop":
            registration.stop()
        else:
            registration.refresh()
        waits = net.state() in {"registered", "retrying", "failed"}
        busy = net.alice.layer.client_transactions > 0
        assert not waits or registration.next_at is not None or busy
        if net.state() == "registered" and registration.next_at is not None:
            assert net.registered() or registration.next_at > net.wire.clock.time
        if net.state() in {"idle", "unregistered"}:
            assert registration.next_at is None
        # Timer E sends the same request again, with the same branch.
        branches = {request.via.branch: request.cseq.number for request in net.requests}
        numbers = list(branches.values())
        if not loss and not any(falls_silent(step) for step in steps):
            assert numbers == sorted(set(numbers))
    net.wire.fate = lambda packet: (0.0,)
    registration.start()
    net.answer(grant(60))
    registration.refresh()
    net.wire.run(700)
    assert net.state() == "registered"
    net.idle_after_stop()
