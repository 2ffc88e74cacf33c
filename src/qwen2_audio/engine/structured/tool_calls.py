"""Calls of tools in the words of Qwen2.5: how tools are described, how an answer calls them, what holds it to that.

    <tool_call>
    {"name": "set_light", "arguments": {"room": "kitchen", "on": true}}
    </tool_call>

A custom tool takes free text, which stands on the lines behind `{"name": ...}`; these words are our own. The language
model of Qwen2-Audio was not trained on any of them, its successors on those of Qwen2.5. No tag is one token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...errors import ConfigError
from ...text.detokenize import overlap
from .grammar import ONE_SPACE, check, with_plain_digits

BEGIN, END = "<tool_call>", "</tool_call>"
MOST_CALLS = 16  # in one answer that has to call
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')
_INPUT_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*\}[ \t]*\n')
_INPUT_END = f"\n{END}"
_SLASH = re.compile(r"(\\.)|/", re.DOTALL)
_ABOUT = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
TOOLS
</tools>"""
_ABOUT_FUNCTIONS = """

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""
_ABOUT_CUSTOM = """

For each call of a custom tool, return a json object with its name, then its input as text within \
<tool_call></tool_call> XML tags:
<tool_call>
{"name": <tool-name>}
<input>
</tool_call>"""


@dataclass(frozen=True)
class FreeInput:
    """What the input of a custom tool is held to."""

    syntax: Literal["text", "lark", "regex"] = "text"  # text: to nothing
    definition: str = ""

    @property
    def described(self) -> dict[str, Any]:
        """As JSON, in OpenAI's form."""
        if self.syntax == "text":
            return {"type": "text"}
        return {"type": "grammar", "grammar": {"syntax": self.syntax, "definition": self.definition}}


@dataclass(frozen=True)
class Tool:
    """A function that an answer may call, or a custom tool, which takes text."""

    name: str  # letters, digits, _ and -
    description: str | None = None
    parameters: Mapping[str, Any] | None = None  # JSON schema of its arguments; None: any object
    strict: bool = False  # a call that the answer makes of its own will keeps to the schema too, or is refused

    input: FreeInput | None = None  # of a custom tool

    @property
    def described(self) -> dict[str, Any]:
        """As JSON, in the form that the model reads."""
        kind, fields = "function", {"name": self.name, "description": self.description, "parameters": self.parameters}
        if self.input is not None:
            kind, fields["format"] = "custom", self.input.described
        return {"type": kind, kind: {key: value for key, value in fields.items() if value is not None}}


def system_words(tools: Sequence[Tool]) -> str:
    """What the system turn says of the tools, behind all else that it says and an empty line."""
    words = _ABOUT.replace("TOOLS", "\n".join(json.dumps(tool.described, ensure_ascii=False) for tool in tools))
    if any(tool.input is None for tool in tools):
        words += _ABOUT_FUNCTIONS
    return words + _ABOUT_CUSTOM if any(tool.input is not None for tool in tools) else words


def call_words(name: str, arguments: str) -> str:
    """A call in an answer; `arguments` as JSON."""
    return f'{BEGIN}\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n{END}'


def custom_call_words(name: str, text: str) -> str:
    """A call of a custom tool in an answer; `text` is its input."""
    return f'{BEGIN}\n{{"name": {json.dumps(name)}}}\n{text}{_INPUT_END}'


def response_words(content: str) -> str:
    """What a tool gave back, in a turn of the user."""
    return f"<tool_response>\n{content}\n</tool_response>"


def calls_grammar(tools: Sequence[Tool], *, most: int = MOST_CALLS, otherwise: Mapping[str, Any] | None = None) -> str:
    """A Lark grammar of an answer that is one to `most` calls of `tools` and nothing else, or JSON of the schema
    `otherwise`."""
    lines = ["start: calls" if otherwise is None else "start: calls | answer"]
    lines.append(f'calls: call ("\\n" call){{0,{most - 1}}}' if most > 1 else "calls: call")
    lines.append("call: " + " | ".join(f"call_{number}" for number in range(len(tools))))
    for number, tool in enumerate(tools):
        if tool.input is not None:
            lines += _custom_call(number, tool.name, tool.input)
            continue
        head, _, tail = call_words(tool.name, "|").partition("|")
        lines.append(f"call_{number}: {json.dumps(head)} arguments_{number} {json.dumps(tail)}")
        lines.append(f"arguments_{number}: {_json(arguments_schema(tool))}")
    if otherwise is not None:
        lines.append(f"answer: {_json(otherwise)}")
    return "\n".join(lines)


