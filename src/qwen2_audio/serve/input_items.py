"""Input of OpenAI's newer paths, /v1/responses and /v1/decisions, as messages of chat."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .errors import ApiError
from .protocol import json_type

TEXTS = ("input_text", "output_text", "text")
_OF_ITEMS = ("type", "id", "status", "phase")  # keys that say nothing to the model
_OF_TEXTS = ("type", "annotations", "logprobs", "prompt_cache_breakpoint")


def messages_of_input(source: str | Sequence[Any]) -> list[Any]:
    """The field `input` as messages of chat, whose clips `convert` checks.

    ApiError for calls of tools, which have no place in the prompt, and for parts that the model does not take.
    """
    if isinstance(source, str):
        return [{"role": "user", "content": source}]
    messages = []
    for number, item in enumerate(source):
        where = f"input[{number}]"
        if not isinstance(item, dict) or item.get("type", "message") != "message":
            what = f"of the type {item['type']!r}" if isinstance(item, dict) else json_type(item)
            raise ApiError(f"{where} is {what}; expected a message.", param=where)
        content = item.get("content")
        if isinstance(content, list):
            content = [part_of(part, f"{where}.content[{index}]") for index, part in enumerate(content)]
        messages.append({**{key: value for key, value in item.items() if key not in _OF_ITEMS}, "content": content})
    return messages


def part_of(part: Any, where: str) -> Any:
    """A part as chat has it; what it does not know is left to be refused there, with its type."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in TEXTS:
        return {"type": "text", **{key: value for key, value in part.items() if key not in _OF_TEXTS}}
    if kind == "input_json":
        return {"type": "text", "text": json.dumps(part.get("data"), ensure_ascii=False)}
    if kind == "input_file":
        return _file(part, where)
    if kind == "input_image":
        raise ApiError(f"{where} is an image, and the model hears; send clips as input_audio.", param=where)
    return part


def _file(part: dict[str, Any], where: str) -> dict[str, Any]:
    if part.get("file_id") is not None:
        message = f"{where}.file_id names a file, and none are kept here; send file_data."
        raise ApiError(message, param=f"{where}.file_id")
    sources = [part[key] for key in ("file_data", "file_url") if part.get(key) is not None]
    if len(sources) != 1:
        raise ApiError(f"{where} has {len(sources)} sounds; expected file_data or file_url.", param=where)
    return {"type": "audio", "audio": sources[0]}
