"""One outgoing request: challenges, other addresses, CANCEL, time limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.sip.recorders import Side, make, reply
from tests.sip.wire import Packet, Wire
from voiced.sip.digest import Authenticator, Credentials, Verdict, Verifier
from voiced.sip.message import Request, Response, response_to
from voiced.sip.outgoing import Attempt, Outcome, send
from voiced.sip.transactions import ServerTransaction
from voiced.sip.transport import Flow, Target

NOWHERE = Target("udp", "192.0.2.99", 5060)


class Net:
    """Alice has two servers to ask, and credentials."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.alice = Side(self.wire, self.wire.node("192.0.2.1", name="alice"))
        self.one = Side(self.wire, self.wire.node("192.0.2.11", name="one"))
        self.two = Side(self.wire, self.wire.node("192.0.2.12", name="two"))
        self.targets = [self.one.node.target(), self.two.node.target()]
        self.outcomes: list[Outcome] = []
        self.provisional: list[int] = []
        self.authenticator = Authenticator(Credentials("alice", "secret"))

    def send(
        self,
        method: str = "OPTIONS",
        *,
        targets: Sequence[Target | Flow] | None = None,
        **more: Any,
    ) -> Attempt:
        more.setdefault("authenticator", None)
        return send(
            self.alice.layer,
            make(method, cseq=10),
            self.targets if targets is None else targets,
            done=self.outcomes.append,
            provisional=lambda response: self.provisional.append(response.status),
            **more,
        )

    @property
    def outcome(self) -> Outcome:
        (only,) = self.outcomes
        return only

    def end(self) -> None:
        self.wire.run_until_idle(400)
        assert len(self.outcomes) == 1
        assert self.alice.idle
        assert self.one.idle
        assert self.two.idle


def challenger(
    verifier: Verifier, status: int, then: Callable[[ServerTransaction], object], *, stale: int = 0
) -> Callable[[ServerTransaction], None]:
    """A server that asks for credentials, and calls the first `stale` nonces old."""
    header = {401: "WWW-Authenticate", 407: "Proxy-Authenticate"}[status]
    left = [stale]

    def answer(tx: ServerTransaction) -> None:
        request = tx.request.copy()  # the verifier is a server's, and reads Authorization only
        proof = request.headers.get("Proxy-Authorization")
        if status == 407 and proof is not None:
            request.headers.set("Authorization", proof)
        verdict = verifier.verify(request, {"alice": "secret"}.get).verdict
        if verdict is Verdict.OK and not left[0]:
            then(tx)
            return
        is_stale = verdict is Verdict.STALE or (verdict is Verdict.OK and left[0] > 0)
        if verdict is Verdict.OK:
            left[0] -= 1
        headers = [(header, value) for value in verifier.challenge(stale=is_stale)]
        tx.respond(response_to(tx.request, status, to_tag=tx.to_tag, headers=headers))

    return answer


def test_an_answer() -> None:
    net = Net()
    net.one.server.answer = lambda tx: (reply(tx, 180), reply(tx, 603))
    attempt = net.send("INVITE")
    assert net.outcomes == []
    net.wire.run(1)
    assert net.provisional == [180]
    assert net.outcome.status == 603
    assert not net.outcome.succeeded
    assert net.outcome.failure is None
    assert net.outcome.target == net.targets[0]
    assert net.outcome.flow is not None
    assert net.outcome.request.cseq.number == 10
    assert attempt.outcome is net.outcome
    attempt.cancel()
    net.end()
    assert net.two.server.requests == []


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
@pytest.mark.parametrize("status", [401, 407])
def test_a_challenge_is_answered_with_a_higher_cseq(method: str, status: int) -> None:
    net = Net()
    verifier = Verifier("example.org", ("MD5",), net.wire.clock)
    net.one.server.answer = challenger(verifier, status, lambda tx: reply(tx, 200))
    net.send(method, authenticator=net.authenticator)
    net.wire.run(1)
    assert net.outcome.status == 200
    assert [tx.request.cseq.number for tx in net.one.server.requests] == [10, 11]
    branches = {tx.request.via.branch for tx in net.one.server.requests}
    assert len(branches) == 2
    assert net.outcome.request.cseq.number == 11
    net.end()
    net.outcomes.clear()
    net.send(method, authenticator=net.authenticator)
    net.wire.run(1)
    assert net.outcome.status == 200
    assert len(net.one.server.requests) == 3, "the nonce is used again, ahead of the challenge"