def _custom_call(number: int, name: str, held: FreeInput) -> list[str]:
    """Rules of a custom tool's call. Text and patterns end at the first tag that may end them; a grammar has its own
    terminals, which may not take the line end before the tag."""
    head, tail = json.dumps(custom_call_words(name, "").removesuffix(_INPUT_END)), json.dumps(_INPUT_END)
    rules = [f"call_{number}: {head} input_{number}"]
    if held.syntax == "lark":
        return [*rules, f"input_{number}: %lark {{\n{held.definition}\n}} {tail}"]
    pattern = "(?s:.*)"
    if held.syntax == "regex":
        pattern = _SLASH.sub(lambda found: found[1] or r"\/", with_plain_digits(held.definition))
    one_line = pattern.replace("\n", "\\n")
    return [*rules, f"input_{number}[suffix={tail}]: /{one_line}/"]


def as_can_be_held(tools: Sequence[Tool]) -> Sequence[Tool]:
    """`tools`, with any arguments for those whose schema cannot be honoured and that are not strict."""
    if _can_be_held(tools):  # as a rule: they are not looked at one by one
        return tools
    return [tool if tool.strict or _can_be_held([tool]) else replace(tool, parameters=None) for tool in tools]


def _can_be_held(tools: Sequence[Tool]) -> bool:
    try:
        check(("grammar", calls_grammar(tools, most=1)))
    except ConfigError:
        return False
    return True


def arguments_schema(tool: Tool) -> dict[str, Any]:
    """The schema of a tool's arguments, which are an object even where it does not say so."""
    return {**(tool.parameters or {}), "type": "object"}


def _json(schema: Mapping[str, Any]) -> str:
    own = schema.get("x-guidance")
    return "%json " + json.dumps({**schema, "x-guidance": {**ONE_SPACE, **(own if isinstance(own, dict) else {})}})


@dataclass(frozen=True)
class CallDelta:
    """What is new of a call."""

    index: int  # of the call within its answer
    name: str | None = None  # in the first delta of a call, which has no arguments yet
    arguments: str = ""  # JSON, or the input of a custom tool: to be joined to what came before
    custom: bool = False  # the call of a custom tool


