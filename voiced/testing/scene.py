"""A real call of voiced between a fake telephone and a fake model, with the plugin under test.

    @virtual_time
    async def test_a_key_is_told() -> None:
        async with call_with(MyPlugin, {"key": "5"}) as call:
            await call.press("5")
            assert call.told == [("system", "They pressed five.")]
        assert call.summary.reason == "test_over"

What a plugin does wrong, a call passes over; a test must not. Leaving `call_with` raises
`PluginFailed` for everything that was passed over, unless `failures` was emptied.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio
from msgspec import UNSET

from voiced.call import Call, Services
from voiced.config.types import Agent
from voiced.engine import (
    AgentAudio,
    AgentAudioDone,
    AgentTranscript,
    CallerTranscript,
    Committed,
    Ready,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
)
from voiced.formats import PCMU_8K, AudioFormat
from voiced.hooks.house import Complete, House
from voiced.hooks.tables import from_mapping
from voiced.journal import Journal
from voiced.leg import CallFacts, Transferred
from voiced.plugin import Json, Plugin, PluginError, Settings, Summary
from voiced.prompts import Prompts
from voiced.summary import summary
from voiced.testing.engine import FakeEngine, FakeSession
from voiced.testing.leg import FakeLeg

__all__ = ["FACTS", "PluginFailed", "Scene", "call_with"]

FACTS = CallFacts("00000000000000a1", "twilio", "CA1", "+15550199", "+15550100")
"""Who calls whom, unless a test says otherwise."""

FRAME_MS = 20
TICK_S = 0.001
PATIENCE_S = 30.0
"""How long a test waits, in its own time, for what it expects."""


class PluginFailed(AssertionError):
    """What the plugin did wrong and the call passed over."""


class Scene:
    """A call that runs. `call_with` makes one."""

    def __init__(
        self,
        call: Call,
        leg: FakeLeg,
        engine: FakeEngine,
        notes: Mapping[tuple[str, str], Json],
    ) -> None:
        self.call = call
        """The call itself, for what is not offered here; no promises about it."""
        self.leg = leg
        """The telephone."""
        self.failures: list[tuple[str, str, BaseException | None]] = []
        """What the plugins did wrong: the hook, what happened, the exception if there is one."""
        self.notes = notes
        """Facts that services noted after the call, by call id and name."""
        self._engine = engine
        self._made = 0

    # ---- what the caller does ----

    async def begin(self, media: bool) -> None:
        """Have the model ready and, with `media`, the caller on the line. `call_with` does it."""
        await self.until(lambda: self._engine.sessions)
        self.model.emit(Ready())
        if media:
            await self.answer()

    async def answer(self) -> None:
        """Have audio flow, where `call_with` was told to wait with it."""
        self.call.attach(self.leg)
        await self.until(lambda: self.call.has_media)
        await self.settle()

    async def press(self, keys: str) -> None:
        """Press keys, a tenth of a second apart, and wait until all has been seen to."""
        for key in keys:
            self.leg.press(key)
            await trio.sleep(0.1)

    async def carrier_says(self, **parameters: str) -> None:
        """Add to `call.parameters`, as a carrier may while the call lives."""
        self.call.learn(parameters)
        await self.settle()

    async def caller_says(self, text: str, ms: int = 1000) -> None:
        """Speak for `ms`, in frames of 20 ms; the model notices, and writes the words down."""
        item = self._new("caller")
        self.model.emit(SpeechStarted(item, 0))
        for _ in range(0, ms, FRAME_MS):
            self.leg.say(b"\x21" * (FRAME_MS * self.leg.format.bytes_per_ms))
            await trio.sleep(FRAME_MS / 1000)
        self.model.emit(SpeechStopped(item, ms), Committed(item))
        self.model.emit(CallerTranscript(item, text, final=True))
        await self.settle()

    async def caller_waits(self, ms: int) -> None:
        """Be silent for `ms`."""
        for _ in range(0, ms, FRAME_MS):
            self.leg.say(self.leg.format.silence(FRAME_MS))
            await trio.sleep(FRAME_MS / 1000)

    async def hang_up(self) -> None:
        """Put the telephone down, and wait until the call is over."""
        self.leg.hang_up_as_caller()
        await self.ended()

    # ---- what the model does ----

    @property
    def model(self) -> FakeSession:
        """The model's session; `emit` sends any event of `voiced.engine`."""
        return self._engine.sessions[-1]

    async def agent_says(self, text: str, ms: int = 1000, *, wait: bool = True) -> None:
        """Have the model answer with speech of `ms`, and wait until it has been heard.

        Without `wait` it has begun to be heard: a caller who says something then interrupts it.
        """
        item, response = self._new("agent"), self._new("response")
        form = self.model.output_format
        self.model.emit(
            ResponseStarted(response),
            AgentAudio(response, item, 0, b"\x31" * (ms * form.bytes_per_ms)),
            AgentTranscript(item, text, final=True),
            AgentAudioDone(response, item),
            ResponseDone(response, "completed"),
        )
        await trio.sleep(ms / 1000 + 0.05 if wait else 0.05)

    async def model_calls(self, tool: str, arguments: Mapping[str, Any] | None = None) -> str:
        """Have the model call a tool, and wait for what it is told.

        Where the call ends instead, as it does after a transfer that succeeds, that is nothing: "".
        """
        call_id = self._new("use")
        response = self._new("response")
        text = msgspec.json.encode(arguments or {}).decode()
        self.model.emit(
            ResponseStarted(response),
            ToolCall(call_id, self._new("item"), tool, text),
            ResponseDone(response, "completed"),
        )
        await self.until(lambda: self._result_of(call_id) is not None or self.call.ended.is_set())
        return self._result_of(call_id) or ""

    def _result_of(self, call_id: str) -> str | None:
        for name, *args in self.model.commands:
            if name == "tool_result" and args[0] == call_id:
                return str(args[1])
        return None

    # ---- what came of it ----

    @property
    def told(self) -> list[tuple[str, str]]:
        """Texts that were put into the conversation: role and text."""
        return [
            (str(args[0]), str(args[1]))
            for name, *args in self.model.commands
            if name == "add_message"
        ]

    @property
    def asked(self) -> list[str | None]:
        """Answers that the model was asked for, each with the instructions for it, if any."""
        found = [args[0] for name, *args in self.model.commands if name == "respond"]
        return [None if each is None else str(each) for each in found]

    @property
    def tools(self) -> Sequence[str]:
        """The names of the tools that the model may call."""
        return [tool.name for tool in self.model.tools]

    @property
    def played(self) -> bytes:
        """All audio that was sent to the caller, in the leg's format."""
        return b"".join(payload for _, payload in self.leg.played)

    @property
    def state(self) -> str:
        """A name of `voiced.states.CallState`."""
        return self.call.record.state.value

    @property
    def facts(self) -> Mapping[str, Json]:
        """What was noted of the call so far."""
        return self.call.record.row.facts

    @property
    def summary(self) -> Summary:
        """The call as its journal row has it; whole when it is over."""
        return summary(self.call.record.row)

    # ---- waiting ----

    async def settle(self) -> None:
        """Wait, a hundredth of a second, until what was done has had its effect."""
        await trio.sleep(0.01)

    async def until(self, condition: Callable[[], object], within_s: float = PATIENCE_S) -> None:
        """Wait until `condition()` is true. Raises AssertionError after `within_s`."""
        with trio.move_on_after(within_s):
            while not condition():  # noqa: ASYNC110 - whatever a test wants to wait for
                await trio.sleep(0.01)
            return
        raise AssertionError(f"not so within {within_s:g} s")

    async def ended(self, within_s: float = PATIENCE_S) -> Summary:
        """Wait until the call is over, for whatever reason. Raises AssertionError."""
        with trio.move_on_after(within_s):
            await self.call.ended.wait()
        if not self.call.ended.is_set():
            raise AssertionError(f"the call goes on after {within_s:g} s")
        return self.summary

    def transfers_succeed(self) -> None:
        """Have every transfer succeed from here on.

        Before, the telephone has no way to transfer: `Call.transfer` raises `Unsupported`.
        """
        self._transfers_end(Transferred(True))

    def transfers_fail(self, status: int = 486) -> None:
        """Have nobody answer where callers are transferred to, from here on; the call goes on."""
        self._transfers_end(Transferred(False, status))

    def _transfers_end(self, how: Transferred) -> None:
        async def outcome(target: str) -> Transferred:
            return how

        self.leg.outcome = outcome  # type: ignore[method-assign]

    def _new(self, kind: str) -> str:
        self._made += 1
        return f"{kind}_{self._made}"


