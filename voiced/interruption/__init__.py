"""Was it the caller who spoke? What a pause of playback is decided by; pure, without I/O."""

from voiced.interruption.confirmation import Confirmation, Verdict

__all__ = ["Confirmation", "Verdict"]
