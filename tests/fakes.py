"""A leg and an engine for tests of the call: those that plugin authors have."""

from __future__ import annotations

from voiced.leg import CallFacts
from voiced.testing.engine import FakeEngine, FakeSession
from voiced.testing.leg import FakeLeg

__all__ = ["FACTS", "FakeEngine", "FakeLeg", "FakeSession"]

FACTS = CallFacts("call-1", "twilio", "CA1", "+15550199", "+15550100")
