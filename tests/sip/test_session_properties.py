"""Two user agents over a wire that loses, doubles and reorders: whatever happens, it ends well."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.sip.calls import Line, Phone, quiet
from tests.sip.wire import Packet, Wire, straight
from voiced.sip.events import Ended, ReferRequested, SessionEvent
from voiced.sip.session import InvalidState, Session
from voiced.sip.uas import ServerSession

LONG_S = 200.0  # longer than any chain of 64*T1 that one lost request can set off


class Calls(RuleBasedStateMachine):
    """Alice calls Bob, up to four times; both do whatever they may do."""

    @initialize(
        seed=st.integers(0, 2**32), loss=st.sampled_from([0.0, 0.1, 0.3, 0.6]), slow=st.booleans()
    )
    def begin(self, seed: int, loss: float, slow: bool) -> None:
        chance = random.Random(seed)

        def fate(packet: Packet) -> Sequence[float]:
            copies = [] if chance.random() < loss else [0.0]
            if chance.random() < loss:
                copies.append(0.0)
            spread = 1.5 if slow else 0.05
            return [chance.random() * spread for _ in copies]

        self.wire = Wire()
        self.alice = Phone(self.wire.node("192.0.2.1", name="alice"))
        self.bob = Phone(self.wire.node("192.0.2.2", name="bob"), on_invite=lambda session: None)
        self.made: list[tuple[Session, Line]] = []
        # One call stands before anything is lost, so that there is something to change.
        self.call(False, 60.0)
        self.wire.run(1)
        self.bob.calls[0][0].accept()
        self.wire.run(1)
        self.wire.fate = fate

    def sessions(self) -> list[tuple[Session, Line]]:
        return [*self.made, *self.bob.calls]

    @precondition(lambda self: len(self.made) < 4)
    @rule(reliable=st.booleans(), timeout_s=st.sampled_from([5.0, 60.0]))
    def call(self, reliable: bool, timeout_s: float) -> None:
        headers = [("Require", "100rel")] if reliable else []
        self.made.append(self.alice.call(self.bob.node, timeout_s=timeout_s, headers=headers))

    def some_session(self, data: st.DataObject) -> Session | None:
        sessions = [session for session, _ in self.sessions() if session.state != "ended"]
        return data.draw(st.sampled_from(sessions)) if sessions else None

    @rule(
        data=st.data(),
        answer=st.sampled_from(["ring", "early", "accept", "accept", "accept", "reject"]),
    )
    def answer(self, data: st.DataObject, answer: str) -> None:
        waiting = [session for session, _ in self.bob.calls if session.state == "incoming"]
        if not waiting:
            return
        session: ServerSession = data.draw(st.sampled_from(waiting))
        if answer == "ring":
            session.ring()
        elif answer == "early":
            session.ring(183, early_media=True)
        elif answer == "accept":
            session.accept()
        else:
            session.reject(486)

    @rule(data=st.data(), meant=st.integers(0, 3))
    def hang_up(self, data: st.DataObject, meant: int) -> None:
        session = self.some_session(data)
        if session is not None and meant == 3:
            session.bye()

    @rule(
        data=st.data(),
        what=st.sampled_from(["hold", "resume", "reinvite", "update", "info", "refer"]),
    )
    def change(self, data: st.DataObject, what: str) -> None:
        session = self.some_session(data)
        if session is None:
            return
        actions: dict[str, Callable[[], None]] = {
            "hold": lambda: session.hold(True),
            "resume": lambda: session.hold(False),
            "reinvite": session.reinvite,
            "update": session.update,
            "info": lambda: session.info(b"Signal=1\r\n", "application/dtmf-relay"),
            "refer": lambda: session.refer("sip:desk@192.0.2.8"),
        }
        try:
            actions[what]()
        except InvalidState:
            assert what in {"info", "refer"}

    @rule(data=st.data(), accept=st.booleans())
    def transfer(self, data: st.DataObject, accept: bool) -> None:
        """The next REFER that a session gets is decided so."""
        if not self.sessions():
            return
        _, line = data.draw(st.sampled_from(self.sessions()))

        def react(event: SessionEvent) -> None:
            if isinstance(event, ReferRequested):
                if accept:
                    event.accept()(200, "OK")
                else:
                    event.reject(603)

        line.react = react

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.3, 1.0, 4.0, 33.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.wire.run(seconds)

    def teardown(self) -> None:
        if not hasattr(self, "wire"):
            return
        self.wire.fate = straight
        self.wire.run(LONG_S)
        self.check_agreement()
        for session, _ in self.sessions():
            session.bye()
        quiet(self.wire, self.alice, self.bob)
        for session, line in self.sessions():
            assert session.state == "ended"
            assert len(line.of(Ended)) == 1
            assert isinstance(line.events[-1], Ended)

    def check_agreement(self) -> None:
        """Calls that stand at both ends have the same last offer and answer at both."""
        theirs = {session.call_id: (session, line) for session, line in self.bob.calls}
        for session, line in self.made:
            assert session.state in {"early", "calling", "confirmed", "ended"}
            if session.state != "confirmed" or session.call_id not in theirs:
                continue
            other, other_line = theirs[session.call_id]
            if other.state == "confirmed":
                assert line.media.exchanges[-1] == other_line.media.exchanges[-1]
                assert not line.media.negotiator.offering
                assert not other_line.media.negotiator.offering


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
