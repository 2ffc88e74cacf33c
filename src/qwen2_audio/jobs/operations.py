"""What a job does with each row: the one table of operations.

To add one: a class with `read` and `submit`, and a line in OPERATIONS, whose name is the key of JobConfig that asks for
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from ..datasets.row import Row
from ..errors import ConfigError, did_you_mean
from ..longform.questions.policy import parse_policy
from .config import JobConfig
from .template import check_names, names_in

if TYPE_CHECKING:
    from ..api.chat import AudioChat
    from .runner import JobRow

# Columns that an operation adds, with their kinds: formats.py has each kind's type in a Parquet file.
ANSWER = {"text": "text", "heard": "number", "finish_reason": "text", "usage": "usage", "notes": "texts"}
TRANSCRIPT = {**ANSWER, "seconds": "number", "language": "text", "segments": "segments"}


class Pending(Protocol):
    """An answer on its way; a Future is one."""

    def done(self) -> bool: ...

    def result(self) -> Mapping[str, Any]:
        """The columns of the operation. Waits for them. Raises Qwen2AudioError for what is the row's own fault."""
        ...


class Operation(Protocol):
    """An operation with a loaded checkpoint, in a worker."""

    def read(self, item: JobRow) -> Any:
        """What `submit` needs of the row's sound. Called ahead on other threads. Raises as `Pending.result`."""

    def submit(self, item: JobRow, read: Any) -> Pending:
        """Put the row to the engine, and return at once."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Kind:
    """An operation as the driver knows it, without a checkpoint.

    keys: of JobConfig that only some operations have, and this one. columns: that it adds to a row, by their kind.
    factory: "module:class" in this room, called as `factory(chat, config)` in a worker.
    """

    about: str
    keys: tuple[str, ...]
    columns: Mapping[str, str]
    factory: str
    check: Callable[[JobConfig, Row], None] = lambda config, first: None

    def make(self, chat: AudioChat, config: JobConfig) -> Operation:
        module, _, name = self.factory.partition(":")
        operation: Operation = getattr(import_module(f".{module}", __package__), name)(chat, config)
        return operation


def values_of(row: Row) -> dict[str, Any]:
    """What a template can name: the row's columns, and its id."""
    return {"id": row.id, **row.columns}


def _check_question(config: JobConfig, first: Row) -> None:
    check_names(config.ask, values_of(first))


_SPEECH = ("language", "prompt", "everything")
OPERATIONS: dict[str, Kind] = {
    "ask": Kind("a question about each clip", ("system", "long", "sampling"), ANSWER, "ask:Ask", _check_question),
    "transcribe": Kind("what is said in each sound, of any length", _SPEECH, TRANSCRIPT, "speech:Speech"),
    "translate": Kind("what is said in each sound, in another language", _SPEECH, TRANSCRIPT, "speech:Speech"),
}


def operation_of(config: JobConfig) -> tuple[str, Kind]:
    """The one operation that a job asks for. Raises ConfigError: none, several, or a key that does nothing there."""
    asked = [name for name in OPERATIONS if getattr(config, name)]
    if len(asked) != 1:
        found = " and ".join(asked) or "none of them"
        raise ConfigError(f"A job does one of {', '.join(OPERATIONS)}; found {found}.")
    name = asked[0]
    kind, plain = OPERATIONS[name], JobConfig(input="-", output="-")
    for key in dict.fromkeys(key for other in OPERATIONS.values() for key in other.keys):
        if key not in kind.keys and getattr(config, key) != getattr(plain, key):
            users = ", ".join(other for other, its in OPERATIONS.items() if key in its.keys)
            raise ConfigError(f"{key!r} is a key of {users}, and this job's operation is {name}; leave it out.")
    if name == "ask":
        names_in(config.ask)
        parse_policy(config.long)
    return name, kind


def decisive(config: JobConfig) -> dict[str, Any]:
    """What of a job decides its answers, beside the clips and the weights."""
    name, kind = operation_of(config)
    values = {key: getattr(config, key) for key in (name, *kind.keys)}
    return {"operation": name, **{key: _plain(value) for key, value in values.items()}}


def _plain(value: Any) -> Any:
    return (
        {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(value).items()}
        if hasattr(value, "__dataclass_fields__")
        else value
    )


def known_operation(name: str) -> Kind:
    """The operation of that name. Raises ConfigError."""
    if name not in OPERATIONS:
        raise ConfigError(f"There is no operation {name!r}.{did_you_mean(name, list(OPERATIONS))}")
    return OPERATIONS[name]
