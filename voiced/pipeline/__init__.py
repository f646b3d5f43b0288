"""An engine made of three: speech to text, chat, text to speech.

`PipelineEngine` is the door, `providers` what each step is for those who write one. Behind it:
`session` is a conversation, `answer` one answer of it, `steps` the providers as those use them,
`client` with `openai_*` the ones that ship. Pure: `turns`, `sentences`, `history`, `sse`, `errors`.
"""

from voiced.pipeline.engine import PipelineEngine, at_emulator
from voiced.pipeline.providers import ProviderError

__all__ = ["PipelineEngine", "ProviderError", "at_emulator"]
