"""JSON schemas of the sizes that people send, all different."""

from __future__ import annotations

from typing import Any

KINDS = ("dog", "cat", "rain", "engine", "bell", "speech", "music", "glass breaking")


def schemas(count: int) -> list[dict[str, Any]]:
    """`count` schemas: flat ones, nested ones, lists, choices between objects, patterns, in turn."""
    makers = (_flat, _nested, _listed, _either, _patterns)
    return [makers[number % len(makers)](number) for number in range(count)]


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


def _flat(number: int) -> dict[str, Any]:
    return _object(
        {
            f"sound_{number}": {"enum": list(KINDS)},
            "seconds": {"type": "number", "minimum": 0, "maximum": 30},
            "loud": {"type": "boolean"},
            "heard": {"type": "string", "maxLength": 80},
        }
    )


def _nested(number: int) -> dict[str, Any]:
    speaker = _object({"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 120}})
    return _object({f"caller_{number}": speaker, "agent": speaker, "about": {"type": "string", "maxLength": 200}})


def _listed(number: int) -> dict[str, Any]:
    event = _object({"start": {"type": "number"}, "end": {"type": "number"}, "kind": {"enum": list(KINDS)}})
    return _object({f"events_{number}": {"type": "array", "items": event, "minItems": 1, "maxItems": 20}})


def _either(number: int) -> dict[str, Any]:
    tools = [
        _object({"tool": {"const": f"tool_{number}_{tool}"}, "room": {"type": "string"}, "on": {"type": "boolean"}})
        for tool in range(10)
    ]
    return {"anyOf": tools}


def _patterns(number: int) -> dict[str, Any]:
    return _object(
        {
            f"day_{number}": {"type": "string", "format": "date"},
            "phone": {"type": "string", "pattern": "^\\+?[0-9 ]{6,20}$"},
            "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{4}$"},
        }
    )
