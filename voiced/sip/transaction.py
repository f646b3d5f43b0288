"""The four transaction machines of RFC 3261 section 17 with RFC 6026 and RFC 4320, as tables.

Rule: everything that says what a transaction does when, and for how long it waits, is in this file.
A table maps (state, event) to (next state, actions); what it lacks is ignored. A timer's name among
the events means that it fired, among the actions that it is started (again). A timer stops when its
transaction enters a state that `LIVES_IN` does not give it.

Where the tables go beyond the figures:

- Accepted, server: a retransmitted INVITE has the last 2xx sent again. RFC 6026 has the machine
  absorb it because the user repeats the 2xx anyway, up to 4 s later; the caller who still
  retransmits has not seen it, and cannot tell this copy from one of the user's.
- Completed, INVITE client: a 2xx that a fork sent behind a proxy's final refusal goes to the user
  as a stray, so that it can be acknowledged and hung up. The figure lets that call live on.
- Completed, INVITE client: when the ACK cannot be sent the transaction ends without a word; its
  user has had the final response.
- Proceeding, INVITE client: 64*T1 after a CANCEL the call counts as cancelled (section 9.1).
- Trying and Proceeding, non-INVITE server: after 64*T1 the client has given up, and RFC 4320
  section 4.2 forbids an answer; a user that never answers leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

__all__ = [
    "INVITE_CLIENT",
    "INVITE_SERVER",
    "LIVES_IN",
    "NON_INVITE_CLIENT",
    "NON_INVITE_SERVER",
    "Action",
    "Event",
    "Rule",
    "State",
    "Table",
    "TimerName",
    "Timing",
    "duration",
    "response_event",
    "timer_e_reaches_t2",
]


@dataclass(frozen=True, slots=True)
class Timing:
    """RFC 3261 section 17.1.1.1, in seconds."""

    t1: float = 0.5  # estimate of a round trip
    t2: float = 4.0  # longest interval between retransmissions, but of INVITE requests
    t4: float = 5.0  # longest life of a message in the network
    trying: float = 0.2  # an INVITE that its user has not answered by then gets 100 (17.2.1)

    @property
    def timeout(self) -> float:
        """64*T1: after that many seconds a transaction is given up."""
        return 64 * self.t1


class State(StrEnum):
    """Where a transaction is."""

    INITIAL = "initial"
    CALLING = "calling"
    TRYING = "trying"
    PROCEEDING = "proceeding"
    ACCEPTED = "accepted"
    COMPLETED = "completed"
    CONFIRMED = "confirmed"
    TERMINATED = "terminated"


class Event(StrEnum):
    """What happens to a transaction, but for its timers. Server side, responses are the user's."""

    START = "start"  # client: the user's request; server: the request that made the transaction
    REQUEST = "request"  # a retransmission
    ACK = "ack"
    PROVISIONAL = "1xx"
    SUCCESS = "2xx"
    FAILURE = "300-699"
    TRANSPORT_ERROR = "transport error"


class TimerName(StrEnum):
    """The letters of RFC 3261 table 4 and of RFC 6026, and three with no letter."""

    A = "A"  # INVITE request retransmission, unreliable transports
    B = "B"  # INVITE transaction timeout
    D = "D"  # wait for retransmitted responses
    E = "E"  # non-INVITE request retransmission, unreliable transports
    F = "F"  # non-INVITE transaction timeout
    G = "G"  # INVITE response retransmission, unreliable transports
    H = "H"  # wait for the ACK
    I = "I"  # wait for retransmitted ACKs  # noqa: E741 - the RFC's letter
    J = "J"  # wait for retransmitted non-INVITE requests
    K = "K"  # wait for retransmitted responses
    L = "L"  # wait for retransmitted INVITEs after a 2xx
    M = "M"  # wait for retransmitted and forked 2xx
    TRYING = "trying"  # then 100 is sent in the user's place
    EXPIRY = "expiry"  # then the client of a non-INVITE request has given up
    CANCELLED = "cancelled"  # since the CANCEL was sent


