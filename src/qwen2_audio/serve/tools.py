"""Tools of a chat request: what the prompt says of them, what the answer is held to, and what of it is a call.

`engine/structured/tool_calls.py` has the words; an answer's calls are OpenAI's `tool_calls`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..engine.structured import tool_calls
from ..engine.structured.grammar import check, is_gbnf
from ..engine.structured.tool_calls import CallDelta, FreeInput, Tool, ToolCallParser
from ..errors import ConfigError
from ..text.chat_template import DEFAULT_SYSTEM
from ..types import Completion, Message, SamplingParams
from .errors import ApiError
from .protocol import ChatRequest, CustomFormat, Function, ToolItem, json_type
from .structured import MOST_OF_GRAMMAR, check_constraint

_MODES = ("none", "auto", "required")


@dataclass(frozen=True)
class ToolUse:
    """What an answer may do with tools."""

    tools: tuple[Tool, ...]  # that it may call
    described: tuple[Tool, ...]  # that the prompt describes
    required: bool = False  # it has to call
    named: bool = False  # one tool, which the request names
    parallel: bool = True  # it may call several times

    def parser(self) -> ToolCallParser:
        """For the text of one answer."""
        custom = [tool.name for tool in self.tools if tool.input is not None]
        return ToolCallParser([tool.name for tool in self.tools if tool.input is None], custom)


def tool_use_of(request: ChatRequest) -> ToolUse | None:
    """What the request asks for; None without tools, and where none may be called. ApiError for a wrong tool_choice."""
    tools = [_tool(item, f"tools[{number}]") for number, item in enumerate(request.tools)]
    return use_of(tools, request.tool_choice, parallel=request.parallel_tool_calls)


def use_of(tools: Sequence[Tool], choice: Any, *, parallel: bool, flat: bool = False) -> ToolUse | None:
    """What may be called of `tools`, by the request's tool_choice, as `tool_use_of`. `flat`: it names a tool in the
    form of /v1/responses, {"type", "name"}."""
    names = [tool.name for tool in tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _wrong(f"tools has two called {twice[0]!r}; expected a name for each.", "tools")
    for number, tool in enumerate(tools):
        kind = (tool.parameters or {}).get("type", "object")
        if kind is not None and kind != "object" and not (isinstance(kind, list) and "object" in kind):
            where = f"tools[{number}].{'' if flat else 'function.'}parameters"
            raise _wrong(f"{where} has the type {kind!r:.80}; expected 'object', which arguments are.", where)
    choice = "auto" if choice is None else choice
    if not isinstance(choice, (str, dict)):
        raise _wrong(f"tool_choice is {json_type(choice)}; expected {', '.join(_MODES)}, or an object.", "tool_choice")
    if not tools and choice not in ("none", "auto"):
        raise _wrong("tool_choice was given without tools; give it some, or leave it out.", "tool_choice")
    tools = tuple(tools)
    if isinstance(choice, str):
        if choice not in _MODES:
            raise _wrong(f"tool_choice is {choice[:80]!r}; expected {', '.join(_MODES)}, or an object.", "tool_choice")
        if choice == "none" or not tools:
            return None
        return ToolUse(tools, tools, choice == "required", parallel=parallel)
    if choice.get("type") == "allowed_tools":
        return _of_allowed(choice, tools, parallel=parallel, flat=flat)
    named = _named(choice, tools, "tool_choice", flat=flat)
    return ToolUse((named,), tools, required=True, named=True, parallel=False)


def _tool(item: ToolItem, where: str) -> Tool:
    given = item.function if item.type == "function" else item.custom
    other = item.custom if item.type == "function" else item.function
    if given is None or other is not None:
        found = "is missing" if given is None else "stands beside the other kind of tool"
        param = f"{where}.{item.type}"
        raise ApiError(
            f"{param} {found}; expected it alone with the type {item.type!r}.",
            param=param,
            code="missing_required_parameter" if given is None else "invalid_value",
        )
    if isinstance(given, Function):
        return Tool(given.name, given.description, given.parameters, bool(given.strict))
    wanted = given.format or CustomFormat(type="text")
    if (wanted.type == "grammar") != (wanted.grammar is not None):
        param = f"{where}.custom.format"
        raise _wrong(f"{param} has the type {wanted.type!r}; expected a grammar with the type 'grammar' only.", param)
    if wanted.grammar is None:
        return Tool(given.name, given.description, input=FreeInput())
    grammar = free_input(wanted.grammar.syntax, wanted.grammar.definition, f"{where}.custom.format.grammar.definition")
    return Tool(given.name, given.description, input=grammar)


def free_input(syntax: Literal["lark", "regex"], definition: str, where: str) -> FreeInput:
    """A custom tool's grammar. ApiError for one that is too long, or of another kind, or not accepted by itself."""
    if len(definition) > MOST_OF_GRAMMAR:
        raise _wrong(f"{where} has {len(definition)} characters; expected {MOST_OF_GRAMMAR} at most.", where)
    if syntax == "lark" and is_gbnf(definition):
        raise _wrong(f"{where} has '::=', which is not of Lark; expected rules such as 'start: \"a\"'.", where)
    try:
        check(("grammar" if syntax == "lark" else "regex", definition))
    except ConfigError as error:
        raise _wrong(f"{where} cannot be honoured: {str(error).partition(': ')[2] or error}", where) from error
    return FreeInput(syntax, definition)


