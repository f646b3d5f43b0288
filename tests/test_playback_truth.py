"""Ledger, play clock and sender against a simulated carrier: is what we report what was played?

Errors are reported minus real, in ms, judged when `clear` reaches the carrier. Where the way is
constant, every question is judged as well, not only the clears: each could have been one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulated_carrier import (
    BYTES_PER_MS,
    Outcome,
    Scenario,
    Utterance,
    World,
    item_name,
    random_scenario,
)

FRAME = 20  # ms; what section 8 of the design allows
DELAYS = [(0, 0), (40, 40), (80, 80), (5, 120), (120, 5)]

# Until a stall is believed: the time span of the votes, the distance of two marks, and a frame.
BELIEF = 600 + 200 + FRAME

utterances = st.lists(
    st.builds(
        Utterance,
        at=st.integers(0, 3500),
        length=st.integers(1, 2500),
        piece=st.sampled_from([20, 100, 200, 1000]),
        every=st.sampled_from([1, 10, 20, 40]),
    ),
    min_size=1,
    max_size=4,
).map(lambda found: tuple(sorted(found, key=lambda utterance: utterance.at)))
clears = st.lists(st.integers(0, 3999), max_size=4, unique=True).map(lambda at: tuple(sorted(at)))
calls = st.builds(
    Scenario,
    utterances=utterances,
    clears=clears,
    duration=st.just(4000),
    forward=st.sampled_from([0, 3, 40, 80, 150]),
    backward=st.sampled_from([0, 3, 40, 80, 150]),
    chunk=st.sampled_from([20, 60, 200, 2000]),
    lead=st.sampled_from([20, 200, 2000, 10_000]),
    seed=st.integers(0, 1000),
)
quick = settings(max_examples=60, deadline=None)


def all_errors(outcome: Outcome) -> Iterator[float]:
    yield from outcome.clear_errors
    for _, error in outcome.poll_errors:
        yield error


@quick
@given(calls)
def test_constant_delays_within_a_frame(scenario: Scenario) -> None:
    outcome = World(scenario).run()
    assert all(abs(error) <= FRAME for error in all_errors(outcome))


@quick
@given(calls)
def test_a_carrier_that_plays_whole_frames_within_a_frame(scenario: Scenario) -> None:
    outcome = World(replace(scenario, frame=20)).run()
    assert all(abs(error) <= FRAME for error in all_errors(outcome))


@quick
@given(calls, st.integers(0, 150), st.integers(0, 150))
def test_jitter_moves_it_by_no_more_than_itself(
    scenario: Scenario, forward_jitter: int, backward_jitter: int
) -> None:
    world = World(replace(scenario, forward_jitter=forward_jitter, backward_jitter=backward_jitter))
    for error in world.run().clear_errors:
        assert -FRAME - forward_jitter - backward_jitter <= error <= FRAME + forward_jitter


@quick
@given(
    calls,
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 1500)), min_size=1, max_size=2),
)
def test_a_stall_shows_until_it_is_believed(
    scenario: Scenario, stalls: list[tuple[int, int]]
) -> None:
    scenario = replace(scenario, stalls=tuple(stalls), chunk=min(scenario.chunk, 200))
    most = sum(length for _, length in stalls)
    round_trip = scenario.forward + scenario.backward
    outcome = World(scenario).run()
    for error in all_errors(outcome):
        assert -FRAME <= error <= min(most, len(stalls) * (BELIEF + round_trip)) + FRAME


@quick
@given(calls, st.integers(1, 1200), st.integers(200, 1500))
def test_after_a_stall_it_is_right_again(scenario: Scenario, length: int, at: int) -> None:
    speech = Utterance(0, 20_000, piece=1000, every=1)
    scenario = replace(
        scenario,
        utterances=(speech,),
        clears=(),
        duration=6000,
        stalls=((at, length),),
        chunk=min(scenario.chunk, 200),
        lead=2000,
    )
    round_trip = scenario.forward + scenario.backward
    outcome = World(scenario).run()
    # It takes as long again until the carrier has played what was reported too early.
    settled = at + length + 2 * (BELIEF + round_trip)
    later = [error for when, error in outcome.poll_errors if when > settled]
    assert later
    assert all(abs(error) <= FRAME for error in later)


@quick
@given(calls, st.integers(1, 400))
def test_a_late_start_is_seen_at_the_first_mark(scenario: Scenario, late: int) -> None:
    speech = Utterance(500, 5000, piece=1000, every=1)
    scenario = replace(
        scenario, utterances=(speech,), clears=(), chunk=20, lead=2000, start_delay=late
    )
    outcome = World(scenario).run()
    round_trip = scenario.forward + scenario.backward
    ahead = min(late, round_trip + 3 * FRAME)  # heard on trust before the first mark was missed
    for when, error in outcome.poll_errors:
        assert -FRAME <= error <= ahead + FRAME
        if when > 500 + late + round_trip + 3 * FRAME:
            assert abs(error) <= FRAME


@pytest.mark.parametrize(("forward", "backward"), DELAYS)
@pytest.mark.parametrize("seed", range(5))
def test_ten_second_calls(seed: int, forward: int, backward: int) -> None:
    scenario = random_scenario(seed, forward=forward, backward=backward)
    outcome = World(scenario).run()
    assert len(outcome.clear_errors) == len(scenario.clears)
    assert all(abs(error) <= FRAME for error in all_errors(outcome))
    assert outcome.most_unheard <= (scenario.lead + scenario.chunk) * BYTES_PER_MS


@pytest.mark.parametrize("jitter", [10, 30, 100])
def test_usual_jitter_costs_no_more_than_that_of_one_way(jitter: int) -> None:
    errors = [
        error
        for seed in range(12)
        for error in World(random_scenario(seed, forward_jitter=jitter, backward_jitter=jitter))
        .run()
        .clear_errors
    ]
    assert len(errors) > 20
    assert all(abs(error) <= FRAME + jitter for error in errors)


@pytest.mark.parametrize("seed", range(5))
def test_the_verdicts_name_what_the_carrier_played(seed: int) -> None:
    """Each item's `heard_ms`, over all generations, against the bytes that came out of the far
    end; a payload's bytes are its item's number.
    """
    scenario = random_scenario(seed)
    world = World(scenario)
    outcome = world.run()
    played = b"".join(outcome.finals) + bytes(world.carrier.played)
    told = {cut.item_id: cut for cuts in outcome.cuts for cut in cuts}
    assert told
    for number in range(len(scenario.utterances)):
        cut = told.get(item_name(number))
        really = played.count(number) / BYTES_PER_MS
        if cut is None:
            continue
        if cut.action == "delete":
            assert really <= FRAME
        else:
            assert abs(cut.heard_ms - really) <= FRAME
            assert cut.heard_ms == world.playout.heard_ms(cut.item_id) <= cut.received_ms


def test_a_barge_in_before_during_and_after() -> None:
    speech = Utterance(1000, 3000, piece=200, every=10)
    scenario = Scenario((speech,), (500, 2234, 5000), duration=6000)
    outcome = World(scenario).run()
    assert outcome.clear_errors == pytest.approx([0, 0, 0], abs=1)
    assert outcome.reported[0] == outcome.reported[2] == 0
    assert outcome.reported[1] / BYTES_PER_MS == pytest.approx(1234, abs=11)
