"""Input of OpenAI's newer paths, /v1/responses and /v1/decisions, as messages of chat."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .convert import FILE_SOURCES
from .errors import ApiError
from .protocol import json_type

TEXTS = ("input_text", "output_text", "text")
_OF_ITEMS = ("type", "id", "status", "phase")  # keys that say nothing to the model
_OF_TEXTS = ("type", "annotations", "logprobs", "prompt_cache_breakpoint")


_CALLS = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}
_RESULTS = ("function_call_output", "custom_tool_call_output")
_OF_CALLS = (*_OF_ITEMS, "call_id", "name")
_ITEMS = ", ".join((*_CALLS, *_RESULTS))
# `detail` is about pictures of pages, `filename` about the format, which the bytes tell.
_OF_FILES = ("type", "file_data", "file_url", "file_id", "filename", "detail", "prompt_cache_breakpoint")


def messages_of_input(source: str | Sequence[Any], field: str = "input") -> tuple[list[Any], list[str]]:
    """The field `input` as messages of chat, whose clips `convert` checks, and where in it each one's content stands.

    A call belongs to the assistant's turn before it. ApiError for items and parts that the model does not take.
    """
    if isinstance(source, str):
        return [{"role": "user", "content": source}], [field]
    messages, places, says = list[Any](), list[str](), False
    for number, item in enumerate(source):
        where = f"{field}[{number}]"
        item = _without_nulls(item)
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if not isinstance(kind, str):
            found = f"has {json_type(kind)} as its type" if isinstance(item, dict) else f"is {json_type(item)}"
            raise ApiError(f"{where} {found}; expected a message, or one of {_ITEMS}.", param=where)
        if kind in _CALLS:
            if not says:
                messages.append({"role": "assistant"})
                places.append(f"{where}.content")
            earlier = messages[-1].get("tool_calls", [])
            if not isinstance(earlier, list):
                param = f"{places[-1].rpartition('.')[0]}.tool_calls"
                raise ApiError(f"{param} is {json_type(earlier)}; expected a list of calls.", param=param)
            messages[-1]["tool_calls"] = [*earlier, _call(item, where)]
            says = True
            continue
        if kind in _RESULTS:
            _refuse_other_keys(item, (*_OF_CALLS, "output"), where)
            message, key = {"role": "tool", "tool_call_id": item.get("call_id")}, "output"
        elif kind == "message":
            message, key = {name: value for name, value in item.items() if name not in _OF_ITEMS}, "content"
        else:
            raise ApiError(f"{where} is of the type {kind!r:.80}; expected a message, or one of {_ITEMS}.", param=where)
        content, place = item.get(key), f"{where}.{key}"
        if isinstance(content, list):
            content = [part_of(part, f"{place}[{index}]") for index, part in enumerate(content)]
        elif key == "output" and not isinstance(content, str):
            raise ApiError(f"{place} is {json_type(content)}; expected a text or a list of parts.", param=place)
        messages.append({**message, "content": content})
        places.append(place)
        says = message.get("role") == "assistant"
    return messages, places


def _call(item: dict[str, Any], where: str) -> dict[str, Any]:
    """A call as chat has it."""
    kind, key = _CALLS[item["type"]]
    _refuse_other_keys(item, (*_OF_CALLS, key), where)
    for name in ("name", key):
        if not isinstance(item.get(name), str):
            found = json_type(item.get(name))
            raise ApiError(f"{where}.{name} is {found}; expected the call's, as a text.", param=f"{where}.{name}")
    if kind == "function":
        try:
            json.loads(item[key] or "{}")
        except (ValueError, RecursionError) as error:
            raise ApiError(f"{where}.{key} is no JSON: {error}.", param=f"{where}.{key}") from error
    return {"id": item.get("call_id"), "type": kind, kind: {"name": item["name"], key: item[key]}}


def _refuse_other_keys(item: dict[str, Any], known: Sequence[str], where: str) -> None:
    for key, value in item.items():
        if value is not None and key not in known:
            raise ApiError(f"{where}.{key} is not read; expected {', '.join(known)}.", param=f"{where}.{key}")


def part_of(part: Any, where: str) -> Any:
    """A part as chat has it; what it does not know is left to be refused there, with its type."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in TEXTS:
        return {"type": "text", **{key: value for key, value in part.items() if key not in _OF_TEXTS}}
    if kind == "input_json":
        _refuse_other_keys(part, ("type", "data"), where)
        return {"type": "text", "text": json.dumps(part.get("data"), ensure_ascii=False)}
    if kind == "input_file":
        return _file(part, where)
    if kind == "input_image":
        raise ApiError(f"{where} is an image, and the model hears; send clips as input_audio.", param=where)
    return part


def _file(part: dict[str, Any], where: str) -> dict[str, Any]:
    _refuse_other_keys(part, _OF_FILES, where)
    if part.get("file_id") is not None:
        message = f"{where}.file_id names a file, and none are kept here; send file_data."
        raise ApiError(message, param=f"{where}.file_id")
    sources = {key: part[key] for key in FILE_SOURCES if part.get(key) is not None}
    if len(sources) != 1:
        raise ApiError(f"{where} has {len(sources)} sounds; expected file_data or file_url.", param=where)
    return {"type": "input_file", **sources}


def _without_nulls(item: Any) -> Any:
    """Null counts as absent."""
    return {key: value for key, value in item.items() if value is not None} if isinstance(item, dict) else item
