"""What an answer is held to: `response_format` and `structured_outputs` as sampling parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..engine.structured import grammar
from ..errors import ConfigError, did_you_mean
from ..types import SamplingParams
from .errors import ApiError
from .protocol import ChatRequest, ResponseFormat, StructuredOutputs, json_type

MOST_OF_GRAMMAR = 16 << 10  # characters: the library reads a grammar slowly, and meanwhile holds the interpreter
ANY_OBJECT = {"type": "object"}
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")  # keywords that hold schemas by name
_VALUES = ("enum", "const", "default", "examples")  # keywords that hold no schemas
_OF_TEXT_FORMAT = {"type": str, "name": str, "schema": dict, "description": str, "strict": bool}
_OPTIONS = ("disable_any_whitespace", "disable_additional_properties", "whitespace_pattern")


def constraint_of(request: ChatRequest) -> tuple[dict[str, Any], str]:
    """The fields of SamplingParams that hold the answer to something, and the request's field that asks for it.

    ApiError for fields that contradict each other.
    """
    has_format = request.response_format is not None and request.response_format.type != "text"
    if has_format and request.structured_outputs is not None:
        raise ApiError(
            "response_format and structured_outputs both say what the answer is held to; give one of them.",
            param="structured_outputs",
        )
    if request.structured_outputs is not None:
        return _of_structured_outputs(request.structured_outputs)
    return ({}, "") if request.response_format is None else _of_response_format(request.response_format)


def constraint_of_text(text: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of SamplingParams that `text` of /v1/responses asks for. ApiError names the field that is wrong."""
    given = {key: value for key, value in text.items() if value is not None}
    wanted = given.pop("format", {"type": "text"})
    if given not in ({}, {"verbosity": "medium"}):
        raise ApiError(f"text holds {', '.join(given)}; expected a format.", param="text", code="unsupported_value")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise ApiError(
            f"text.format is {wanted!r:.80}; expected a type: text, json_object or json_schema.", param="text.format"
        )
    _check_text_format(wanted, _OF_TEXT_FORMAT if kind == "json_schema" else {"type": str})
    if kind != "json_schema":
        return {} if kind == "text" else {"json_schema": ANY_OBJECT}
    if not isinstance(wanted.get("schema"), dict):
        raise ApiError("text.format.schema is missing; expected a JSON schema.", param="text.format.schema")
    return {"json_schema": wanted["schema"]}


def _check_text_format(wanted: Mapping[str, Any], known: Mapping[str, type]) -> None:
    for key, value in wanted.items():
        param = f"text.format.{key[:80]}"
        if value is not None and key not in known:
            near = did_you_mean(key[:80], list(known))
            expected = f"with the type {wanted['type']!r} expected {', '.join(known)}.{near}"
            raise ApiError(f"{param} is not read; {expected}", param=param, code="unknown_parameter")
        if value is not None and not isinstance(value, known[key]):
            needed = json_type(known[key]())
            raise ApiError(f"{param} is {json_type(value)}; expected {needed}.", param=param)
    if "name" in known and not wanted.get("name"):
        raise ApiError("text.format.name is missing; a schema has a name.", param="text.format.name")


def check_constraint(params: SamplingParams, param: str) -> None:
    """ApiError for a schema or a grammar that cannot be honoured. May take 0.1 s for a hostile one."""
    if params.constraint is None:
        return
    try:
        grammar.check(params.constraint)
    except ConfigError as error:
        raise ApiError(str(error).replace(params.constraint[0], param, 1), param=param) from error


def _of_response_format(wanted: ResponseFormat) -> tuple[dict[str, Any], str]:
    if wanted.type == "json_schema":
        if wanted.json_schema is None:
            raise ApiError(
                "response_format.json_schema is missing; expected {'name': ..., 'schema': {...}}.",
                param="response_format.json_schema",
                code="missing_required_parameter",
            )
        schema = wanted.json_schema.json_schema
        return {"json_schema": ANY_OBJECT if schema is None else schema}, "response_format.json_schema.schema"
    if wanted.json_schema is not None:
        raise ApiError(
            f"response_format has a json_schema and the type {wanted.type!r}; expected the type 'json_schema' with it.",
            param="response_format.type",
        )
    return ({"json_schema": ANY_OBJECT}, "response_format") if wanted.type == "json_object" else ({}, "")


def _of_structured_outputs(wanted: StructuredOutputs) -> tuple[dict[str, Any], str]:
    given = {
        "json": wanted.json_schema,
        "regex": wanted.regex,
        "choice": wanted.choice,
        "grammar": wanted.grammar,
        "json_object": wanted.json_object or None,
    }
    kinds = [name for name, value in given.items() if value is not None]
    if len(kinds) != 1:
        found = " and ".join(kinds) or "none"
        raise ApiError(
            f"structured_outputs holds {found} of {', '.join(given)}; expected one of them.", param="structured_outputs"
        )
    kind, param = kinds[0], f"structured_outputs.{kinds[0]}"
    if wanted.grammar is not None and len(wanted.grammar) > MOST_OF_GRAMMAR:
        found = f"{param} has {len(wanted.grammar)} characters; expected {MOST_OF_GRAMMAR} at most."
        raise ApiError(found, param=param)
    if kind not in ("json", "json_object"):
        for name in _OPTIONS:
            if getattr(wanted, name) not in (None, False):  # vLLM's defaults
                raise ApiError(
                    f"structured_outputs.{name} is about JSON, and the answer is held to a {kind}; leave it out.",
                    param=f"structured_outputs.{name}",
                )
        return {kind: given[kind]}, param
    schema = wanted.json_schema
    try:
        schema = ANY_OBJECT if schema is None else json.loads(schema) if isinstance(schema, str) else schema
        if not isinstance(schema, dict):
            raise ValueError(f"it is {schema!r:.60}, and a schema is an object")
        if wanted.disable_additional_properties:
            schema = _closed(schema)
    except (ValueError, RecursionError) as error:
        raise ApiError(f"{param} is no JSON schema: {error}.", param=param) from error
    return {"json_schema": _written(schema, wanted)}, param


def _written(schema: dict[str, Any], wanted: StructuredOutputs) -> dict[str, Any]:
    """The schema with llguidance's options for white space. Without any, JSON is written with one space behind commas
    and colons."""
    options: dict[str, Any] = {}
    if wanted.whitespace_pattern is not None:
        options = {"whitespace_pattern": wanted.whitespace_pattern, "item_separator": ",", "key_separator": ":"}
        if wanted.disable_any_whitespace:
            raise ApiError(
                "disable_any_whitespace leaves no white space for whitespace_pattern; give one of them.",
                param="structured_outputs.whitespace_pattern",
            )
    elif wanted.disable_any_whitespace is not None:
        flexible = not wanted.disable_any_whitespace
        options = {"whitespace_flexible": flexible, "item_separator": ",", "key_separator": ":"}
    own = schema.get("x-guidance")
    return {**schema, "x-guidance": {**(own if isinstance(own, dict) else {}), **options}} if options else schema


def _closed(schema: Any) -> Any:
    """The schema without properties that it does not name: each object in it that names some has no others."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    closed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _BY_NAME and isinstance(value, dict):
            closed[key] = {name: _closed(inner) for name, inner in value.items()}
        else:
            closed[key] = value if key in _VALUES else _closed(value)
    if isinstance(closed.get("properties"), dict) and "additionalProperties" not in closed:
        closed["additionalProperties"] = False
    return closed
