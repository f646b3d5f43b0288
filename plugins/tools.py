"""Tools for the model: HTTP requests described in TOML, the end of the call, transfers.

    [plugins.tools.transfer]
    sales = "+4930123456"

    [[plugins.tools.http]]
    name = "order_status"
    description = "Where an order is, by its number."
    url = "https://shop.example.net/api/orders/{order}"
    secret_headers = [{ name = "Authorization", prefix = "Bearer ", value_env = "SHOP_TOKEN" }]
    extract = "/status"
    [plugins.tools.http.parameters]
    properties.order = { type = "string", pattern = "^[0-9]{6}$" }
    required = ["order"]

Arguments fit the schema before a request is made of them, and the model is told in words what went
wrong. It never gets further than the hosts and numbers that stand here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Final

import httpx
import trio
from msgspec import Meta, field
from voiced_plugins._http import Failed, HttpTool, build, new_client, perform
from voiced_plugins._offering import offer
from voiced_plugins._targets import E164, wrong_targets

from voiced.plugin import (
    Audio,
    Host,
    Plugin,
    PluginError,
    Service,
    Settings,
    Tool,
    Unsupported,
)

__all__ = ["ToolSettings", "Tools"]

_TRANSFER_S: Final = 90.0
"""Longer than a carrier lets a telephone ring; the leg has a limit of its own."""

_LAST_WORDS_S: Final = 20.0
"""How long the agent may take to finish its sentence before a transfer."""


class ToolSettings(Settings, frozen=True):
    """What the model may do."""

    http: tuple[HttpTool, ...] = ()
    """The `[[plugins.tools.http]]` tools."""
    end_call: bool = True
    """The model may end the call, with the agent's farewell heard to its end."""
    transfer: Mapping[str, str] = field(default_factory=dict)
    """Whom the model may transfer callers to: names that it understands, and their numbers or SIP \
URIs. Left out: nobody."""
    transfer_prefixes: tuple[Annotated[str, Meta(pattern=r"^\+[0-9]*$")], ...] = ()
    """Numbers that the model may choose itself, such as a caller's: those that begin so. They \
cost what they cost."""

    def mistakes(self) -> Iterator[str]:
        """Names that are taken, and targets that are none."""
        names = [tool.name for tool in self.http]
        names += ["end_call"] * self.end_call + ["transfer"] * self._transfers
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"there are two tools {name}; give one another name"
        for wrong in wrong_targets(self.transfer):
            yield f"transfer: {wrong}"

    @property
    def _transfers(self) -> bool:
        return bool(self.transfer or self.transfer_prefixes)


class ToolService(Service):
    """The connections that the tools of all calls share."""

    config: ToolSettings

    def __init__(self, config: ToolSettings, host: Host) -> None:
        super().__init__(config, host)
        self.client: httpx.AsyncClient | None = None

    async def open(self) -> None:
        """Make ready for connections."""
        self.client = new_client()

    async def close(self) -> None:
        """Close the connections."""
        if self.client is not None:
            await self.client.aclose()


class Tools(Plugin):
    """The tools of one call."""

    Config = ToolSettings
    Service = ToolService
    config: ToolSettings
    service: ToolService

    async def on_call_start(self) -> None:
        """Offer the tools before the model's session is configured."""
        tools = [self._http_tool(tool) for tool in self.config.http]
        if self.config.end_call:
            tools.append(self._end_call_tool())
        if self.config.transfer or self.config.transfer_prefixes:
            tools.append(self._transfer_tool())
        offer(self.call, tools)

    # ---- HTTP ----

    def _http_tool(self, tool: HttpTool) -> Tool:
        return Tool(
            tool.name,
            tool.description,
            partial(self._request, tool),
            tool.schema,
            timeout_s=tool.timeout_s + 1,  # ours strikes first, and has words for it
            filler=tool.filler,
        )

    async def _request(
        self, tool: HttpTool, arguments: Mapping[str, Any]
    ) -> str | Mapping[str, Any]:
        client = self.service.client
        if client is None:
            raise PluginError("the service is not open")
        if tool.filler_text is not None:
            self._say(tool.filler_text)
        call = {
            "caller": self.call.caller,
            "called": self.call.called,
            "call_id": self.call.call_id,
        }
        try:
            return await perform(client, tool, build(tool, arguments, call))
        except Failed as error:
            cause = error.__cause__
            self.call.log.warning(
                "tool's request failed",
                tool=tool.name,
                why=str(error).partition(":")[0],  # what follows is the service's own words
                error=None if cause is None else repr(cause)[:200],
            )
            return {"error": str(error)}

    def _say(self, text: str) -> None:
        try:
            self.call.say(text)
        except Unsupported as error:
            self.call.log.info("filler not spoken", why=str(error))

    # ---- the call itself ----

    def _end_call_tool(self) -> Tool:
        return Tool(
            "end_call",
            "End the telephone call, once the caller has said goodbye or has no further wish. "
            "A farewell is spoken for you afterwards: do not say goodbye yourself.",
            self._end_call,
            answer=False,
        )

    async def _end_call(self, arguments: Mapping[str, Any]) -> str:
        try:
            self.call.hang_up(farewell=True, reason="model")
        except Unsupported as error:
            return f"the call is ending already: {error}"
        return "The call ends after the farewell."

    def _transfer_tool(self) -> Tool:
        names, prefixes = list(self.config.transfer), self.config.transfer_prefixes
        properties: dict[str, Any] = {}
        if names:
            properties["target"] = {"type": "string", "enum": names, "description": "Whom to."}
        if prefixes:
            properties["number"] = {
                "type": "string",
                "pattern": f"^({'|'.join(map(re.escape, prefixes))})[0-9]{{1,14}}$",
                "description": "A telephone number in E.164, such as +4930123456.",
            }
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if len(properties) == 1:
            schema["required"] = list(properties)
        return Tool(
            "transfer",
            "Hand the caller over to somebody else. Say so first. If nobody answers, the caller "
            "comes back to you.",
            self._transfer,
            schema,
            timeout_s=_LAST_WORDS_S + _TRANSFER_S,
        )

    async def _transfer(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        target = self._target(arguments)
        if target is None:
            return {"error": "say whom to, by one of the names or numbers that are allowed"}
        try:
            # A breath of silence after what is being said: once it is heard, all is.
            breath = Audio(self.call.format.silence(20), self.call.format)
            with trio.move_on_after(_LAST_WORDS_S):
                await self.call.play(breath).heard()
            outcome = await self.call.transfer(target)
        except (Unsupported, ValueError) as error:
            return {"error": f"the caller could not be transferred: {error}"}
        if outcome.done:
            return {"transferred": True}
        return {"error": f"nobody took the call: {outcome.text or outcome.status}"}

    def _target(self, arguments: Mapping[str, Any]) -> str | None:
        """A number that the settings allow, whatever the schema let through."""
        if (name := arguments.get("target")) is not None:
            return self.config.transfer.get(name)
        number = str(arguments.get("number", ""))
        allowed = E164.fullmatch(number) and number.startswith(self.config.transfer_prefixes)
        return number if allowed else None
