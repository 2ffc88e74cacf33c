"""Items of /v1/responses: the same however the answer comes, and each told of from its first event to its last."""

from __future__ import annotations

import random

import pytest

from qwen2_audio.engine.structured.tool_calls import FreeInput, Tool, call_words, custom_call_words
from qwen2_audio.serve.answers import logprobs_body
from qwen2_audio.serve.response_items import OutputItems
from qwen2_audio.serve.tools import ToolUse
from qwen2_audio.types import Completion, TokenLogprob, Usage

TOOLS = (Tool("f"), Tool("c", input=FreeInput()))
USE = ToolUse(TOOLS, TOOLS)
F, C = call_words("f", '{"a": 1}'), custom_call_words("c", "two\nlines < 3")
ANSWERS = {
    "Hi.": [("message", "Hi.")],
    "": [("message", "")],
    F: [("function_call", '{"a": 1}')],
    f"One moment.\n{F}\n{C}": [
        ("message", "One moment."), ("function_call", '{"a": 1}'), ("custom_tool_call", "two\nlines < 3"),
    ],
    f"{C}\nDone.\n{F}": [("custom_tool_call", "two\nlines < 3"), ("message", "Done."), ("function_call", '{"a": 1}')],
}  # fmt: skip


def content(item):
    return item["content"][0]["text"] if item["type"] == "message" else item.get("arguments", item.get("input"))


def told(pieces, status="completed", use=USE):
    items = OutputItems(use, lambda logprobs: logprobs_body(logprobs)["content"])
    events = [*items.start()]
    for piece in pieces:
        events += items.add(piece)
    return items.items, [*events, *items.end(status)]


@pytest.mark.parametrize("number", range(len(ANSWERS)))
def test_items_do_not_depend_on_how_the_text_comes(number):
    text, expected = list(ANSWERS.items())[number]
    draws = random.Random(number)
    cuts = sorted(draws.sample(range(len(text) + 1), min(5, len(text) + 1)))
    drawn = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    for pieces in ([text], list(text), drawn):
        items, events = told(pieces)
        assert [(item["type"], content(item)) for item in items] == expected
        assert all(item.get("status", "completed") == "completed" for item in items)
        joined = {}
        for kind, fields in events:
            if kind.endswith(".delta"):
                joined[fields["output_index"]] = joined.get(fields["output_index"], "") + fields["delta"]
        assert joined == {index: words for index, (_, words) in enumerate(expected) if words}
        done = [fields["item"] for kind, fields in events if kind == "response.output_item.done"]
        assert done == items
        added = [content({"content": [{"text": ""}], **fields["item"]} if fields["item"]["type"] != "message" else
                         {**fields["item"], "content": [{"text": ""}]}) for kind, fields in events
                 if kind == "response.output_item.added"]  # fmt: skip
        assert added == [""] * len(items), "an item is told of before it has grown"


def test_only_the_last_item_is_cut():
    items, _ = told([f"{F}\n{F[:-16]}"], "incomplete")
    assert [item["status"] for item in items] == ["completed", "incomplete"]
    items, _ = told([C[:-5]], "incomplete")
    assert items[0]["input"] == "two\nlines < 3"


def test_without_tools_the_whole_answer_is_one_message():
    answer = Completion(F, "stop", Usage(1, 0, 1), logprobs=(TokenLogprob(1, "x", b"x", -1.0),))
    (item,) = OutputItems(None, lambda logprobs: logprobs_body(logprobs)["content"]).items_of(answer, "completed")
    assert content(item) == F and item["content"][0]["logprobs"][0]["token"] == "x"
