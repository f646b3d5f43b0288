"""The tables against the figures of RFC 3261 and RFC 6026, every pair of state and event."""

from __future__ import annotations

from itertools import product

import pytest

from voiced.sip.transaction import (
    INVITE_CLIENT,
    INVITE_SERVER,
    LIVES_IN,
    NON_INVITE_CLIENT,
    NON_INVITE_SERVER,
    Action,
    Event,
    State,
    Table,
    TimerName,
    Timing,
    duration,
    response_event,
    timer_e_reaches_t2,
)

# Each line is an arrow of a figure: state, what happens, what is done, state. Timers that the text
# has started are named after their letter. "+" marks an arrow that no figure has; the module says
# of each why it is there.

FIGURE_5_WITH_RFC_6026 = """
  initial    | start           | send, A, B           | calling
  calling    | A               | send, A              | calling
  calling    | B               | timed out            | terminated
  calling    | transport error | unsent               | terminated
  calling    | 1xx             | deliver              | proceeding
  calling    | 2xx             | M, deliver           | accepted
  calling    | 300-699         | send ack, D, deliver | completed
  proceeding | 1xx             | deliver              | proceeding
  proceeding | 2xx             | M, deliver           | accepted
  proceeding | 300-699         | send ack, D, deliver | completed
+ proceeding | cancelled       | timed out            | terminated
  accepted   | 2xx             | deliver              | accepted
  accepted   | M               |                      | terminated
  completed  | 300-699         | send ack             | completed
+ completed  | 2xx             | deliver stray        | completed
  completed  | transport error |                      | terminated
  completed  | D               |                      | terminated
"""

FIGURE_6 = """
  initial    | start           | send, E, F | trying
  trying     | E               | send, E    | trying
  trying     | F               | timed out  | terminated
  trying     | transport error | unsent     | terminated
  trying     | 1xx             | deliver    | proceeding
  trying     | 2xx             | K, deliver | completed
  trying     | 300-699         | K, deliver | completed
  proceeding | E               | send, E    | proceeding
  proceeding | F               | timed out  | terminated
  proceeding | transport error | unsent     | terminated
  proceeding | 1xx             | deliver    | proceeding
  proceeding | 2xx             | K, deliver | completed
  proceeding | 300-699         | K, deliver | completed
  completed  | K               |            | terminated
"""

FIGURE_7_WITH_RFC_6026 = """
  initial    | start           | trying, deliver   | proceeding
  proceeding | request         | send              | proceeding
  proceeding | trying          | send trying       | proceeding
  proceeding | 1xx             | stop trying, send | proceeding
  proceeding | 2xx             | send, L           | accepted
  proceeding | 300-699         | send, G, H        | completed
  proceeding | transport error | unsent            | proceeding
  accepted   | request         | send              | accepted
  accepted   | 2xx             | send              | accepted
  accepted   | ack             | deliver           | accepted
  accepted   | transport error | unsent            | accepted
  accepted   | L               |                   | terminated
  completed  | request         | send              | completed
  completed  | G               | send, G           | completed
  completed  | H               |                   | terminated
  completed  | ack             | I                 | confirmed
  completed  | transport error | unsent            | completed
  confirmed  | I               |                   | terminated
"""

FIGURE_8_WITH_RFC_4320 = """
  initial    | start           | trying, expiry, deliver | trying
+ trying     | trying          | send trying             | proceeding
+ trying     | expiry          |                         | terminated
  trying     | 1xx             | send                    | proceeding
  trying     | 2xx             | send, J                 | completed
  trying     | 300-699         | send, J                 | completed
  proceeding | request         | send                    | proceeding
+ proceeding | expiry          |                         | terminated
  proceeding | 1xx             | send                    | proceeding
  proceeding | 2xx             | send, J                 | completed
  proceeding | 300-699         | send, J                 | completed
  proceeding | transport error | unsent                  | terminated
  completed  | request         | send                    | completed
  completed  | transport error | unsent                  | terminated
  completed  | J               |                         | terminated
"""

FIGURES = {
    "INVITE client": (INVITE_CLIENT, FIGURE_5_WITH_RFC_6026),
    "non-INVITE client": (NON_INVITE_CLIENT, FIGURE_6),
    "INVITE server": (INVITE_SERVER, FIGURE_7_WITH_RFC_6026),
    "non-INVITE server": (NON_INVITE_SERVER, FIGURE_8_WITH_RFC_4320),
}

EVENTS: list[Event | TimerName] = [*Event, *TimerName]
TELLS_USER = {Action.DELIVER, Action.DELIVER_STRAY, Action.TIMED_OUT, Action.UNSENT}


def name(action: Action | TimerName) -> str:
    return action.value if isinstance(action, TimerName) else action.name.lower().replace("_", " ")


def arrows(figure: str) -> dict[tuple[str, str], tuple[str, list[str]]]:
    read = {}
    for line in figure.strip().splitlines():
        state, event, actions, after = (cell.strip(" +") for cell in line.split("|"))
        done = [action.strip() for action in actions.split(",") if action.strip()]
        assert (state, event) not in read
        read[state, event] = (after, done)
    return read


