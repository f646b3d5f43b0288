"""The functions that a call's model may call: what there are, and what becomes of a call of one.

Nothing here speaks: `call` runs `Toolbox.use` as a task and tells the model what it returns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog
import trio

from voiced import metrics
from voiced.engine import ToolCall, ToolSpec
from voiced.hooks.stepping import described
from voiced.plugin import Tool, ToolUse
from voiced.schema import validate

__all__ = ["MAX_RUNNING", "Toolbox", "result_text"]

MAX_TOOLS: Final = 64
"""Tools of one call: what models can still tell apart, and what a session.update holds."""

MAX_RUNNING: Final = 8
"""Tools of one call that run at a time; a model that calls more is told to wait."""

MAX_RESULT: Final = 32_000
"""Characters of a result that the model is told; more would cost more than it could say."""

MAX_ARGUMENTS: Final = 64_000  # characters

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")  # openai-realtime section 10

Asked = Callable[[ToolUse], Awaitable[str | None]]
"""Asks the plugins whether a tool may run; a text is the answer instead."""


class Toolbox:
    """A call's tools."""

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        self._log = log
        self._tools: dict[str, Tool] = {}
        self.running = 0

    def register(self, tool: Tool) -> None:
        """Add a tool. Raises ValueError for a name that is taken or that no model could call."""
        if not _NAME.fullmatch(tool.name):
            raise ValueError(f"a tool's name has letters, digits, _ and - only, not {tool.name!r}")
        if tool.name in self._tools:
            raise ValueError(f"there is a tool {tool.name} already")
        if len(self._tools) >= MAX_TOOLS:
            raise ValueError(f"a call has at most {MAX_TOOLS} tools")
        self._tools[tool.name] = tool

    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model is told of them."""
        return tuple(
            ToolSpec(tool.name, tool.description, tool.parameters) for tool in self._tools.values()
        )

    def get(self, name: str) -> Tool | None:
        """The tool of that name."""
        return self._tools.get(name)

    async def run(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Run a tool for a plugin. Raises KeyError, ValueError for arguments, or what it raises."""
        tool = self._tools[name]
        if (fault := validate(tool.parameters, arguments)) is not None:
            raise ValueError(fault)
        with trio.fail_after(tool.timeout_s):
            return result_text(await tool.handler(arguments))

    async def use(self, event: ToolCall, asked: Asked) -> str:
        """Run what the model has called; returns what to tell it, whatever happens."""
        tool = self._tools.get(event.name)
        if tool is None:
            metrics.TOOL_CALLS.labels("unknown").inc()
            return _failure(f"there is no tool {event.name[:64]}")
        if self.running >= MAX_RUNNING:
            metrics.TOOL_CALLS.labels("refused").inc()
            return _failure("too many tools are running, try again in a moment")
        arguments = _arguments(event.arguments)
        fault = arguments if isinstance(arguments, str) else validate(tool.parameters, arguments)
        if isinstance(arguments, str) or fault is not None:
            metrics.TOOL_CALLS.labels("arguments").inc()
            self._log.warning("tool called wrongly", tool=tool.name, why=str(fault)[:200])
            return _failure(f"the arguments do not fit: {fault}")
        self.running += 1
        try:
            return await self._use(tool, ToolUse(event.call_id, tool.name, arguments), asked)
        finally:
            self.running -= 1

    async def _use(self, tool: Tool, use: ToolUse, asked: Asked) -> str:
        began = trio.current_time()
        outcome, result = "done", ""
        if (answer := await asked(use)) is not None:
            metrics.TOOL_CALLS.labels("answered").inc()
            return answer[:MAX_RESULT]
        with trio.move_on_after(tool.timeout_s) as limit:
            try:
                result = result_text(await tool.handler(use.arguments))
            except Exception as error:  # a plugin's: the call goes on, the model is told
                outcome = "failed"
                self._log.warning("tool failed", tool=tool.name, error=described(error)[:300])
                result = _failure("the tool failed")
        if limit.cancelled_caught:
            outcome = "timeout"
            self._log.warning("tool took too long", tool=tool.name, limit_s=tool.timeout_s)
            result = _failure("the tool took too long")
        metrics.TOOL_CALLS.labels(outcome).inc()
        elapsed_ms = round((trio.current_time() - began) * 1000)
        self._log.info("tool called", tool=tool.name, outcome=outcome, ms=elapsed_ms)
        return result


def result_text(result: str | Mapping[str, Any] | None) -> str:
    """What a model is told of a handler's result."""
    if result is None:
        return '{"ok": true}'
    if not isinstance(result, str):
        result = json.dumps(result, ensure_ascii=False, default=str)
    return result[:MAX_RESULT]


def _arguments(text: str) -> dict[str, Any] | str:
    """Read a model's arguments; a text says why they are none."""
    if len(text) > MAX_ARGUMENTS:
        return "they are too long"
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return "they are not JSON"
    return arguments if isinstance(arguments, dict) else "they are no JSON object"


def _failure(why: str) -> str:
    return json.dumps({"error": why}, ensure_ascii=False)
