"""Functions: how the model is told of them, when a call is whole, what it is answered with."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.realtime.script import JSON, Script
from voiced.config.types import Agent, RealtimeEngine
from voiced.engine import EngineEvent, EngineFault, Plan, ToolCall, ToolSpec
from voiced.formats import PCMU_8K
from voiced.realtime.calls import NOT_RUN, REMEMBERED
from voiced.realtime.session import RealtimeMachine

SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}}}
TRANSFER = ToolSpec("transfer", "Hand the caller over.", SCHEMA)
WIRE = {
    "type": "function",
    "name": "transfer",
    "description": "Hand the caller over.",
    "parameters": SCHEMA,
}
CALL = ToolCall("call_1", "fc_1", "transfer", '{"to":"sales"}')


def item(arguments: str = "", status: str | None = "in_progress", **fields: Any) -> JSON:
    call = {"id": "fc_1", "type": "function_call", "name": "transfer", "call_id": "call_1"}
    return {**call, "arguments": arguments, "status": status, **fields}


def tooled(config: RealtimeEngine | None = None, tools: tuple[ToolSpec, ...] = ()) -> Script:
    script = Script(config)
    wanted = Plan("call-1", Agent(), "Answer.", PCMU_8K, tools or (TRANSFER,))
    script.machine = RealtimeMachine(wanted, script.config)
    return script


def added(script: Script, **fields: Any) -> Script:
    return script.says("response.output_item.added", response_id="resp_1", item=item(**fields))


def whole(script: Script, arguments: str = CALL.arguments, **fields: Any) -> Script:
    fields = {"item_id": "fc_1", "call_id": "call_1", "name": "transfer", **fields}
    kind = "response.function_call_arguments"
    script.says(f"{kind}.delta", response_id="resp_1", item_id="fc_1", delta=arguments[:3])
    return script.says(f"{kind}.done", response_id="resp_1", arguments=arguments, **fields)


def over(script: Script, arguments: str = CALL.arguments, status: str | None = "completed") -> Any:
    done = item(arguments, status)
    return script.says("response.output_item.done", response_id="resp_1", item=done)


def calls(script: Script) -> list[EngineEvent]:
    return [event for event in script.heard() if isinstance(event, ToolCall)]


# --- what may be called -------------------------------------------------------------------------


def test_the_plans_tools_are_in_the_first_update() -> None:
    script = tooled().says("session.created", session={})
    (update,) = script.sent()
    assert update["session"]["tools"] == [WIRE]
    assert update["session"]["tool_choice"] == "auto"


def test_beta_has_them_at_the_top_too() -> None:
    script = tooled(RealtimeEngine(dialect="beta")).says("session.created", session={})
    (update,) = script.sent()
    assert update["session"]["tools"] == [WIRE]
    assert "type" not in update["session"]


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_tools_are_replaced_by_an_update(dialect: Any) -> None:
    script = tooled(RealtimeEngine(dialect=dialect)).ready()
    script.machine.set_tools([])
    (update,) = script.sent()
    assert update["session"].pop("type", "beta") == ("realtime" if dialect == "ga" else "beta")
    assert update["session"] == {"tools": [], "tool_choice": "auto"}


def test_the_same_tools_again_are_not_sent() -> None:
    script = tooled().ready()
    script.machine.set_tools([TRANSFER])
    assert script.sent() == []


def test_tools_set_before_the_server_spoke_are_in_the_first_update() -> None:
    script = Script()
    script.machine.set_tools([TRANSFER])
    script.says("session.created", session={})
    (update,) = script.sent()
    assert update["session"]["tools"] == [WIRE]
    script.says("session.updated", session=update["session"])
    assert script.sent() == []


def test_tools_set_while_the_session_is_configured_come_after_it() -> None:
    script = Script().says("session.created", session={})
    (update,) = script.sent()
    script.machine.set_tools([TRANSFER])
    script.says("session.updated", session=update["session"])
    (late,) = script.sent()
    assert late["session"]["tools"] == [WIRE]


def test_a_server_without_functions_is_spoken_to_without() -> None:
    script = tooled().says("session.created", session={}).forget()
    script.error("unknown_parameter", "Unknown parameter: 'session.tools'.", param="session.tools")
    (update,) = script.sent()
    assert "tools" not in update["session"]


def test_an_update_that_is_refused_costs_no_answer() -> None:
    script = Script().ready()
    script.machine.respond()
    script.machine.set_tools([TRANSFER])
    script.machine.set_tools([])
    create, first, second = script.sent()
    assert create["type"] == "response.create"
    for update in (first, second):
        script.error("server_error", "oops", update["event_id"], kind="server_error")
    script.created()
    assert script.machine.ready
    faults = [event for event in script.heard() if isinstance(event, EngineFault)]
    assert [fault.action for fault in faults] == ["alarm", "alarm"]
    assert script.sent() == []


# --- when a call is told ------------------------------------------------------------------------


def test_a_call_is_told_once_as_soon_as_its_arguments_are_whole() -> None:
    script = added(tooled().ready().created())
    assert calls(script) == []
    assert calls(whole(script)) == [CALL]
    over(script)
    script.done(output=[item(CALL.arguments, "completed")])
    assert calls(script) == []


@pytest.mark.parametrize("last", ["item", "response", "response without item status"])
def test_any_event_may_bring_the_arguments(last: str) -> None:
    script = added(tooled().ready().created())
    if last == "item":
        over(script)
    else:
        status = "completed" if last == "response" else None
        script.done(output=[{"id": "m", "type": "message"}, item(CALL.arguments, status)])
    assert calls(script) == [CALL]


@pytest.mark.parametrize("fields", [{"name": None}, {"name": None, "call_id": None}])
def test_what_the_last_event_leaves_out_the_first_has_said(fields: JSON) -> None:
    script = added(tooled().ready().created())
    assert calls(whole(script, **fields)) == [CALL]


def test_a_name_that_comes_last_is_waited_for() -> None:
    script = tooled().ready().created()
    assert calls(whole(script, name=None)) == []
    assert calls(over(script)) == [CALL]


def test_without_a_call_id_the_items_serves() -> None:
    script = tooled().ready().created()
    (call,) = calls(whole(script, call_id=None))
    assert call == ToolCall("fc_1", "fc_1", "transfer", CALL.arguments)


def test_without_an_item_id_the_calls_serves_and_it_is_told_once() -> None:
    script = tooled().ready().created()
    (call,) = calls(whole(script, item_id=""))
    script.machine.tool_result("call_1", "ok")
    assert isinstance(call, ToolCall)
    assert calls(over(script)) == []


@pytest.mark.parametrize("status", ["incomplete", "in_progress"])
def test_half_a_call_is_not_told(status: str) -> None:
    script = added(tooled().ready().created())
    half = CALL.arguments[:7]
    over(whole(script, half), half, status)
    script.done(status="incomplete", output=[item(half, status)])
    assert calls(script) == []


def test_arguments_that_are_no_json_are_told_once_the_item_is_complete() -> None:
    script = added(tooled().ready().created())
    assert calls(whole(script, "to sales")) == []
    (call,) = calls(over(script, "to sales"))
    assert isinstance(call, ToolCall)
    assert call.arguments == "to sales"


def test_no_arguments_are_an_empty_object() -> None:
    script = added(tooled().ready().created())
    (call,) = calls(over(whole(script, ""), ""))
    assert isinstance(call, ToolCall)
    assert call.arguments == "{}"


def test_two_calls_in_one_answer() -> None:
    script = tooled().ready().created()
    other = item("{}", "completed", id="fc_2", call_id="call_2", name="weather")
    over(whole(added(script)))
    script.says("response.output_item.added", response_id="resp_1", item={**other, "arguments": ""})
    script.says("response.output_item.done", response_id="resp_1", item=other)
    assert calls(script) == [CALL, ToolCall("call_2", "fc_2", "weather", "{}")]


@pytest.mark.parametrize("output", ["odd", 5, [3], [{"type": 1}], None])
def test_an_odd_output_costs_nothing(output: Any) -> None:
    script = tooled().ready().created().forget()
    script.done(output=output)
    assert len(script.heard()) == 1


def test_messages_are_no_calls() -> None:
    script = tooled().ready().created().forget()
    message = {"id": "item_1", "type": "message", "role": "assistant", "content": []}
    script.says("response.output_item.added", response_id="resp_1", item=message)
    done = {**message, "status": "completed"}
    script.says("response.output_item.done", response_id="resp_1", item=done)
    assert script.heard() == []


def test_the_calls_of_out_of_band_answers_are_nobodys() -> None:
    script = tooled().ready().created(conversation_id=None)
    over(whole(added(script)))
    assert script.heard() == []
    assert script.sent() == []


def test_a_call_of_an_answer_that_was_cancelled_is_not_run_and_the_model_knows() -> None:
    script = added(tooled().ready().created())
    script.machine.cancel()
    script.forget()
    over(whole(script))
    assert calls(script) == []
    (output,) = script.sent()
    assert output["item"] == {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": NOT_RUN,
    }


# --- results ------------------------------------------------------------------------------------


def test_a_result_is_an_item_and_asks_for_nothing() -> None:
    script = whole(tooled().ready().created()).forget()
    script.machine.tool_result("call_1", '{"ok":true}')
    (create,) = script.sent()
    assert create["type"] == "conversation.item.create"
    assert create["item"] == {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": '{"ok":true}',
    }


def test_the_answer_to_a_result_waits_for_the_end_of_the_response() -> None:
    script = whole(tooled().ready().created()).forget()
    script.machine.tool_result("call_1", "done")
    script.machine.respond()
    assert script.kinds() == ["conversation.item.create"]
    script.done()
    assert script.kinds() == ["response.create"]


@pytest.mark.parametrize("call_id", ["call_1", "another session's"])
def test_a_second_result_and_a_strangers_are_dropped(call_id: str) -> None:
    script = whole(tooled().ready().created())
    script.machine.tool_result("call_1", "done")
    script.forget()
    script.machine.tool_result(call_id, "again")
    assert script.sent() == []


def test_nothing_is_sent_after_the_end() -> None:
    script = whole(tooled().ready().created()).forget()
    script.machine.lose("x", "gone", retryable=True)
    script.machine.tool_result("call_1", "done")
    script.machine.set_tools([])
    assert script.sent() == []


# --- whatever comes -----------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "", None])
TEXTS = st.sampled_from(["", "{}", '{"a":1}', '{"a', "null", "[]", None])
STATUSES = st.sampled_from(["completed", "incomplete", None])
ITEMS = st.fixed_dictionaries(
    {"type": st.sampled_from(["function_call", "message"])},
    optional={
        "id": NAMES,
        "call_id": NAMES,
        "name": st.sampled_from(["transfer", None]),
        "arguments": TEXTS,
        "status": STATUSES,
    },
)
EVENTS = st.one_of(
    st.tuples(st.just("response.output_item.added"), st.fixed_dictionaries({"item": ITEMS})),
    st.tuples(st.just("response.output_item.done"), st.fixed_dictionaries({"item": ITEMS})),
    st.tuples(
        st.just("response.function_call_arguments.done"),
        st.fixed_dictionaries(
            {"item_id": st.sampled_from(["a", "b", ""]), "call_id": NAMES, "arguments": TEXTS},
            optional={"name": st.sampled_from(["transfer", None])},
        ),
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=12), st.lists(ITEMS, max_size=3), st.booleans())
def test_no_call_is_told_twice_and_each_can_be_answered(
    script_of: list[tuple[str, JSON]], output: list[JSON], cancelled: bool
) -> None:
    script = tooled().ready().created()
    if cancelled:
        script.machine.cancel()
    for kind, fields in script_of:
        script.says(kind, response_id="resp_1", **fields)
    script.done(output=output)
    told = [event for event in script.heard() if isinstance(event, ToolCall)]
    assert not (cancelled and told)
    ids = [call.call_id for call in told]
    assert len(set(ids)) == len(ids)
    script.forget()
    for call_id in ids:
        script.machine.tool_result(call_id, "x")
    assert [event["item"]["call_id"] for event in script.sent()] == ids


def test_calls_without_end_fill_no_memory() -> None:
    script = tooled().ready().created()
    for number in range(3 * REMEMBERED):
        added(script, id=f"fc_{number}", call_id=f"call_{number}")
        whole(script, item_id=f"x_{number}", call_id=f"y_{number}")
    script.forget()
    script.machine.tool_result("y_0", "forgotten")
    script.machine.tool_result(f"y_{3 * REMEMBERED - 1}", "known")
    assert len(script.sent()) == 1
