"""Two transaction layers over a wire that loses, doubles and reorders, driven at random.

Whatever happens: both end by themselves, no timer is left, a user sees each request once, and a
client gets one final response (of a 2xx to an INVITE, copies) or one failure, not both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.sip.recorders import Client, Side, make, reply
from tests.sip.wire import Packet, Wire
from voiced.sip.transactions import ClientTransaction, ServerTransaction
from voiced.sip.transport import TransportName

# Under half a second: a request sent last, 31.5 s after the first, still finds the transaction that
# has answered the first and that lives for 32 s. RFC 3261 promises no more.
LONGEST_DELAY = 0.45


@dataclass
class Call:
    tx: ClientTransaction
    client: Client = field(default_factory=Client)


class TransactionMachine(RuleBasedStateMachine):
    transport: TransportName = "udp"

    def __init__(self) -> None:
        super().__init__()
        self.random = Random(0)
        self.loss = 0.0
        self.doubling = 0.0
        self.wire = Wire(fate=self.fate)
        self.alice = Side(
            self.wire, self.wire.node("192.0.2.1", name="alice", transport=self.transport)
        )
        self.bob = Side(
            self.wire, self.wire.node("192.0.2.2", name="bob", transport=self.transport)
        )
        self.bob.server.cancel = self.cancelled
        self.calls: dict[str, Call] = {}
        self.answers: dict[str, int] = {}

    def fate(self, packet: Packet) -> Sequence[float]:
        copies = 0 if self.random.random() < self.loss else 1
        copies += self.random.random() < self.doubling
        return [self.random.random() * LONGEST_DELAY for _ in range(copies)]

    def cancelled(self, tx: ServerTransaction) -> None:
        if self.random.random() < 0.8:
            self.answer(tx, 487)

    def answer(self, tx: ServerTransaction, status: int) -> None:
        if reply(tx, status) and status >= 200:
            assert self.answers.setdefault(tx.request.call_id, status) == status

    @initialize(
        seed=st.integers(0, 2**32),
        loss=st.sampled_from([0.3, 0.0, 0.5, 0.9]),
        doubling=st.sampled_from([0.3, 0.0, 1.0]),
    )
    def weather(self, seed: int, loss: float, doubling: float) -> None:
        self.random = Random(seed)
        self.loss, self.doubling = loss, doubling

    @rule(method=st.sampled_from(["INVITE", "INVITE", "OPTIONS"]))
    def send(self, method: str) -> None:
        call_id = f"call-{len(self.calls)}"
        client = Client()
        tx = self.alice.layer.request(make(method, call_id=call_id), self.bob.node.target(), client)
        self.calls[call_id] = Call(tx, client)

    @rule(
        index=st.integers(-3, 3), status=st.sampled_from([100, 180, 200, 202, 302, 408, 486, 503])
    )
    @precondition(lambda self: self.bob.server.requests)
    def respond(self, index: int, status: int) -> None:
        requests = self.bob.server.requests
        tx = requests[index % len(requests)]
        if self.answers.get(tx.request.call_id, status) == status:
            self.answer(tx, status)

    @rule(index=st.integers(-3, 3))
    @precondition(lambda self: self.calls)
    def cancel(self, index: int) -> None:
        list(self.calls.values())[index % len(self.calls)].tx.cancel()

    @rule(seconds=st.sampled_from([0.3, 0.05, 0.7, 3.0, 12.0]))
    def pass_time(self, seconds: float) -> None:
        self.wire.run(seconds)

    @rule(loss=st.sampled_from([0.0, 0.5, 1.0]))
    def change_the_weather(self, loss: float) -> None:
        self.loss = loss

    @invariant()
    def the_user_sees_each_request_once(self) -> None:
        seen = [tx.request.call_id for tx in self.bob.server.requests]
        assert len(seen) == len(set(seen))
        cancelled = [tx.request.call_id for tx in self.bob.server.cancelled]
        assert len(cancelled) == len(set(cancelled))
        # Only refusals are acknowledged here, which the layer absorbs for as long as it knows them:
        # a refusal repeated in its 32nd second can have its ACK come too late for that.
        refused = {tx.request.call_id: tx for tx in self.bob.server.requests}
        assert all(refused[ack.call_id].ended for ack in self.bob.server.acks)
        assert not any(tx.merged for tx in self.bob.server.requests)

    @invariant()
    def a_client_gets_one_end(self) -> None:
        for call_id, call in self.calls.items():
            finals = call.client.finals
            assert len(call.client.failures) + len(set(finals)) <= 1
            if finals:
                assert finals[0] == self.answers[call_id]
                assert call.client.statuses[-len(finals) :] == finals, "nothing comes after it"
            if not (call.tx.invite and finals and finals[0] < 300):
                assert len(finals) <= 1

    @invariant()
    def what_has_ended_holds_no_timer(self) -> None:
        live = self.alice.layer.client_transactions + self.bob.layer.server_transactions
        assert len(self.wire.timers) <= live * 3

    def teardown(self) -> None:
        # The users do their part: the answerer answers, and the caller gives up in the end.
        for tx in self.bob.server.requests:
            self.answer(tx, self.answers.get(tx.request.call_id, 480))
        self.wire.run(100)
        for call in self.calls.values():
            call.tx.cancel()
        for tx in self.bob.server.requests:
            if not tx.ended:
                self.answer(tx, self.answers.get(tx.request.call_id, 480))
        self.bob.server.answer = lambda tx: self.answer(tx, 480)
        self.wire.run_until_idle(300)
        assert self.alice.idle
        assert self.bob.idle
        assert len(self.wire.timers) == 0
        for call in self.calls.values():
            assert call.tx.ended
            assert call.client.finals or call.client.failures
        self.the_user_sees_each_request_once()
        self.a_client_gets_one_end()


class ReliableMachine(TransactionMachine):
    transport = "tcp"


LIMITS = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestUnreliable = TransactionMachine.TestCase
TestUnreliable.settings = LIMITS
TestReliable = ReliableMachine.TestCase
TestReliable.settings = LIMITS
