"""What an answer of /v1/responses consists of: its text and its calls as items, and the events that tell of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..engine.structured.tool_calls import CallDelta
from ..types import Completion, TokenLogprob
from .tools import ToolUse, new_id

Event = tuple[str, dict[str, Any]]  # its type, and its fields but for the number
# Of a custom tool or not: the item's type, the beginning of its id, its field, the beginning of its events' types.
_CALLS = {
    False: ("function_call", "fc", "arguments", "response.function_call_arguments"),
    True: ("custom_tool_call", "ctc", "input", "response.custom_tool_call_input"),
}


class OutputItems:
    """Builds the items of one answer from its text, as it comes. The items do not depend on how the text is divided.

    Attribute `items`: as they are so far.
    """

    def __init__(self, use: ToolUse | None, logprobs: Callable[[Sequence[TokenLogprob]], list[Any]]) -> None:
        """`use`: the tools that the answer may call; `logprobs`: log-probabilities as an item shows them."""
        self.items: list[dict[str, Any]] = []
        self._use, self._parser = use, None if use is None else use.parser()
        self._logprobs = logprobs
        self._open = False  # the last item may still grow

    def start(self) -> Iterator[Event]:
        """Without tools the answer is a message from the start."""
        if self._parser is None:
            yield from self._add_message()

    def add(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> Iterator[Event]:
        """The answer goes on with `text`, whose log-probabilities are told only without tools."""
        if self._parser is None:
            if text or self._logprobs(logprobs):
                yield from self._say(text, logprobs)
            return
        for piece in self._parser.read(text):
            yield from self._say(piece) if isinstance(piece, str) else self._call(piece)

    def end(self, status: str) -> Iterator[Event]:
        """The answer has ended; `status` of its last item."""
        cut = status != "completed" or (self._use is not None and self._use.required)
        if self._parser is not None and (rest := self._parser.flush(cut=cut)):
            yield from self._say(rest)
        if not self.items:
            yield from self._add_message()
        whole_call = self.items[-1]["type"] != "message" and self._parser is not None and not self._parser.in_call
        yield from self._close("completed" if whole_call else status)

    def items_of(self, answer: Completion, status: str) -> list[dict[str, Any]]:
        """The items of an answer that has come, which nobody is told of as events."""
        for _ in (*self.start(), *self.add(answer.text, answer.logprobs), *self.end(status)):
            pass
        return self.items

    def _say(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> Iterator[Event]:
        if not self._open or self.items[-1]["type"] != "message":
            text = text.lstrip()
            if not text:
                return
            yield from self._close()
            yield from self._add_message()
        (part,) = self.items[-1]["content"]
        shown = self._logprobs(logprobs)
        part["text"] += text
        part["logprobs"] += shown
        yield "response.output_text.delta", {**self._at(), "content_index": 0, "delta": text, "logprobs": shown}

    def _call(self, delta: CallDelta) -> Iterator[Event]:
        kind, prefix, key, event = _CALLS[delta.custom]
        if delta.name is not None:
            yield from self._close()
            item = {"type": kind, "id": new_id(prefix), "call_id": new_id("call"), "name": delta.name, key: ""}
            yield from self._add(item if delta.custom else {**item, "status": "in_progress"})
            return
        self.items[-1][key] += delta.arguments
        yield f"{event}.delta", {**self._at(), "delta": delta.arguments}

    def _add_message(self) -> Iterator[Event]:
        item = {"type": "message", "id": new_id("msg"), "role": "assistant", "status": "in_progress", "content": []}
        yield from self._add(item)
        self.items[-1]["content"].append({"type": "output_text", "text": "", "annotations": [], "logprobs": []})
        yield from self._part("added")

    def _add(self, item: dict[str, Any]) -> Iterator[Event]:
        self.items.append(item)
        self._open = True
        yield self._item("added")

    def _close(self, status: str = "completed") -> Iterator[Event]:
        if not self._open:
            return
        self._open, item = False, self.items[-1]
        if "status" in item:
            item["status"] = status
        if item["type"] == "message":
            (part,) = item["content"]
            told = {"text": part["text"], "logprobs": part["logprobs"]}
            yield "response.output_text.done", {**self._at(), "content_index": 0, **told}
            yield from self._part("done")
        else:
            _, _, key, event = _CALLS[item["type"] == "custom_tool_call"]
            name = {} if key == "input" else {"name": item["name"]}
            yield f"{event}.done", {**self._at(), **name, key: item[key]}
        yield self._item("done")

    def _part(self, what: str) -> Iterator[Event]:
        (part,) = self.items[-1]["content"]
        yield f"response.content_part.{what}", {**self._at(), "content_index": 0, "part": _copy(part)}

    def _item(self, what: str) -> Event:
        fields = {"output_index": len(self.items) - 1, "item": _copy(self.items[-1])}
        return f"response.output_item.{what}", fields

    def _at(self) -> dict[str, Any]:
        return {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1}


def _copy(value: Any) -> Any:
    """As it is now: an event is told when the item may have grown."""
    return json.loads(json.dumps(value))