class Action(StrEnum):
    """What a transaction does, but for starting timers."""

    SEND = "send"  # client: the request; server: the last response, if there is one
    SEND_ACK = "send ACK"
    SEND_TRYING = "send 100"
    STOP_TRYING = "stop timer trying"
    DELIVER = "pass to the user"
    DELIVER_STRAY = "pass to the user as a stray"
    TIMED_OUT = "tell the user: timeout"
    UNSENT = "tell the user: transport error"


Rule: TypeAlias = tuple[State, tuple[Action | TimerName, ...]]
Table: TypeAlias = Mapping[tuple[State, Event | TimerName], Rule]

# Actions that call the user come last, so that it finds the transaction in its new state and may
# use it at once.

# RFC 3261 figure 5 as changed by RFC 6026 section 8.4.
INVITE_CLIENT: Final[Table] = {
    (State.INITIAL, Event.START): (State.CALLING, (Action.SEND, TimerName.A, TimerName.B)),
    (State.CALLING, TimerName.A): (State.CALLING, (Action.SEND, TimerName.A)),
    (State.CALLING, TimerName.B): (State.TERMINATED, (Action.TIMED_OUT,)),
    (State.CALLING, Event.TRANSPORT_ERROR): (State.TERMINATED, (Action.UNSENT,)),
    (State.CALLING, Event.PROVISIONAL): (State.PROCEEDING, (Action.DELIVER,)),
    (State.CALLING, Event.SUCCESS): (State.ACCEPTED, (TimerName.M, Action.DELIVER)),
    (State.CALLING, Event.FAILURE): (
        State.COMPLETED,
        (Action.SEND_ACK, TimerName.D, Action.DELIVER),
    ),
    (State.PROCEEDING, Event.PROVISIONAL): (State.PROCEEDING, (Action.DELIVER,)),
    (State.PROCEEDING, Event.SUCCESS): (State.ACCEPTED, (TimerName.M, Action.DELIVER)),
    (State.PROCEEDING, Event.FAILURE): (
        State.COMPLETED,
        (Action.SEND_ACK, TimerName.D, Action.DELIVER),
    ),
    (State.PROCEEDING, TimerName.CANCELLED): (State.TERMINATED, (Action.TIMED_OUT,)),
    (State.ACCEPTED, Event.SUCCESS): (State.ACCEPTED, (Action.DELIVER,)),
    (State.ACCEPTED, TimerName.M): (State.TERMINATED, ()),
    (State.COMPLETED, Event.FAILURE): (State.COMPLETED, (Action.SEND_ACK,)),
    (State.COMPLETED, Event.SUCCESS): (State.COMPLETED, (Action.DELIVER_STRAY,)),
    (State.COMPLETED, Event.TRANSPORT_ERROR): (State.TERMINATED, ()),
    (State.COMPLETED, TimerName.D): (State.TERMINATED, ()),
}

# RFC 3261 figure 6.
NON_INVITE_CLIENT: Final[Table] = {
    (State.INITIAL, Event.START): (State.TRYING, (Action.SEND, TimerName.E, TimerName.F)),
    (State.TRYING, TimerName.E): (State.TRYING, (Action.SEND, TimerName.E)),
    (State.TRYING, TimerName.F): (State.TERMINATED, (Action.TIMED_OUT,)),
    (State.TRYING, Event.TRANSPORT_ERROR): (State.TERMINATED, (Action.UNSENT,)),
    (State.TRYING, Event.PROVISIONAL): (State.PROCEEDING, (Action.DELIVER,)),
    (State.TRYING, Event.SUCCESS): (State.COMPLETED, (TimerName.K, Action.DELIVER)),
    (State.TRYING, Event.FAILURE): (State.COMPLETED, (TimerName.K, Action.DELIVER)),
    (State.PROCEEDING, TimerName.E): (State.PROCEEDING, (Action.SEND, TimerName.E)),
    (State.PROCEEDING, TimerName.F): (State.TERMINATED, (Action.TIMED_OUT,)),
    (State.PROCEEDING, Event.TRANSPORT_ERROR): (State.TERMINATED, (Action.UNSENT,)),
    (State.PROCEEDING, Event.PROVISIONAL): (State.PROCEEDING, (Action.DELIVER,)),
    (State.PROCEEDING, Event.SUCCESS): (State.COMPLETED, (TimerName.K, Action.DELIVER)),
    (State.PROCEEDING, Event.FAILURE): (State.COMPLETED, (TimerName.K, Action.DELIVER)),
    (State.COMPLETED, TimerName.K): (State.TERMINATED, ()),
}