class ToolCallParser:
    """Divides the text of one answer, as it comes, into what it says and what it calls.

    The result does not depend on how the text is divided into pushes. A tag is never passed on, nor a part of one, and
    white space beside calls is dropped. What begins like a call and is none of a known tool is text.

    Attribute `num_calls`: the calls so far, of which the last may not be whole yet.
    """

    def __init__(self, names: Collection[str], custom: Collection[str] = ()) -> None:
        """`names` of the functions, and of the custom tools."""
        self.num_calls = 0
        self._names, self._custom = names, custom
        self._text = ""  # that is not divided yet
        self._space = ""  # that is held back, as a call may follow
        self._step = self._find_tag
        self._braces = _Braces()

    def push(self, text: str) -> tuple[str, list[CallDelta]]:
        """Take text; returns what the answer says and calls with it."""
        pieces = self.read(text)
        said = "".join(piece for piece in pieces if isinstance(piece, str))
        return said, [piece for piece in pieces if isinstance(piece, CallDelta)]

    def read(self, text: str) -> list[str | CallDelta]:
        """Take text; returns what the answer says and calls with it, in its order."""
        self._text += text
        pieces = list[str | CallDelta]()
        while True:
            step, length = self._step, len(self._text)
            pieces += [piece for piece in self._step() if piece]
            if self._step == step and len(self._text) == length:
                return pieces

    @property
    def in_call(self) -> bool:
        """The input of the last call has begun and is not whole."""
        return self._step in (self._read_arguments, self._read_input)

    def flush(self, *, cut: bool = False) -> str:
        """The answer has ended: the rest of what it says. `cut`: it would have gone on, so that the beginning of a tag
        is none of its text."""
        rest, self._text = self._text, ""
        if self._step == self._read_head and not self._begins_call(rest):
            rest = BEGIN + rest
        elif self._step == self._read_head or (cut and rest and self._step == self._find_tag):
            rest = self._space = ""  # of a call that does not come
        elif self._step == self._find_end:
            rest = _behind_braces(rest)
            rest = "" if END.startswith(rest) else rest
        elif self._step == self._read_input:  # the beginning of its end
            rest = ""
        space, self._space = self._space, ""
        return space + rest if rest.strip() or not self.num_calls else ""

    def _up_to(self, tag: str, following: Callable[[], Iterator[str | CallDelta]]) -> str:
        """Take the text before `tag`, behind which comes the step `following`; without it, what cannot be its
        beginning."""
        text, found, rest = self._text.partition(tag)
        if found:
            self._text, self._step = rest, following
            return text
        held = overlap(text, tag)
        self._text = text[len(text) - held :]
        return text[: len(text) - held]

    def _begins_call(self, text: str) -> bool:
        """Behind a tag, `text` is the beginning of a call, as an answer is held to it: it has been cut there."""
        heads = [call_words(name, "") for name in self._names] + [custom_call_words(name, "") for name in self._custom]
        return any(head.removeprefix(BEGIN).startswith(text) for head in heads)

    # -- steps: each takes what it can of the text, and says which one is next

    def _find_tag(self) -> Iterator[str | CallDelta]:
        yield self._say(self._up_to(BEGIN, self._read_head))

    def _read_head(self) -> Iterator[str | CallDelta]:
        head = _HEAD.match(self._text)
        name = _string(head[1]) if head else None
        free = None if head else _INPUT_HEAD.match(self._text)
        custom = _string(free[1]) if free else None
        if head and name in self._names:
            self._text, self._step = self._text[head.end() :], self._read_arguments
            self._space, self._braces = "", _Braces()
            yield CallDelta(self.num_calls, name)
            self.num_calls += 1
        elif free and custom in self._custom:
            self._text, self._step, self._space = self._text[free.end() :], self._read_input, ""
            yield CallDelta(self.num_calls, custom, custom=True)
            self.num_calls += 1
        elif head or END in self._text:
            self._step = self._find_tag
            yield self._say(BEGIN)

    def _read_arguments(self) -> Iterator[str | CallDelta]:
        count = self._braces.take(self._text)
        arguments, self._text = self._text[:count], self._text[count:]
        if arguments:
            yield CallDelta(self.num_calls - 1, arguments=arguments)
        if self._braces.closed:
            self._step = self._find_end

    def _read_input(self) -> Iterator[str | CallDelta]:
        if text := self._up_to(_INPUT_END, self._find_tag):
            yield CallDelta(self.num_calls - 1, arguments=text, custom=True)

    def _find_end(self) -> Iterator[str | CallDelta]:
        between, tag, rest = self._text.partition(END)
        if tag:
            self._text, self._step = rest, self._find_tag
            yield self._say(_behind_braces(between))

    def _say(self, text: str) -> str:
        """What of `text` can be passed on: all but the white space at its end."""
        text = self._space + text
        said = text.rstrip()
        self._space = text[len(said) :]
        return said


class _Braces:
    """Finds the end of a JSON object, as its text comes. Attribute `closed`: it has ended."""

    def __init__(self) -> None:
        self.closed = False
        self._depth = 0
        self._in_string = self._escaped = False

    def take(self, text: str) -> int:
        """How many characters of `text` belong to the object."""
        for count, letter in enumerate(text):
            if self.closed:
                return count
            if self._in_string:
                self._in_string = self._escaped or letter != '"'
                self._escaped = letter == "\\" and not self._escaped
            elif letter == '"':
                self._in_string = True
            elif letter in "{}":
                self._depth += 1 if letter == "{" else -1
                self.closed = self._depth == 0
        return len(text)


def _behind_braces(text: str) -> str:
    """What stands between a call's arguments and its end, but for the brace that belongs there."""
    return text.strip().removeprefix("}").strip()


def _string(text: str) -> str | None:
    try:
        value: str = json.loads(text)
    except ValueError:
        return None
    return value