@pytest.mark.parametrize("machine", FIGURES)
def test_the_table_is_the_figure(machine: str) -> None:
    table, figure = FIGURES[machine]
    expected = arrows(figure)
    for state, event in product(State, EVENTS):
        rule = table.get((state, event))
        found = None if rule is None else (rule[0].value, [name(action) for action in rule[1]])
        assert found == expected.pop((state.value, event.value), None), (state, event)
    assert not expected, "arrows with names that no state or event has"


@pytest.mark.parametrize("machine", FIGURES)
def test_what_runs_the_table_relies_on(machine: str) -> None:
    table, _ = FIGURES[machine]
    for (state, event), (after, actions) in table.items():
        assert state is not State.TERMINATED
        tells = [index for index, action in enumerate(actions) if action in TELLS_USER]
        assert tells in ([], [len(actions) - 1]), "the user is told last"
        started = [action for action in actions if isinstance(action, TimerName)]
        for timer in started:
            assert after in LIVES_IN[timer]
            assert (after, timer) in table, f"{timer} fires into nothing"
        if isinstance(event, TimerName):
            assert state in LIVES_IN[event]
        sends = {Action.SEND, Action.SEND_ACK, Action.SEND_TRYING}
        last_send = max((i for i, action in enumerate(actions) if action in sends), default=-1)
        first_timer = min(
            (i for i, action in enumerate(actions) if isinstance(action, TimerName)), default=99
        )
        assert last_send < first_timer, "a timer of 0 s fires at once: what is sent goes before it"


@pytest.mark.parametrize("machine", FIGURES)
def test_every_state_is_left_by_a_timer_or_waits_for_its_user(machine: str) -> None:
    table, _ = FIGURES[machine]
    for state in {state for state, _ in table} - {State.INITIAL}:
        leaves = any(
            at is state and isinstance(event, TimerName) and after is not state
            for (at, event), (after, _) in table.items()
        )
        # 17.1.1.2: how long it may ring is the caller's business; 17.2.1: the answerer's.
        assert leaves or (machine == "INVITE server" and state is State.PROCEEDING)


def test_timers_run_as_table_4_says() -> None:
    timing = Timing()

    def runs(timer: TimerName, state: State, *, reliable: bool, fired: int = 0) -> float | None:
        return duration(timer, timing, reliable=reliable, invite=True, state=state, fired=fired)

    for timer in (TimerName.A, TimerName.E, TimerName.G):
        assert runs(timer, State.TRYING, reliable=True) is None
    doubling = [0.5, 1, 2, 4, 8, 16, 32]
    capped = [0.5, 1, 2, 4, 4, 4, 4]
    for timer, intervals in (
        (TimerName.A, doubling),
        (TimerName.E, capped),
        (TimerName.G, capped),
    ):
        got = [runs(timer, State.TRYING, reliable=False, fired=n) for n in range(7)]
        assert got == intervals
    assert runs(TimerName.E, State.PROCEEDING, reliable=False) == 4
    assert runs(TimerName.A, State.CALLING, reliable=False, fired=10_000) is not None
    for timer in (
        TimerName.B,
        TimerName.F,
        TimerName.H,
        TimerName.L,
        TimerName.M,
        TimerName.EXPIRY,
        TimerName.CANCELLED,
    ):
        for reliable in (False, True):
            assert runs(timer, State.COMPLETED, reliable=reliable) == 32
    lingering = {TimerName.D: 32, TimerName.I: 5, TimerName.J: 32, TimerName.K: 5}
    for timer, seconds in lingering.items():
        assert runs(timer, State.COMPLETED, reliable=False) == seconds
        assert runs(timer, State.COMPLETED, reliable=True) == 0
    assert runs(TimerName.TRYING, State.PROCEEDING, reliable=False) == 0.2


@pytest.mark.parametrize(
    ("t1", "t2", "seconds"), [(0.5, 4, 3.5), (0.5, 0.5, 0.5), (0.1, 0.4, 0.3), (1, 3, 3)]
)
def test_a_late_100_comes_when_timer_e_has_grown_to_t2(
    t1: float, t2: float, seconds: float
) -> None:
    timing = Timing(t1=t1, t2=t2)
    assert timer_e_reaches_t2(timing) == pytest.approx(seconds)
    at = 0.0
    fired = 0
    while True:  # replay timer E
        interval = duration(
            TimerName.E, timing, reliable=False, invite=False, state=State.TRYING, fired=fired
        )
        assert interval is not None
        if interval == t2:
            break
        at += interval
        fired += 1
    assert timer_e_reaches_t2(timing) == pytest.approx(max(at, t1))


@pytest.mark.parametrize(
    ("status", "event"),
    [
        (100, Event.PROVISIONAL),
        (199, Event.PROVISIONAL),
        (200, Event.SUCCESS),
        (299, Event.SUCCESS),
        (300, Event.FAILURE),
        (699, Event.FAILURE),
    ],
)
def test_the_class_of_a_response(status: int, event: Event) -> None:
    assert response_event(status) is event


def table_of(machine: str) -> Table:
    return FIGURES[machine][0]


def test_no_event_is_dead() -> None:
    used = {event for machine in FIGURES for _, event in table_of(machine)}
    assert used == set(EVENTS)
