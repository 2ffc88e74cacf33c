"""Calls of tools in an answer's text: found however it is divided, and never half a tag passed on."""

from __future__ import annotations

import json
import random

import pytest

from qwen2_audio.engine.structured.tool_calls import (
    BEGIN,
    END,
    FreeInput,
    Tool,
    ToolCallParser,
    call_words,
    calls_grammar,
    custom_call_words,
    response_words,
    system_words,
)

F, G = call_words("f", '{"a": 1}'), call_words("g", '{"s": "}\\"{</tool_call>"}')
C = custom_call_words("c", "a </tool_call> b\n<tool")
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
    C: ("", [("c", "a </tool_call> b\n<tool")]),
    f"So.\n{C}\n{F}": ("So.", [("c", "a </tool_call> b\n<tool"), ("f", '{"a": 1}')]),
    custom_call_words("c", ""): ("", [("c", "")]),
    '<tool_call>\n{"name": "c"}\none\ntwo\n</tool': ("", [("c", "one\ntwo")]),  # cut off
    custom_call_words("f", "x"): (custom_call_words("f", "x"), []),
    "So.\n<tool_call>": ("So.", []),  # cut off: an answer goes on from the tag
    '<tool_call>\n{"na': ("", []),
    '<tool_call>\n{"name": "f", "arguments": ': ("", []),
    '<tool_call>\n{"name": "c"}': ("", []),
    f'{F}\n<tool_call>\n{{"name": "': ("", [("f", '{"a": 1}')]),
    '<tool_call>\n{"name": "x': ('<tool_call>\n{"name": "x', []),  # no tool is called so
}


def parsed(pieces):
    parser, said, calls = ToolCallParser(["f", "g"], ["c"]), "", []
    for piece in pieces:
        words, deltas = parser.push(piece)
        said += words
        for delta in deltas:
            if delta.name is not None:
                assert (delta.index, delta.arguments, delta.custom) == (len(calls), "", delta.name == "c")
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


@pytest.mark.parametrize("text", ["a < b and <tool_cal", "a < b and <"])
def test_the_beginning_of_a_tag_is_no_text_where_the_answer_was_cut(text):
    parser = ToolCallParser(["f"])
    assert parser.push(text)[0] + parser.flush(cut=True) == "a < b and"


@pytest.mark.parametrize(("words", "inputs"), [(F, '{"a": 1}'), (C, "a </tool_call> b\n<tool\n</tool_call>")])
def test_which_calls_are_whole(words, inputs):
    parser = ToolCallParser(["f"], ["c"])
    parser.push(words[: words.index(inputs) + 1])
    assert parser.in_call
    parser.push(words[words.index(inputs) + 1 : words.index(inputs) + len(inputs)])
    assert not parser.in_call and parser.num_calls == 1


def test_words():
    words = system_words([Tool("f", "Does F.", {"type": "object"}), Tool("g")])
    lines = words.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    assert json.loads(lines[0]) == {
        "type": "function", "function": {"name": "f", "description": "Does F.", "parameters": {"type": "object"}},
    }  # fmt: skip
    assert json.loads(lines[1]) == {"type": "function", "function": {"name": "g"}}
    assert f'{BEGIN}\n{{"name": "f", "arguments": {{"a": 1}}}}\n{END}' == F
    assert response_words("42") == "<tool_response>\n42\n</tool_response>"


def test_words_of_custom_tools():
    held = FreeInput("regex", "[a-z]+")
    words = system_words([Tool("f"), Tool("c", "Does C.", input=held)])
    lines = words.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    form = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "[a-z]+"}}
    assert json.loads(lines[1]) == {
        "type": "custom", "custom": {"name": "c", "description": "Does C.", "format": form},
    }  # fmt: skip
    assert '"arguments": <args' in words and "<input>" in words and "<input>" not in system_words([Tool("f")])
    alone = system_words([Tool("c", input=FreeInput())])
    assert '{"type": "text"}' in alone and "<args" not in alone
    assert custom_call_words("c", "x\ny") == f'{BEGIN}\n{{"name": "c"}}\nx\ny\n{END}'


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
    maybe = calls_grammar([Tool("f", None, {"type": ["object", "null"]})])
    assert holds(maybe, call_words("f", "{}")) and not holds(maybe, call_words("f", "null"))
    assert holds(calls_grammar([Tool("f")]), call_words("f", '{"any": [1, {"thing": null}]}'))


@pytest.mark.parametrize(
    ("held", "fits", "not_fits"),
    [
        (FreeInput(), "any < thing\nat </tool_call> all", None),
        (FreeInput("regex", "[a-z/]+"), "a/b", "a1"),
        (FreeInput("regex", r"a\/b{2}"), "a/bb", "a/b"),
        (FreeInput("regex", "a\nb"), "a\nb", "a b"),
        (FreeInput("regex", r'"[^\n]*"'), '"x}"', "x"),
        (FreeInput("lark", 'start: expr\nexpr: N | expr "+" expr\nN: /[0-9]+/'), "1+22+3", "1+"),
        (FreeInput("lark", 'start: "}" /[a-z]+/ "{" // a brace }'), "}ab{", "ab"),
    ],
)
def test_the_input_of_a_custom_tool_is_held_to_its_grammar(holds, held, fits, not_fits):
    tools = [Tool("f"), Tool("c", input=held)]
    for grammar in (calls_grammar(tools, most=1), calls_grammar(tools)):
        assert holds(grammar, custom_call_words("c", fits))
        assert holds(grammar, call_words("f", "{}"))
        if not_fits is not None:
            assert not holds(grammar, custom_call_words("c", not_fits))
    assert holds(calls_grammar(tools), f"{custom_call_words('c', fits)}\n{call_words('f', '{}')}")