# RFC 3261 figure 7 as changed by RFC 6026 section 8.5.
INVITE_SERVER: Final[Table] = {
    (State.INITIAL, Event.START): (State.PROCEEDING, (TimerName.TRYING, Action.DELIVER)),
    (State.PROCEEDING, Event.REQUEST): (State.PROCEEDING, (Action.SEND,)),
    (State.PROCEEDING, TimerName.TRYING): (State.PROCEEDING, (Action.SEND_TRYING,)),
    (State.PROCEEDING, Event.PROVISIONAL): (
        State.PROCEEDING,
        (Action.STOP_TRYING, Action.SEND),
    ),
    (State.PROCEEDING, Event.SUCCESS): (State.ACCEPTED, (Action.SEND, TimerName.L)),
    (State.PROCEEDING, Event.FAILURE): (
        State.COMPLETED,
        (Action.SEND, TimerName.G, TimerName.H),
    ),
    (State.PROCEEDING, Event.TRANSPORT_ERROR): (State.PROCEEDING, (Action.UNSENT,)),
    (State.ACCEPTED, Event.REQUEST): (State.ACCEPTED, (Action.SEND,)),
    (State.ACCEPTED, Event.SUCCESS): (State.ACCEPTED, (Action.SEND,)),
    (State.ACCEPTED, Event.ACK): (State.ACCEPTED, (Action.DELIVER,)),
    (State.ACCEPTED, Event.TRANSPORT_ERROR): (State.ACCEPTED, (Action.UNSENT,)),
    (State.ACCEPTED, TimerName.L): (State.TERMINATED, ()),
    (State.COMPLETED, Event.REQUEST): (State.COMPLETED, (Action.SEND,)),
    (State.COMPLETED, TimerName.G): (State.COMPLETED, (Action.SEND, TimerName.G)),
    (State.COMPLETED, TimerName.H): (State.TERMINATED, ()),
    (State.COMPLETED, Event.ACK): (State.CONFIRMED, (TimerName.I,)),
    (State.COMPLETED, Event.TRANSPORT_ERROR): (State.COMPLETED, (Action.UNSENT,)),
    (State.CONFIRMED, TimerName.I): (State.TERMINATED, ()),
}

# RFC 3261 figure 8, with the 100 of RFC 4320 section 4.1.
NON_INVITE_SERVER: Final[Table] = {
    (State.INITIAL, Event.START): (
        State.TRYING,
        (TimerName.TRYING, TimerName.EXPIRY, Action.DELIVER),
    ),
    (State.TRYING, TimerName.TRYING): (State.PROCEEDING, (Action.SEND_TRYING,)),
    (State.TRYING, TimerName.EXPIRY): (State.TERMINATED, ()),
    (State.TRYING, Event.PROVISIONAL): (State.PROCEEDING, (Action.SEND,)),
    (State.TRYING, Event.SUCCESS): (State.COMPLETED, (Action.SEND, TimerName.J)),
    (State.TRYING, Event.FAILURE): (State.COMPLETED, (Action.SEND, TimerName.J)),
    (State.PROCEEDING, Event.REQUEST): (State.PROCEEDING, (Action.SEND,)),
    (State.PROCEEDING, TimerName.EXPIRY): (State.TERMINATED, ()),
    (State.PROCEEDING, Event.PROVISIONAL): (State.PROCEEDING, (Action.SEND,)),
    (State.PROCEEDING, Event.SUCCESS): (State.COMPLETED, (Action.SEND, TimerName.J)),
    (State.PROCEEDING, Event.FAILURE): (State.COMPLETED, (Action.SEND, TimerName.J)),
    (State.PROCEEDING, Event.TRANSPORT_ERROR): (State.TERMINATED, (Action.UNSENT,)),
    (State.COMPLETED, Event.REQUEST): (State.COMPLETED, (Action.SEND,)),
    (State.COMPLETED, Event.TRANSPORT_ERROR): (State.TERMINATED, (Action.UNSENT,)),
    (State.COMPLETED, TimerName.J): (State.TERMINATED, ()),
}

