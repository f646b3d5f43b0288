"""`voiced demo`: the daemon shown at work, offline, call by call."""

from voiced.demo.scenarios import SCENARIOS
from voiced.demo.show import main

__all__ = ["SCENARIOS", "main"]