def _of_allowed(choice: Mapping[str, Any], tools: Sequence[Tool], *, parallel: bool, flat: bool) -> ToolUse:
    where = "tool_choice" if flat else "tool_choice.allowed_tools"
    allowed = choice if flat else choice.get("allowed_tools")
    if not isinstance(allowed, dict) or allowed.get("mode") not in ("auto", "required"):
        raise _wrong(f"{where} is {allowed!r:.80}; expected {{'mode': 'auto' or 'required', 'tools': [...]}}.", where)
    listed = allowed.get("tools")
    if not isinstance(listed, list) or not listed:
        raise _wrong(f"{where}.tools is {listed!r:.80}; expected a list of tools.", f"{where}.tools")
    chosen = [_named(item, tools, f"{where}.tools[{number}]", flat=flat) for number, item in enumerate(listed)]
    chosen = [tool for tool in tools if tool in chosen]
    return ToolUse(tuple(chosen), tuple(chosen), allowed["mode"] == "required", parallel=parallel)


def _named(choice: Any, tools: Sequence[Tool], where: str, *, flat: bool) -> Tool:
    """The tool that `{"type": "function", "function": {"name": ...}}` names, or the same with custom."""
    kind = choice.get("type") if isinstance(choice, dict) else None
    inner = (choice if flat else choice.get(kind)) if kind in ("function", "custom") else None
    name = inner.get("name") if isinstance(inner, dict) else None
    if not isinstance(name, str):
        form = "{'type': 'function', 'name': ...}" if flat else "{'type': 'function', 'function': {'name': ...}}"
        raise _wrong(f"{where} is {choice!r:.120}; expected {form}, or custom in its place.", where)
    for tool in tools:
        if tool.name == name and (tool.input is not None) == (kind == "custom"):
            return tool
    raise _wrong(f"{where} names the {kind} {name[:80]!r}, which is none of tools.", where)


