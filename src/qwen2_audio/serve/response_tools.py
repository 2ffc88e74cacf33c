"""Tools of /v1/responses, whose fields stand side by side: `{"type": "function", "name", "parameters"}`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ..engine.structured.tool_calls import FreeInput, Tool
from .errors import ApiError
from .protocol import Fields, ToolName
from .tools import ToolUse, free_input, use_of

_ONLY_OF = {"function": ("parameters", "strict"), "custom": ("format",)}


class InputFormat(Fields):
    """What a custom tool's input is held to."""

    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class ResponseTool(Fields):
    """A function, or a custom tool."""

    type: Literal["function", "custom"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: InputFormat | None = None

    @property
    def body(self) -> dict[str, Any]:
        """As the response shows it."""
        kept = ("type", "name", "description", *_ONLY_OF[self.type])
        shown = {key: value for key, value in self.model_dump(exclude_none=True).items() if key in kept}
        return {"parameters": None, "strict": False, **shown} if self.type == "function" else shown


def tool_use_of_response(tools: Sequence[ResponseTool], choice: Any, *, parallel: bool) -> ToolUse | None:
    """What an answer may call; None where nothing. ApiError names the field that is wrong."""
    converted = [_tool(tool, f"tools[{number}]") for number, tool in enumerate(tools)]
    return use_of(converted, choice, parallel=parallel, flat=True)


def _tool(tool: ResponseTool, where: str) -> Tool:
    for key in _ONLY_OF["custom" if tool.type == "function" else "function"]:
        if getattr(tool, key) is not None:
            param = f"{where}.{key}"
            raise ApiError(f"{param} has no place in a tool of the type {tool.type!r}; leave it out.", param=param)
    if tool.type == "function":
        return Tool(tool.name, tool.description, tool.parameters, bool(tool.strict))
    return Tool(tool.name, tool.description, input=_input(tool.format, f"{where}.format"))


def _input(wanted: InputFormat | None, where: str) -> FreeInput:
    if wanted is None or wanted.type == "text":
        if wanted is not None and (wanted.syntax or wanted.definition) is not None:
            raise ApiError(f"{where} is text with a grammar; expected the type 'grammar' with it.", param=where)
        return FreeInput()
    if wanted.syntax is None or wanted.definition is None:
        missing = "syntax" if wanted.syntax is None else "definition"
        raise ApiError(
            f"{where}.{missing} is missing; a grammar has a syntax and a definition.", param=f"{where}.{missing}"
        )
    return free_input(wanted.syntax, wanted.definition, f"{where}.definition")
