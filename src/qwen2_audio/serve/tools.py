"""Tools of a chat request: what the prompt says of them, what the answer is held to, and what of it is a call.

`engine/structured/tool_calls.py` has the words; an answer's calls are OpenAI's `tool_calls`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.structured import tool_calls
from ..engine.structured.tool_calls import Tool, ToolCallParser
from ..text.chat_template import DEFAULT_SYSTEM
from ..types import Completion, Message
from .errors import ApiError
from .protocol import ChatRequest, json_type

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
        return ToolCallParser([tool.name for tool in self.tools])


def tool_use_of(request: ChatRequest) -> ToolUse | None:
    """What the request asks for; None without tools, and where none may be called. ApiError for a wrong tool_choice."""
    functions = [tool.function for tool in request.tools]
    tools = tuple(Tool(one.name, one.description, one.parameters, bool(one.strict)) for one in functions)
    names = [tool.name for tool in tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _wrong(f"tools has two functions called {twice[0]!r}; expected a name for each.", "tools")
    choice = "auto" if request.tool_choice is None else request.tool_choice
    if not isinstance(choice, (str, dict)):
        raise _wrong(f"tool_choice is {json_type(choice)}; expected {', '.join(_MODES)}, or an object.", "tool_choice")
    if not tools and choice not in ("none", "auto"):
        raise _wrong("tool_choice was given without tools; give it some, or leave it out.", "tool_choice")
    if isinstance(choice, str):
        if choice not in _MODES:
            raise _wrong(f"tool_choice is {choice[:80]!r}; expected {', '.join(_MODES)}, or an object.", "tool_choice")
        if choice == "none" or not tools:
            return None
        return ToolUse(tools, tools, choice == "required", parallel=request.parallel_tool_calls)
    if choice.get("type") == "allowed_tools":
        return _of_allowed(choice, tools, request.parallel_tool_calls)
    named = _named(choice, tools, "tool_choice")
    return ToolUse((named,), tools, required=True, named=True, parallel=False)


def _of_allowed(choice: Mapping[str, Any], tools: Sequence[Tool], parallel: bool) -> ToolUse:
    where = "tool_choice.allowed_tools"
    allowed = choice.get("allowed_tools")
    if not isinstance(allowed, dict) or allowed.get("mode") not in ("auto", "required"):
        raise _wrong(f"{where} is {allowed!r:.80}; expected {{'mode': 'auto' or 'required', 'tools': [...]}}.", where)
    listed = allowed.get("tools")
    if not isinstance(listed, list) or not listed:
        raise _wrong(f"{where}.tools is {listed!r:.80}; expected a list of tools.", f"{where}.tools")
    chosen = [_named(item, tools, f"{where}.tools[{number}]") for number, item in enumerate(listed)]
    chosen = [tool for tool in tools if tool in chosen]
    return ToolUse(tuple(chosen), tuple(chosen), allowed["mode"] == "required", parallel=parallel)


def _named(choice: Any, tools: Sequence[Tool], where: str) -> Tool:
    """The tool that `{"type": "function", "function": {"name": ...}}` names."""
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(choice, dict) or choice.get("type") != "function" or not isinstance(name, str):
        raise _wrong(
            f"{where} is {choice!r:.120}; expected {{'type': 'function', 'function': {{'name': ...}}}}.", where
        )
    for tool in tools:
        if tool.name == name:
            return tool
    raise _wrong(f"{where} names {name[:80]!r}, which is none of tools.", where)


def params_for(use: ToolUse, asked_format: Mapping[str, Any], stop: tuple[str, ...]) -> dict[str, Any]:
    """Fields of SamplingParams that hold an answer to `use`. ApiError where that and `asked_format` cannot be.

    `asked_format`: the fields that response_format asks for; `stop`: the request's stop strings.
    """
    if asked_format and "json_schema" not in asked_format:
        raise _wrong("structured_outputs holds the answer to no call of a tool; leave it or tools out.", "tools")
    most = tool_calls.MOST_CALLS if use.parallel else 1
    if use.required:
        return {"grammar": tool_calls.calls_grammar(use.tools, most=most)}
    if asked_format:
        return {"grammar": tool_calls.calls_grammar(use.tools, most=most, otherwise=asked_format["json_schema"])}
    free = [tool_calls.as_can_be_held(tool) for tool in use.tools]
    fields = {"grammar": tool_calls.calls_grammar(free, most=1), "trigger": tool_calls.BEGIN}
    return fields if use.parallel else {**fields, "stop": (*stop, tool_calls.END)}


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


def calls_as_text(calls: Any, where: str) -> str:
    """The calls of an assistant's earlier turn in the words of an answer. ApiError names the field that is wrong."""
    if not isinstance(calls, list):
        raise _wrong(f"{where} is {json_type(calls)}; expected a list of calls.", where)
    return "\n".join(_call_as_text(call, f"{where}[{number}]") for number, call in enumerate(calls))


def _call_as_text(call: Any, where: str) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or call.get("type", "function") != "function":
        raise _wrong(f"{where} is {call!r:.120}; expected a call of a function, with its name and arguments.", where)
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str):
        raise _wrong(f"{where}.function has no name; expected the function's.", f"{where}.function.name")
    try:
        value = json.loads(arguments) if isinstance(arguments, str) and arguments else arguments or {}
    except (ValueError, RecursionError) as error:
        raise _wrong(f"{where}.function.arguments is no JSON: {error}.", f"{where}.function.arguments") from error
    return tool_calls.call_words(name, json.dumps(value, ensure_ascii=False))


def answer_message(answer: Completion, use: ToolUse) -> tuple[dict[str, Any], str | None]:
    """The message of an answer with its calls, and the finish reason where it is none of the answer's own."""
    parser, calls = use.parser(), list[dict[str, Any]]()
    said, deltas = parser.push(answer.text)
    said += parser.flush()
    for delta in deltas:
        if delta.name is not None:
            calls.append(call_body(delta.name))
        calls[delta.index]["function"]["arguments"] += delta.arguments
    message = {"role": "assistant", "content": said or (None if calls else ""), "refusal": None}
    if not calls:
        return message, None
    return {**message, "tool_calls": calls}, finish_reason(use, answer.finish_reason)


def call_body(name: str) -> dict[str, Any]:
    """A call without arguments, under a new id."""
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": {"name": name, "arguments": ""}}


def finish_reason(use: ToolUse, reason: str | None) -> str | None:
    """OpenAI's finish reason of an answer with calls; None for its own. It says "stop" where the request named one."""
    return "tool_calls" if reason == "stop" and not use.named else None


def _wrong(message: str, param: str) -> ApiError:
    return ApiError(message, param=param)
