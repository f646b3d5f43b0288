"""An engine that survives: reconnects, renews, falls back, keeps to limits.

`SteadyEngine` is the door, `Guard` what all calls share about one engine. Behind them, all pure:
`course` (what is tried when, with `backoff`), `breaker`, `limits`, `owed` (answers), `memory`
(texts and functions), `utterance` (the caller's last words), `renewal`, `names`. `held` is one
session of an engine, `asking` and `waiting` what is asked of it and how it is waited for, and
`session` what a call talks to.
"""

from voiced.steady.engine import SteadyEngine
from voiced.steady.guard import Guard, Guarded

__all__ = ["Guard", "Guarded", "SteadyEngine"]
