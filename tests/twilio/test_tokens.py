from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from voiced.twilio.tokens import MEDIA_PATH, StreamTokens, TokensExhausted


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_once() -> None:
    tokens = StreamTokens(Clock())
    token = tokens.mint("CA1")
    assert tokens.redeem(token) == "CA1"
    assert tokens.redeem(token) is None
    assert len(tokens) == 0


def test_for_sixty_seconds() -> None:
    clock = Clock()
    tokens = StreamTokens(clock)
    first, second = tokens.mint("CA1"), tokens.mint("CA2")
    clock.now += 59.9
    assert tokens.redeem(first) == "CA1"
    clock.now += 0.1
    assert tokens.redeem(second) is None


def test_a_second_webhook_of_a_call_replaces_the_first() -> None:
    tokens = StreamTokens(Clock())
    first, second = tokens.mint("CA1"), tokens.mint("CA1")
    assert first != second
    assert tokens.redeem(first) is None
    assert tokens.redeem(second) == "CA1"


def test_revoked() -> None:
    tokens = StreamTokens(Clock())
    token = tokens.mint("CA1")
    tokens.revoke("CA1")
    tokens.revoke("CA9")
    assert tokens.redeem(token) is None


def test_bounded_until_some_expire() -> None:
    clock = Clock()
    tokens = StreamTokens(clock, capacity=2)
    tokens.mint("CA1")
    tokens.mint("CA2")
    with pytest.raises(TokensExhausted):
        tokens.mint("CA3")
    tokens.mint("CA2")  # its own place is free again
    clock.now += 60
    tokens.mint("CA3")
    assert len(tokens) == 1


@pytest.mark.parametrize(
    "path", ["", "/", MEDIA_PATH, "/twilio/medias/x", "/twilio/media", "\ud800"]
)
def test_paths_without_a_token(path: str) -> None:
    tokens = StreamTokens(Clock())
    tokens.mint("CA1")
    assert tokens.redeem_path(path) is None
    assert len(tokens) == 1


@pytest.mark.parametrize("slash", ["", "/"])
def test_path(slash: str) -> None:
    tokens = StreamTokens(Clock())
    assert tokens.redeem_path(MEDIA_PATH + tokens.mint("CA1") + slash) == "CA1"


@pytest.mark.parametrize("slash", ["", "/"])
def test_asking_for_a_path_redeems_nothing(slash: str) -> None:
    clock = Clock()
    tokens = StreamTokens(clock)
    path = MEDIA_PATH + tokens.mint("CA1") + slash
    assert tokens.holds_path(path)
    assert tokens.holds_path(path)
    assert tokens.redeem_path(path) == "CA1"
    assert not tokens.holds_path(path)
    late = MEDIA_PATH + tokens.mint("CA2")
    clock.now += 60
    assert not tokens.holds_path(late)


def test_a_bare_token_is_no_path() -> None:
    tokens = StreamTokens(Clock())
    assert not tokens.holds_path(tokens.mint("CA1"))


class TokensModel(RuleBasedStateMachine):
    """Against the plainest model there is: a list of (token, call, expiry)."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.tokens = StreamTokens(self.clock, capacity=3, ttl=10)
        self.seen: list[str] = ["stranger"]
        self.model: dict[str, tuple[str, float]] = {}

    def _expire(self) -> None:
        self.model = {t: e for t, e in self.model.items() if e[1] > self.clock.now}

    @rule(call=st.sampled_from(["CA1", "CA2", "CA3", "CA4"]))
    def mint(self, call: str) -> None:
        self._expire()
        self.model = {t: e for t, e in self.model.items() if e[0] != call}
        if len(self.model) == 3:
            with pytest.raises(TokensExhausted):
                self.tokens.mint(call)
            return
        token = self.tokens.mint(call)
        self.seen.append(token)
        self.model[token] = (call, self.clock.now + 10)

    @rule(at=st.integers(0, 50))
    def redeem(self, at: int) -> None:
        self._expire()
        token = self.seen[at % len(self.seen)]
        call = self.model.pop(token, (None, 0.0))[0]
        assert self.tokens.redeem(token) == call

    @rule(call=st.sampled_from(["CA1", "CA2", "CA3", "CA4"]))
    def revoke(self, call: str) -> None:
        self.tokens.revoke(call)
        self.model = {t: e for t, e in self.model.items() if e[0] != call}

    @rule(seconds=st.integers(0, 12))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def bounded(self) -> None:
        assert len(self.tokens) <= 3


TestTokensModel = TokensModel.TestCase
