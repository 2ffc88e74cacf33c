"""What a job does with each row: the one table of operations.

To add one: a class with `read` and `submit`, and a line in OPERATIONS, whose name is the key of JobConfig that asks for
it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from ..datasets.row import Row
from ..engine.structured.grammar import check as check_constraint
from ..errors import ConfigError
from ..longform.questions.policy import parse_policy
from ..types import PoolingParams, SamplingParams, Usage
from .config import JobConfig
from .questions import questions_of, texts_of
from .template import check_names, names_in

if TYPE_CHECKING:
    from ..api.chat import AudioChat
    from .runner import JobRow

Asked = Mapping[str, Any]  # what `decisive` returns, and job.json has
Columns = Mapping[str, str]  # that an operation adds, with their kinds: formats.py has each kind's type in Parquet

CLIP = {"heard": "number", "usage": "usage", "notes": "texts"}
ANSWER = {"text": "text", "heard": "number", "finish_reason": "text", "usage": "usage", "notes": "texts"}
TRANSCRIPT = {**ANSWER, "seconds": "number", "language": "text", "segments": "segments"}


def _answer(asked: Asked) -> Columns:
    return {**ANSWER, "parsed": "json"} if "json_schema" in asked else ANSWER


def _decision(asked: Asked) -> Columns:
    """Of several questions each column is a list, in their order."""
    text, number = ("texts", "numbers") if isinstance(asked["decide"], list) else ("text", "number")
    return {
        "label": text, "probabilities": "json", "label_mass": number, "confidence": number, "score": number, **CLIP
    }  # fmt: skip


def _vector(asked: Asked) -> Columns:
    is_whole = asked["embed"]["pooling"] == "none"
    return {"embedding": "vectors" if is_whole else "vector", **CLIP}


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

    keys: of JobConfig that only some operations have, and this one. columns: that it adds to a row.
    factory: "module:class" in this room, called as `factory(chat, config)` in a worker. check: raises ConfigError where
    the corpus, of which it gets the first row, cannot be asked; the values alone, `operation_of` checks.
    """

    about: str
    keys: tuple[str, ...]
    columns: Callable[[Asked], Columns]
    factory: str
    check: Callable[[JobConfig, Row], None] = lambda config, first: None

    def make(self, chat: AudioChat, config: JobConfig) -> Operation:
        module, _, name = self.factory.partition(":")
        operation: Operation = getattr(import_module(f".{module}", __package__), name)(chat, config)
        return operation


def values_of(row: Row) -> dict[str, Any]:
    """What a template can name: the row's columns, and its id."""
    return {"id": row.id, **row.columns}


def usage_of(*usages: Usage) -> dict[str, int]:
    """The column `usage` of a row that took these requests."""
    return {
        "prompt_tokens": sum(usage.prompt_tokens for usage in usages),
        "audio_tokens": sum(usage.audio_tokens for usage in usages),
        "completion_tokens": sum(usage.completion_tokens for usage in usages),
    }


def _check_question(config: JobConfig, first: Row) -> None:
    check_names(config.ask, values_of(first))


def _check_questions(config: JobConfig, first: Row) -> None:
    for text in texts_of(questions_of(config)):
        check_names(text, values_of(first))


_ASK = ("system", "long", "sampling", "json_schema")
_DECIDE = ("system", "choices", "levels", "labels")
_SPEECH = ("language", "prompt", "everything")
OPERATIONS: dict[str, Kind] = {
    "ask": Kind("a question about each clip", _ASK, _answer, "ask:Ask", _check_question),
    "decide": Kind("questions whose answers are given", _DECIDE, _decision, "decide:Decide", _check_questions),
    "embed": Kind("a vector of each clip", (), _vector, "embed:Embed"),
    "transcribe": Kind("what is said in each sound, of any length", _SPEECH, lambda _: TRANSCRIPT, "speech:Speech"),
    "translate": Kind("what is said, in another language", _SPEECH, lambda _: TRANSCRIPT, "speech:Speech"),
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
        if (held := SamplingParams(json_schema=config.json_schema).constraint) is not None:
            check_constraint(held)
    elif name == "decide":
        questions_of(config)
    return name, kind


def decisive(config: JobConfig) -> dict[str, Any]:
    """What of a job decides its answers, beside the clips and the weights. Plain JSON; what is None is not there."""
    name, kind = operation_of(config)
    values = {key: getattr(config, key) for key in (name, *kind.keys)}
    return {"operation": name, **{key: _plain(value) for key, value in values.items() if value is not None}}


def _plain(value: Any) -> Any:
    if isinstance(value, PoolingParams):
        return {**asdict(value), "pooling": value.pooled_by}
    if hasattr(value, "__dataclass_fields__"):
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(value).items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)  # as text, because the order of its keys counts
    return value


def columns_of(asked: Asked) -> Columns:
    """The columns that a job adds to its rows; none where another version of this package made it, whose they are."""
    kind = OPERATIONS.get(asked.get("operation", ""))
    return {} if kind is None else kind.columns(asked)