@asynccontextmanager
async def call_with(
    plugin: type[Plugin],
    settings: Settings | Mapping[str, Any] | None = None,
    *,
    agent: Agent | None = None,
    facts: CallFacts = FACTS,
    form: AudioFormat = PCMU_8K,
    media: bool = True,
    state_dir: Path | None = None,
    others: Sequence[tuple[type[Plugin], Settings | Mapping[str, Any] | None]] = (),
    complete: Complete | None = None,
) -> AsyncIterator[Scene]:
    """Run a call with `plugin`. The caller is on the line and the model listens on entering.

    Args:
        plugin: the class; its service is made, opened and run as the daemon does.
        settings: its `Config`, or what stands in its TOML table, which is checked as
            `voiced check` does, with paths counted from the working directory.
        agent: who answers; by default one that waits for the caller to speak.
        facts: who calls whom.
        form: the leg's audio.
        media: without, the telephone has not been answered yet: `call.answer()` does that.
        state_dir: where the plugin's service keeps things; by default a folder that is removed.
        others: plugins that come after it in the call's order, each with its settings.
        complete: what `Host.complete` does: it takes the engine's name, the messages and the call's
            id, and returns the answer. Without, there is no chat model.

    Raises PluginFailed on leaving, and `voiced.config.ConfigError` or PluginError for settings
    that `voiced check` would refuse.
    """
    plugins = [_named(*each) for each in ((plugin, settings), *others)]
    agent = agent or Agent(greeting="", silence_prompt_s=0, silence_hangup_s=0)
    engine = FakeEngine(input_format=form, output_format=form)
    journal = Journal(Path("unused"))  # rows wait in it; nobody writes them
    notes: dict[tuple[str, str], Json] = {}

    def annotate(call_id: str, key: str, value: Json) -> None:
        notes[call_id, key] = value

    failed: Exception | None = None  # raised when all is closed, not in groups of the nurseries'
    with tempfile.TemporaryDirectory() as temporary:
        folder = state_dir or Path(temporary)
        async with House.open(folder, annotate, complete or _no_chat) as house:
            try:
                enabled = [await house.add(*each) for each in plugins]
            except PluginError as error:
                failed = error
            else:
                call = Call(
                    facts,
                    "test",
                    agent,
                    engine,
                    form,
                    Services(journal, Prompts()),
                    make_hooks=lambda make_call: house.hooks(UNSET, make_call),
                )
                scene = Scene(call, FakeLeg(form), engine, notes)
                for each in enabled:
                    each.on_failure = lambda *failure: scene.failures.append(failure)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call.run)
                    try:
                        await scene.begin(media)
                        yield scene
                    except Exception as error:
                        failed = error
                        if scene.failures:  # why it is not as the test expects, perhaps
                            error.add_note(f"the plugin has failed before:\n{_said(scene)}")
                    call.end("test_over")
    if failed is not None:
        raise failed
    _raise_failures(scene)


def _named(
    plugin: type[Plugin], settings: Settings | Mapping[str, Any] | None
) -> tuple[str, type[Plugin], Settings]:
    """The table's name, the class, and its settings, checked."""
    name = plugin.__module__.rpartition(".")[2]
    if not isinstance(settings, Settings):
        settings = from_mapping(name, settings or {}, plugin)
    return name, plugin, settings


async def _no_chat(engine: str, messages: Sequence[Mapping[str, str]], call_id: str | None) -> str:
    raise PluginError("there is no chat model in this test; give call_with one: complete=…")


def _raise_failures(scene: Scene) -> None:
    if not scene.failures:
        return
    causes = [error for _, _, error in scene.failures if error is not None]
    raise PluginFailed(_said(scene)) from (causes[0] if causes else None)


def _said(scene: Scene) -> str:
    return "\n".join(f"{hook or 'plugin'}: {why}" for hook, why, _ in scene.failures)