def test_the_number_of_a_retry_comes_from_the_dialog() -> None:
    net = Net()
    verifier = Verifier("example.org", ("MD5",), net.wire.clock)
    net.one.server.answer = challenger(verifier, 401, lambda tx: reply(tx, 200))
    net.send(authenticator=net.authenticator, next_cseq=lambda: 77)
    net.wire.run(1)
    assert [tx.request.cseq.number for tx in net.one.server.requests] == [10, 77]


def test_a_stale_nonce_is_replaced_once() -> None:
    net = Net()
    verifier = Verifier("example.org", ("MD5",), net.wire.clock)
    net.one.server.answer = challenger(verifier, 401, lambda tx: reply(tx, 200), stale=1)
    net.send(authenticator=net.authenticator)
    net.wire.run(1)
    assert net.outcome.status == 200
    assert len(net.one.server.requests) == 3


def test_a_wrong_password_ends_it() -> None:
    net = Net()
    verifier = Verifier("example.org", ("MD5",), net.wire.clock)
    net.one.server.answer = challenger(verifier, 401, lambda tx: reply(tx, 200))
    net.send(authenticator=Authenticator(Credentials("alice", "wrong")))
    net.wire.run(1)
    assert net.outcome.status == 401
    assert len(net.one.server.requests) == 2
    net.end()


def test_a_server_that_challenges_for_ever_is_left() -> None:
    net = Net()
    realms = iter(range(1000))

    def ask(tx: ServerTransaction) -> None:
        verifier = Verifier(f"realm {next(realms)}", ("MD5",), net.wire.clock)
        headers = [("WWW-Authenticate", value) for value in verifier.challenge()]
        tx.respond(response_to(tx.request, 401, to_tag=tx.to_tag, headers=headers))

    net.one.server.answer = ask
    net.send(authenticator=net.authenticator)
    net.wire.run(5)
    assert net.outcome.status == 401
    assert len(net.one.server.requests) <= 8
    net.end()


def test_a_proxy_and_a_server_may_both_challenge() -> None:
    net = Net()
    proxy = Verifier("proxy", ("MD5",), net.wire.clock)
    server = Verifier("server", ("MD5",), net.wire.clock)
    inner = challenger(server, 401, lambda tx: reply(tx, 200))

    def answer(tx: ServerTransaction) -> None:
        if "Proxy-Authorization" in tx.request.headers:
            inner(tx)
        else:
            headers = [("Proxy-Authenticate", value) for value in proxy.challenge()]
            tx.respond(response_to(tx.request, 407, to_tag=tx.to_tag, headers=headers))

    net.one.server.answer = answer
    net.send(authenticator=net.authenticator)
    net.wire.run(1)
    assert net.outcome.status == 200
    last = net.one.server.last.request
    assert "Authorization" in last.headers
    assert "Proxy-Authorization" in last.headers


def test_without_credentials_the_challenge_is_the_outcome() -> None:
    net = Net()
    net.one.server.answer = lambda tx: reply(tx, 401, WWW_Authenticate='Digest realm="x"')
    net.send()
    net.wire.run(1)
    assert net.outcome.status == 401
    assert net.two.server.requests == []


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
def test_503_moves_on_whatever_its_retry_after(method: str) -> None:
    net = Net()
    net.one.server.answer = lambda tx: reply(tx, 503, Retry_After="600")
    net.two.server.answer = lambda tx: reply(tx, 200)
    net.send(method)
    net.wire.run(1)
    assert net.outcome.status == 200
    assert net.outcome.target == net.targets[1]
    first, second = net.one.server.last.request, net.two.server.last.request
    assert (first.cseq.number, second.cseq.number) == (10, 11)
    assert first.call_id == second.call_id
    assert first.via.branch != second.via.branch
    net.end()


