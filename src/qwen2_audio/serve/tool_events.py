"""Streamed answers that may call tools: their text and their calls as deltas, as OpenAI's client joins them."""

from __future__ import annotations

from typing import Any

from ..engine.structured.tool_calls import CallDelta, ToolCallParser
from ..types import Chunk
from .answers import Envelope
from .event_stream import ChatEvents
from .tools import ToolUse, call_body, call_fields, finish_reason, was_cut


class ToolEvents(ChatEvents):
    """ChatEvents that find calls in the text. A call's id and name come once, its arguments in pieces behind them."""

    def __init__(self, envelope: Envelope, use: ToolUse, **options: Any) -> None:
        """`options` of ChatEvents."""
        super().__init__(envelope, **options)
        self._use = use
        if use.required:  # it says nothing, as in the whole answer
            self._role = {"role": "assistant", "content": None}
        self._parsers: dict[int, ToolCallParser] = {}  # of each answer

    def _deltas(self, chunk: Chunk) -> list[dict[str, Any]]:
        parser = self._parser(chunk)
        said, calls = parser.push(chunk.text)
        if chunk.finish_reason is not None:
            said += parser.flush(cut=was_cut(self._use, chunk.finish_reason))
        deltas: list[dict[str, Any]] = [{"content": said}] if said else []
        deltas += [{"tool_calls": [_call_delta(call)]} for call in calls]
        return deltas or ([{}] if chunk.logprobs else [])

    def _last_choice(self, chunk: Chunk) -> dict[str, Any]:
        choice = super()._last_choice(chunk)
        reason = finish_reason(self._use, chunk.finish_reason, self._parser(chunk))
        return choice if reason is None else {**choice, "finish_reason": reason}

    def _parser(self, chunk: Chunk) -> ToolCallParser:
        return self._parsers.setdefault(chunk.index, self._use.parser())


def _call_delta(call: CallDelta) -> dict[str, Any]:
    if call.name is not None:
        return {"index": call.index, **call_body(call)}
    kind, key = call_fields(call)
    return {"index": call.index, kind: {key: call.arguments}}
