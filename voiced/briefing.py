"""What a model is told about its call before it begins."""

from __future__ import annotations

import json

from voiced.config.types import Agent
from voiced.leg import CallFacts

__all__ = ["instructions"]


def instructions(agent: Agent, facts: CallFacts) -> str:
    """The agent's instructions, with those facts of the call that its `facts` name.

    They stand quoted, one to a line, under a word of caution: a caller can write anything there.
    """
    text = agent.instructions or ""
    known = {name.lower(): value for name, value in facts.parameters.items()}
    known |= {"caller": facts.caller, "called": facts.called, "trunk": facts.trunk or facts.carrier}
    lines = [
        f"- {name}: {json.dumps(value, ensure_ascii=False)}"
        for name in agent.facts
        if (value := known.get(name.lower()))
    ]
    if not lines:
        return text
    return "\n".join([text, "", "Facts about this call, as the network tells them:", *lines])