def test_the_last_503_is_the_outcome() -> None:
    net = Net()
    net.one.server.answer = lambda tx: reply(tx, 503)
    net.two.server.answer = lambda tx: reply(tx, 503, Retry_After="5")
    net.send()
    net.wire.run(1)
    assert net.outcome.status == 503
    assert net.outcome.response is not None
    assert net.outcome.response.retry_after == 5


@pytest.mark.parametrize("status", [404, 408, 480, 486, 500, 504, 603])
def test_other_refusals_are_final(status: int) -> None:
    net = Net()
    net.one.server.answer = lambda tx: reply(tx, status)
    net.send("INVITE")
    net.wire.run(1)
    assert net.outcome.status == status
    assert net.two.server.requests == []


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
def test_an_address_that_refuses_or_is_silent_is_passed_over(method: str) -> None:
    net = Net()
    silent = net.wire.node("192.0.2.50", name="silent").target()
    net.two.server.answer = lambda tx: reply(tx, 200)
    net.send(method, targets=[NOWHERE, silent, net.targets[1]])
    net.wire.run(1)
    assert net.outcomes == []
    net.wire.run(32)
    assert net.outcome.status == 200
    assert net.outcome.request.cseq.number == 12
    net.end()


def test_nobody_there_at_all() -> None:
    net = Net()
    net.send("INVITE", targets=[NOWHERE])
    net.wire.run(1)
    assert (net.outcome.failure, net.outcome.status) == ("transport", 503)
    assert net.outcome.text == "nobody there"
    net.outcomes.clear()
    net.send("INVITE", targets=[])
    assert net.outcomes == [], "never before send returns"
    net.wire.run(0)
    assert (net.outcome.failure, net.outcome.text) == ("transport", "no address")
    assert net.outcome.target is None
    net.outcomes.clear()
    net.send(targets=[net.wire.node("192.0.2.50", name="silent").target()])
    net.end()
    assert (net.outcome.failure, net.outcome.status) == ("timeout", 408)


def test_patience_moves_on_from_a_silent_address_and_hangs_up_there() -> None:
    net = Net()
    net.two.server.answer = lambda tx: reply(tx, 180)
    late: list[Callable[[], object]] = []
    net.one.server.answer = lambda tx: late.append(lambda: reply(tx, 180))

    def fate(packet: Packet) -> Sequence[float]:
        return () if str(packet) == "one>alice 100 INVITE" else (0.0,)

    net.wire.fate = fate
    net.send("INVITE", patience_s=3)
    net.wire.run(3.1)
    assert net.provisional == [180]
    late[0]()
    net.wire.run(1)
    assert [tx.response.status for tx in net.one.server.cancelled if tx.response] == [487]
    assert net.provisional == [180], "what the first says now is not ours any more"
    reply(net.two.server.last, 200)
    net.wire.run(1)
    assert net.outcome.status == 200
    assert net.alice.server.strays == []
    net.end()


def test_an_address_left_in_impatience_that_answers_is_a_stray() -> None:
    net = Net()
    held: list[ServerTransaction] = []
    net.one.server.answer = held.append
    net.wire.fate = lambda packet: () if str(packet).startswith("one>alice 100") else (0.0,)
    net.send("INVITE", patience_s=3)
    net.wire.run(3.1)
    reply(held[0], 200)
    net.wire.run(1)
    assert [response.status for response in net.alice.server.strays] == [200]
    reply(net.two.server.last, 486)
    net.end()
    assert net.outcome.status == 486


def test_the_last_address_is_given_all_the_time() -> None:
    net = Net()
    net.send(targets=[NOWHERE, net.targets[1]], patience_s=1)
    net.wire.run(10)
    reply(net.two.server.last, 200)
    net.wire.run(1)
    assert net.outcome.status == 200


