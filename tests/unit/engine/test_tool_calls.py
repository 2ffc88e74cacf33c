"""Calls of tools in an answer's text: found however it is divided, and never half a tag passed on."""

from __future__ import annotations

import json
import random

import pytest

from qwen2_audio.engine.structured.tool_calls import (
    BEGIN,
    END,
    Tool,
    ToolCallParser,
    call_words,
    calls_grammar,
    response_words,
    system_words,
)

F, G = call_words("f", '{"a": 1}'), call_words("g", '{"s": "}\\"{</tool_call>"}')
NO_OBJECT = '<tool_call>{"name": "f", "arguments": []}</tool_call>'
CASES = {
    "": ("", []),
    " Hi there.\n ": (" Hi there.\n ", []),
    F: ("", [("f", '{"a": 1}')]),
    G: ("", [("g", '{"s": "}\\"{</tool_call>"}')]),
    f"Just a moment.\n{F}\n": ("Just a moment.", [("f", '{"a": 1}')]),
    f"{F}\n{G}": ("", [("f", '{"a": 1}'), ("g", '{"s": "}\\"{</tool_call>"}')]),
    f"{F} and then\n{F}": (" and then", [("f", '{"a": 1}')] * 2),
    '<tool_call>{"name":"f","arguments":{}}</tool_call>': ("", [("f", "{}")]),
    '<tool_call>{"name": "f", "arguments": {"a": {"b": "\\\\"}': ("", [("f", '{"a": {"b": "\\\\"}')]),  # cut off
    '<tool_call>\n{"name": "f", "arguments": {}}\n</tool': ("", [("f", "{}")]),
    '<tool_call>\n{"name": "f", "arguments": {}}': ("", [("f", "{}")]),
    '<tool_call>\n{"name": "f", "arguments": {}} odd\n</tool_call>': ("odd", [("f", "{}")]),
    '<tool_call>\n{"name": "f", "arguments": {}} odd': ("odd", [("f", "{}")]),
    "a < b and <tool_cal": ("a < b and <tool_cal", []),
    "<tool_call>\nnothing": ("<tool_call>\nnothing", []),
    "<tool_call>nothing</tool_call>": ("<tool_call>nothing</tool_call>", []),
    f"<tool_call>nothing</tool_call> {F}": ("<tool_call>nothing</tool_call>", [("f", '{"a": 1}')]),
    call_words("unknown", "{}"): (call_words("unknown", "{}"), []),
    f"<tool_call>{F}</tool_call>": ("<tool_call></tool_call>", [("f", '{"a": 1}')]),
    NO_OBJECT: (NO_OBJECT, []),
}


def parsed(pieces):
    parser, said, calls = ToolCallParser(["f", "g"]), "", []
    for piece in pieces:
        words, deltas = parser.push(piece)
        said += words
        for delta in deltas:
            if delta.name is not None:
                assert (delta.index, delta.arguments) == (len(calls), "")
                calls.append((delta.name, ""))
            calls[delta.index] = (calls[delta.index][0], calls[delta.index][1] + delta.arguments)
    assert parser.num_calls == len(calls)
    return said + parser.flush(), calls


@pytest.mark.parametrize("number", range(len(CASES)))
def test_however_the_text_comes(number):
    text, expected = list(CASES.items())[number]
    assert parsed([text]) == expected
    assert parsed(text) == expected  # letter by letter: half a tag that was passed on would be in what it says
    draws = random.Random(number)
    for _ in range(30):
        cuts = sorted(draws.sample(range(len(text) + 1), min(3, len(text) + 1)))
        assert parsed(text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)) == expected


def test_words():
    words = system_words([Tool("f", "Does F.", {"type": "object"}), Tool("g")])
    lines = words.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    assert json.loads(lines[0]) == {
        "type": "function", "function": {"name": "f", "description": "Does F.", "parameters": {"type": "object"}},
    }  # fmt: skip
    assert json.loads(lines[1]) == {"type": "function", "function": {"name": "g"}}
    assert f'{BEGIN}\n{{"name": "f", "arguments": {{"a": 1}}}}\n{END}' == F
    assert response_words("42") == "<tool_response>\n42\n</tool_response>"


@pytest.fixture(scope="module")
def holds():
    """holds(grammar, text): `text` is a whole answer."""
    pytest.importorskip("llguidance")
    from kit.small_processor import small_tokenizer
    from qwen2_audio.engine.structured.grammar import Grammars

    tokenizer = small_tokenizer()
    ends = frozenset([tokenizer.convert_tokens_to_ids("<|im_end|>")])
    grammars = Grammars(tokenizer, len(tokenizer))

    def holds(grammar, text):
        tokens = [*tokenizer.encode(text, control_tokens=False), *ends]
        return grammars.matcher(("grammar", grammar), ends).num_accepted(tokens) == len(tokens)

    return holds


def test_what_an_answer_is_held_to(holds):
    """Schemas keep their own definitions, though both call them the same."""
    tools = []
    for name in ("f", "g"):
        parameters = {"properties": {"x": {"$ref": "#/$defs/d"}}, "$defs": {"d": {"const": name}}, "required": ["x"]}
        tools.append(Tool(name, None, {**parameters, "additionalProperties": False}))
    first, second = (call_words(name, f'{{"x": "{name}"}}') for name in ("f", "g"))
    several, one = calls_grammar(tools), calls_grammar(tools, most=1)
    assert holds(several, first) and holds(several, f"{second}\n{first}\n{first}")
    assert holds(one, second) and not holds(one, f"{first}\n{second}")
    for grammar in (one, several):
        assert not holds(grammar, call_words("g", '{"x": "f"}'))
        assert not holds(grammar, "")
        assert not holds(grammar, "7")
    assert holds(calls_grammar(tools, otherwise={"type": "integer"}), "7")
    assert holds(calls_grammar(tools, otherwise={"type": "integer"}), first)
    assert holds(calls_grammar([Tool("f")]), call_words("f", '{"any": [1, {"thing": null}]}'))