def params_for(use: ToolUse, asked_format: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of SamplingParams that hold an answer to `use`. ApiError where that and `asked_format` cannot be.

    `asked_format`: the fields that response_format asks for.
    """
    if asked_format and "json_schema" not in asked_format:
        raise _wrong("structured_outputs holds the answer to no call of a tool; leave it or tools out.", "tools")
    most = tool_calls.MOST_CALLS if use.parallel else 1
    tools = use.tools if use.required else tool_calls.as_can_be_held(use.tools)
    if asked_format:  # whoever checks the grammar of both does not know which is at fault
        check_constraint(SamplingParams(grammar=tool_calls.calls_grammar(tools)), "tools")
    if use.required:
        return {"grammar": tool_calls.calls_grammar(tools, most=most)}
    if asked_format:
        return {"grammar": tool_calls.calls_grammar(tools, most=most, otherwise=asked_format["json_schema"])}
    grammar = tool_calls.calls_grammar(tools, most=1)
    return {"grammar": grammar, "trigger": tool_calls.BEGIN, "trigger_once": not use.parallel}


def with_tools(messages: Sequence[Message], use: ToolUse) -> list[Message]:
    """The conversation whose system turn describes the tools."""
    words = tool_calls.system_words(use.described)
    if not messages or messages[0]["role"] != "system":
        return [{"role": "system", "content": f"{DEFAULT_SYSTEM}\n\n{words}"}, *messages]
    content = messages[0]["content"]
    content = (
        f"{content}\n\n{words}"
        if isinstance(content, str)
        else [*content, {"type": "text", "text": f"\n\n{words}" if content else words}]
    )
    return [{**messages[0], "content": content}, *messages[1:]]


def in_order_of_calls(messages: Sequence[Any]) -> list[int]:
    """The places of messages of chat, with what tools gave back in the order of their calls: the model is told no ids.
    What names none of the calls comes last."""
    places, ids, start = list[int](), list[Any](), 0
    for number, message in enumerate(messages):
        if isinstance(message, dict) and message.get("role") == "tool":
            rank = _rank(message, ids)
            later = (i for i in range(start, number) if _rank(messages[places[i]], ids) > rank)
            places.insert(next(later, number), number)
            continue
        places.append(number)
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        ids = [call.get("id") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
        start = number + 1
    return places


def _rank(result: Mapping[str, Any], ids: Sequence[Any]) -> int:
    identifier = result.get("tool_call_id")
    return ids.index(identifier) if identifier is not None and identifier in ids else len(ids)


def joined_turns(first: Message, second: Message) -> Message:
    """Two turns of one role as one, the second on a line of its own."""
    one, two = first["content"], second["content"]
    if isinstance(one, str) and isinstance(two, str):
        return {**first, "content": f"{one}\n{two}"}
    parts = [[{"type": "text", "text": turn}] if isinstance(turn, str) else list(turn) for turn in (one, two)]
    return {**first, "content": [*parts[0], {"type": "text", "text": "\n"}, *parts[1]]}


def calls_as_text(calls: Any, where: str) -> str:
    """The calls of an assistant's earlier turn in the words of an answer. ApiError names the field that is wrong."""
    if not isinstance(calls, list):
        raise _wrong(f"{where} is {json_type(calls)}; expected a list of calls.", where)
    return "\n".join(_call_as_text(call, f"{where}[{number}]") for number, call in enumerate(calls))


def _call_as_text(call: Any, where: str) -> str:
    kind = (call.get("type") or "function") if isinstance(call, dict) else None
    if kind == "custom":
        return _custom_call_as_text(call.get("custom"), f"{where}.custom")
    function = call.get("function") if kind == "function" else None
    if not isinstance(function, dict):
        raise _wrong(f"{where} is {call!r:.120}; expected a call of a function, with its name and arguments.", where)
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str):
        raise _wrong(f"{where}.function has no name; expected the function's.", f"{where}.function.name")
    try:
        value = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments or {}
    except (ValueError, RecursionError) as error:
        raise _wrong(f"{where}.function.arguments is no JSON: {error}.", f"{where}.function.arguments") from error
    return tool_calls.call_words(name, json.dumps(value, ensure_ascii=False))


def _custom_call_as_text(call: Any, where: str) -> str:
    for key in ("name", "input"):
        if not isinstance(call, dict) or not isinstance(call.get(key), str):
            raise _wrong(f"{where}.{key} is no text; expected the custom tool's {key}.", f"{where}.{key}")
    return tool_calls.custom_call_words(call["name"], call["input"])


def answer_message(answer: Completion, use: ToolUse) -> tuple[dict[str, Any], str | None]:
    """The message of an answer with its calls, and the finish reason where it is none of the answer's own."""
    parser, calls = use.parser(), list[dict[str, Any]]()
    said, deltas = parser.push(answer.text)
    said += parser.flush(cut=was_cut(use, answer.finish_reason))
    for delta in deltas:
        if delta.name is not None:
            calls.append(call_body(delta))
        else:
            kind, key = call_fields(delta)
            calls[delta.index][kind][key] += delta.arguments
    content = said or (None if calls or use.required else "")
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    return message, finish_reason(use, answer.finish_reason, parser)


def call_fields(delta: CallDelta) -> tuple[str, str]:
    """The type of a call, which is also the key of its body, and where in that the arguments are."""
    return ("custom", "input") if delta.custom else ("function", "arguments")


def call_body(delta: CallDelta) -> dict[str, Any]:
    """A call without arguments, under a new id. `delta` is its first."""
    kind, key = call_fields(delta)
    return {"id": new_id("call"), "type": kind, kind: {"name": delta.name, key: ""}}


def new_id(what: str) -> str:
    """An id of a call or an item."""
    return f"{what}_{uuid.uuid4().hex[:24]}"


def was_cut(use: ToolUse, reason: str | None) -> bool:
    """The answer would have gone on: the model did not end it, or it was held to calls."""
    return use.required or reason != "stop"


def finish_reason(use: ToolUse, reason: str | None, parser: ToolCallParser) -> str | None:
    """OpenAI's finish reason of an answer with calls; None for its own. It says "stop" where the request named one, and
    where a stop string has cut the last call."""
    return "tool_calls" if parser.num_calls and reason == "stop" and not (use.named or parser.in_call) else None


def _wrong(message: str, param: str) -> ApiError:
    return ApiError(message, param=param)