def test_cancelling_an_invite() -> None:
    net = Net()
    net.one.server.answer = lambda tx: reply(tx, 180)
    attempt = net.send("INVITE")
    net.wire.run(0.1)
    attempt.cancel([("Reason", "SIP;cause=200")])
    attempt.cancel()
    assert net.outcomes == []
    net.wire.run(1)
    assert net.outcome.status == 487
    assert net.outcome.cancelled
    assert not net.outcome.timed_out
    assert net.one.node.received[1].headers.get("Reason") == "SIP;cause=200"
    net.end()


def test_a_call_cancelled_before_anybody_answered_is_not_tried_elsewhere() -> None:
    net = Net()
    attempt = net.send("INVITE", targets=[NOWHERE, net.targets[1]])
    attempt.cancel()
    net.wire.run(1)
    assert (net.outcome.failure, net.outcome.cancelled) == ("transport", True)
    assert net.two.server.requests == []


@pytest.mark.parametrize("status", [503, 401])
def test_nothing_is_retried_after_a_cancel(status: int) -> None:
    net = Net()
    net.one.server.answer = lambda tx: reply(tx, 180)
    verifier = Verifier("example.org", ("MD5",), net.wire.clock)
    attempt = net.send("INVITE", authenticator=net.authenticator)
    net.wire.run(0.1)
    net.one.server.cancel = lambda tx: reply(tx, status, WWW_Authenticate=verifier.challenge()[0])
    attempt.cancel()
    net.wire.run(1)
    assert net.outcome.status == status
    assert len(net.one.server.requests) == 1
    assert net.two.server.requests == []


def test_a_2xx_that_is_faster_than_the_cancel_says_so() -> None:
    net = Net()
    net.one.server.answer = lambda tx: reply(tx, 180)
    attempt = net.send("INVITE")
    net.wire.run(0.1)
    reply(net.one.server.last, 200)
    attempt.cancel()
    net.wire.run(1)
    assert net.outcome.succeeded
    assert net.outcome.cancelled
    net.end()


def test_cancelling_another_request_forgets_it() -> None:
    net = Net()
    attempt = net.send(timeout_s=5)
    net.wire.run(0.1)
    attempt.cancel()
    assert net.outcome.failure == "cancelled"
    assert net.alice.idle
    reply(net.one.server.last, 200)
    net.end()
    empty = net.send(targets=[])
    empty.cancel()
    net.wire.run(1)
    assert len(net.outcomes) == 2


def test_an_invite_whose_time_is_up_is_cancelled() -> None:
    net = Net()
    net.one.server.answer = lambda tx: reply(tx, 180)
    net.send("INVITE", timeout_s=20)
    net.wire.run(19)
    assert net.outcomes == []
    net.wire.run(2)
    assert net.outcome.status == 487
    assert net.outcome.timed_out
    net.end()


def test_another_request_whose_time_is_up_is_given_up() -> None:
    net = Net()
    net.send(timeout_s=2)
    net.wire.run(2.1)
    assert net.outcome.failure == "timeout"
    assert net.outcome.timed_out
    assert net.alice.idle
    net.end()


def test_repeated_2xx_go_where_they_are_wanted() -> None:
    net = Net()
    net.one.server.answer = lambda tx: reply(tx, 200)
    got: list[Response] = []
    net.send("INVITE", repeated=lambda response, flow: got.append(response))
    net.wire.run(1)
    reply(net.one.server.last, 200)
    net.wire.run(1)
    assert len(got) == 1
    assert net.alice.server.strays == []
    net.end()
    net.outcomes.clear()
    net.send("INVITE")
    net.wire.run(1)
    reply(net.one.server.last, 200)
    net.wire.run(1)
    assert len(net.alice.server.strays) == 1


def test_the_request_given_is_not_changed() -> None:
    net = Net()
    verifier = Verifier("example.org", ("MD5",), net.wire.clock)
    net.one.server.answer = challenger(verifier, 401, lambda tx: reply(tx, 200))
    asked: Request = make(cseq=3)
    before = bytes(asked)
    send(net.alice.layer, asked, net.targets, net.authenticator, net.outcomes.append)
    net.wire.run(1)
    assert net.outcome.status == 200
    assert bytes(asked) == before
