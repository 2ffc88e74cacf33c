"""TOML files and their tables as frozen dataclasses: unknown keys are refused, values checked by their types."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import ConfigError, did_you_mean

T = TypeVar("T")
_BELOW_ZERO = ("_db", ".layer")  # ends of keys whose numbers may be negative
_NO_NAMES: Mapping[str, str] = types.MappingProxyType({})


def read_toml(path: str | Path) -> dict[str, Any]:
    """The table of a TOML file, which may begin with a byte order mark. Raises ConfigError with the file's name."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"Cannot read {path}: {reason}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None


def from_table(kind: type[T], table: dict[str, Any], where: str = "", renamed: Mapping[str, str] = _NO_NAMES) -> T:
    """A frozen dataclass of type `kind` from a TOML table; nested tables become nested dataclasses.

    where: path of the table in the file, "data.augment." for example. renamed: old paths of keys, and their new ones.
    Raises ConfigError for an unknown key (naming the nearest known one), a missing one, a value of the wrong type.
    """
    table = _with_new_names(table, where, renamed)
    hints = get_type_hints(kind)
    fields = {spec.name: spec for spec in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise ConfigError(f"there is no key {where + key!r}.{did_you_mean(key, list(fields))}")
    for name, spec in fields.items():
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if required and name not in table:
            raise ConfigError(f"{where + name!r} is missing; every run needs it.")
    return kind(**{key: _value(hints[key], value, where + key, renamed) for key, value in table.items()})


def _with_new_names(table: dict[str, Any], where: str, renamed: Mapping[str, str]) -> dict[str, Any]:
    """`table` with the new names of `renamed`; a warning names each. Raises ConfigError where both are given."""
    table = dict(table)
    for old, new in renamed.items():
        folder, _, key = old.rpartition(".")
        if folder + "." != where or key not in table:
            continue
        new_key = new.rpartition(".")[2]
        if new_key in table:
            raise ConfigError(f"{old} is the old name of {new}, and both are there; keep {new}.")
        warnings.warn(f"{old} is now {new}; the old name goes in 0.3.", stacklevel=2)  # the CLI prints UserWarnings
        table[new_key] = table.pop(key)
    return table


def _value(hint: Any, value: Any, where: str, renamed: Mapping[str, str] = _NO_NAMES) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is {value!r}; expected a table, [{where}].")
        return from_table(hint, value, f"{where}.", renamed)  # type: ignore[arg-type]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in arguments or not isinstance(value, str):
            near = did_you_mean(str(value), [str(a) for a in arguments])
            raise ConfigError(f"{where} is {value!r}; expected one of {', '.join(map(repr, arguments))}.{near}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, where)
    if origin in (Union, types.UnionType):
        hints = [a for a in arguments if a is not type(None)]
        return _value(next((a for a in hints if _may_be(a, value)), hints[0]), value, where, renamed)
    return _plain(hint, value, where)


def _may_be(hint: Any, value: Any) -> bool:
    """Whether a value of TOML can be of one of the types of a union."""
    kind = dict if dataclasses.is_dataclass(hint) else str if get_origin(hint) is Literal else get_origin(hint) or hint
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{where} is {value!r}; expected a list.")
    if arguments[-1] is Ellipsis:
        return tuple(_value(arguments[0], item, where) for item in value)
    if len(value) != len(arguments):
        raise ConfigError(f"{where} has {len(value)} values; expected {len(arguments)}.")
    return tuple(_value(hint, item, where) for hint, item in zip(arguments, value, strict=True))


def _plain(hint: type, value: Any, where: str) -> Any:
    hint = get_origin(hint) or hint  # what is in a list or a table, its reader checks
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        names = {
            int: "a whole number",
            float: "a number",
            str: "a string",
            bool: "true or false",
            dict: "a table",
            list: "a list",
        }
        raise ConfigError(f"{where} is {value!r}; expected {names.get(hint, hint.__name__)}.")
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0 and not where.endswith(_BELOW_ZERO):
        raise ConfigError(f"{where} is {value}; expected 0 or more.")
    return value