LIVES_IN: Final[Mapping[TimerName, frozenset[State]]] = {
    TimerName.A: frozenset({State.CALLING}),
    TimerName.B: frozenset({State.CALLING}),
    TimerName.D: frozenset({State.COMPLETED}),
    TimerName.E: frozenset({State.TRYING, State.PROCEEDING}),
    TimerName.F: frozenset({State.TRYING, State.PROCEEDING}),
    TimerName.G: frozenset({State.COMPLETED}),
    TimerName.H: frozenset({State.COMPLETED}),
    TimerName.I: frozenset({State.CONFIRMED}),
    TimerName.J: frozenset({State.COMPLETED}),
    TimerName.K: frozenset({State.COMPLETED}),
    TimerName.L: frozenset({State.ACCEPTED}),
    TimerName.M: frozenset({State.ACCEPTED}),
    # Of the INVITE server it is stopped in Proceeding by the user's first word.
    TimerName.TRYING: frozenset({State.TRYING, State.PROCEEDING}),
    TimerName.EXPIRY: frozenset({State.TRYING, State.PROCEEDING}),
    TimerName.CANCELLED: frozenset({State.PROCEEDING}),
}

_RETRANSMISSIONS: Final = frozenset({TimerName.A, TimerName.E, TimerName.G})
_LINGER: Final = frozenset({TimerName.D, TimerName.I, TimerName.J, TimerName.K})


def duration(
    name: TimerName, timing: Timing, *, reliable: bool, invite: bool, state: State, fired: int
) -> float | None:
    """Seconds for which timer `name` runs when it is started in `state`.

    `fired`: how often it has fired before. None: it is not used on a reliable transport; 0: it
    fires at once, since a reliable transport repeats nothing that would have to be absorbed.
    """
    if name in _RETRANSMISSIONS:
        if reliable:
            return None
        if name is TimerName.E and state is State.PROCEEDING:
            return timing.t2
        # 2.0**60 s are beyond any clock, and beyond any transaction's 64*T1.
        interval = timing.t1 * 2.0 ** min(fired, 60)
        return interval if name is TimerName.A else min(interval, timing.t2)
    if name in _LINGER:
        if reliable:
            return 0.0
        return timing.t4 if name in {TimerName.I, TimerName.K} else timing.timeout
    if name is TimerName.TRYING:
        return timing.trying if invite else timer_e_reaches_t2(timing)
    return timing.timeout


def timer_e_reaches_t2(timing: Timing) -> float:
    """Seconds after which a client's timer E is reset to T2 (RFC 4320 section 4.1); 3.5 usually.

    Before that no 100 may answer a non-INVITE request over an unreliable transport: it would stop
    the retransmissions on which the final response depends.
    """
    elapsed = interval = timing.t1
    while interval * 2 < timing.t2:
        interval *= 2
        elapsed += interval
    return elapsed


def response_event(status: int) -> Event:
    """What a response of this status is to a transaction."""
    if status < 200:
        return Event.PROVISIONAL
    return Event.SUCCESS if status < 300 else Event.FAILURE
