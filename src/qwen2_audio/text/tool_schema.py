"""Tools of a chat template: JSON schemas as given, or made of a function's type hints and its docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import PromptError

_TYPES: dict[Any, dict[str, Any]] = {
    int: {"type": "integer"}, float: {"type": "number"}, str: {"type": "string"}, bool: {"type": "boolean"},
    NoneType: {"type": "null"}, list: {"type": "array"}, tuple: {"type": "array"}, dict: {"type": "object"}, Any: {},
}  # fmt: skip
_SCALARS = (int, float, str, bool, NoneType)
_HEADING = re.compile(r"^(Args|Returns|Raises):\s*$")
_ARGUMENT = re.compile(r"(\w+):\s*(.*)")
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


def tool_schemas(tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None) -> list[Mapping[str, Any]] | None:
    """The JSON schema of each tool. Raises PromptError for a tool that has none."""
    if tools is None:
        return None
    schemas = []
    for number, tool in enumerate(tools, 1):
        if isinstance(tool, Mapping):
            schemas.append(tool)
        elif inspect.isfunction(tool) or inspect.ismethod(tool):
            schemas.append(schema_of(tool))
        else:
            raise PromptError(
                f"Tool {number} is a {type(tool).__name__}; expected its JSON schema as a dict, or a function with "
                "type hints and a docstring."
            )
    return schemas


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    """A function's schema as the reference's `get_json_schema` makes it: `{"type": "function", "function": {...}}`.

    The docstring is Google's: a description, then "Args:" with a line `name: what it is` for each argument, whose end
    may be `(choices: ["a", "b"])`, and optionally "Returns:". Raises PromptError for what is missing in it.
    """
    name = function.__name__
    sections = _sections(inspect.getdoc(function) or "", name)
    hints = get_type_hints(function)
    parameters, returns = inspect.signature(function).parameters, hints.pop("return", None)
    properties, required = {}, []
    for argument, parameter in parameters.items():
        if argument not in hints and argument in ("self", "cls"):
            continue
        if argument not in hints:
            raise PromptError(f"The tool {name} has no type hint for {argument!r}; give it one.")
        if argument not in sections["arguments"]:
            raise PromptError(f"The docstring of the tool {name} does not describe {argument!r} under 'Args:'.")
        properties[argument] = _described(_schema_of_hint(hints[argument], name), sections["arguments"][argument])
        if parameter.default is parameter.empty:
            required.append(argument)
    schema: dict[str, Any] = {"type": "object", "properties": properties} | ({"required": required} if required else {})
    described = {"name": name, "description": sections["description"], "parameters": schema}
    if returns is not None:
        returned = _schema_of_hint(returns, name)
        described["return"] = (
            {**returned, "description": sections["returns"]} if sections["returns"] is not None else returned
        )
    return {"type": "function", "function": described}


def _sections(doc: str, name: str) -> dict[str, Any]:
    """The parts of a docstring: "description", "arguments" by name, "returns" or None."""
    if not doc.strip():
        raise PromptError(f"The tool {name} has no docstring; describe it and its arguments in one.")
    parts: dict[str, list[str]] = {"": []}
    heading = ""
    for line in doc.splitlines():
        if found := _HEADING.match(line.strip()):
            heading = found[1]
            parts[heading] = []
        else:
            parts[heading].append(line)
    arguments: dict[str, str] = {}
    lines = [line for line in parts.get("Args", []) if line.strip()]
    indent = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    argument = ""
    for line in lines:
        found = _ARGUMENT.match(line.strip()) if len(line) - len(line.lstrip()) == indent else None
        if found:
            argument, arguments[found[1]] = found[1], found[2].strip()
        elif argument:
            arguments[argument] = f"{arguments[argument]} {line.strip()}".strip()
    returns = "\n".join(parts["Returns"]).strip() if "Returns" in parts else None
    return {"description": "\n".join(parts[""]).strip(), "arguments": arguments, "returns": returns}


def _described(schema: dict[str, Any], description: str) -> dict[str, Any]:
    if choices := _CHOICES.search(description):
        values = [value.strip() for value in re.findall(r'"([^"]*)"', choices[1])]
        schema, description = {**schema, "enum": values}, description[: choices.start()].strip()
    return {**schema, "description": description}


def _schema_of_hint(hint: Any, name: str) -> dict[str, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _schema_of_union(args, name)
    if origin is Literal:
        return _enumeration(list(args), name)
    if origin is None and isinstance(hint, type) and issubclass(hint, Enum):
        return _enumeration([member.value for member in hint], name)
    if origin is list and args:
        return {"type": "array", "items": _schema_of_hint(args[0], name)}
    if origin is tuple and len(args) > 1 and ... not in args:
        return {"type": "array", "prefixItems": [_schema_of_hint(item, name) for item in args]}
    if origin is dict and len(args) == 2:
        return {"type": "object", "additionalProperties": _schema_of_hint(args[1], name)}
    if origin is None and hint in _TYPES:
        return dict(_TYPES[hint])
    raise PromptError(f"The tool {name} has the type hint {hint!r}, which has no JSON type; pass its schema instead.")


def _schema_of_union(hints: Sequence[Any], name: str) -> dict[str, Any]:
    schemas = [_schema_of_hint(hint, name) for hint in hints if hint is not NoneType]
    names = sorted({str(schema.get("type")) for schema in schemas})
    if len(schemas) == 1:
        (schema,) = schemas
    elif all(schema.keys() == {"type"} and isinstance(schema["type"], str) for schema in schemas):
        schema = {"type": names[0] if len(names) == 1 else names}
    else:
        schema = {"anyOf": schemas}
    return {**schema, "nullable": True} if NoneType in hints else schema


def _enumeration(values: list[Any], name: str) -> dict[str, Any]:
    if not values or any(type(value) not in _SCALARS for value in values):
        raise PromptError(f"The tool {name} has a choice among {values!r}; expected numbers, strings, bools or None.")
    types = list(dict.fromkeys(_TYPES[type(value)]["type"] for value in values))
    return {"type": types[0] if len(types) == 1 else types, "enum": values}
