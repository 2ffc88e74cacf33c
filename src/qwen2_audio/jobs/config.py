"""What a job is: a TOML file of four lines or more. Unknown keys are refused, and values checked, before it starts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from ..checkpoint.toml_table import from_table, read_toml
from ..errors import ConfigError
from ..types import PoolingParams, SamplingParams

IN_FLIGHT = 64  # rows with the engine at a time: twice what it computes together
ROWS_PER_PART = 256


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; what is left out, the checkpoint's generation_config decides."""

    max_tokens: int | None = None  # new tokens at most
    temperature: float | None = None  # 0 is greedy
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int = 0  # of the job; a row's own is this and its number, so that it does not depend on other rows
    stop: tuple[str, ...] = ()

    def params(self, number: int, json_schema: Mapping[str, Any] | None = None) -> SamplingParams:
        """The sampling parameters of row `number`, whose answer may be held to a schema."""
        options = {item.name: getattr(self, item.name) for item in fields(self)}
        return SamplingParams(**{**options, "seed": self.seed + number, "json_schema": json_schema})


@dataclass(frozen=True)
class JobConfig:
    """One job. Paths in the file are relative to the folder that the command runs in.

    Exactly one of the operations (`ask`, `decide`, `embed`, `transcribe`, `translate`) is given; the registry in
    operations.py checks it.
    """

    input: str  # a file, a folder, a pattern with *, or an address in an object store: what datasets.open_corpus takes
    output: str  # the job's folder
    model: str = "nano"
    ask: str = ""  # the question; {column} stands for the row's value
    system: str = ""  # the system prompt; empty: the checkpoint's
    json_schema: dict[str, Any] | None = None  # that the answers of `ask` are held to; a path becomes what it holds
    decide: str | list[Any] = ""  # the question whose answers are given, or tables of them, as m.decide takes them
    choices: list[Any] | dict[str, Any] | None = None  # of the one question, as a table with descriptions;
    levels: list[Any] | None = None  # or a scale, lowest first; neither: yes or no
    labels: Literal["letters", "words"] = "letters"  # how choices are scored
    embed: bool | PoolingParams = False  # a vector of each clip
    transcribe: bool = False
    translate: str = ""  # the language to translate into, such as "en"
    language: str = ""  # that is spoken, for transcribe and translate; empty: not known
    prompt: str = ""  # what it is about, names for example, for transcribe and translate
    everything: bool = False  # transcribe and translate: also hear what is no speech
    long: str = "refuse"  # what `ask` does with a clip over 30 s: its row is an error; or as m.chat's long
    sampling: Sampling = field(default_factory=Sampling)
    workers: int = 1  # processes on this machine, a GPU each where there are some; 0: in the command's own process
    device: str = "auto"
    dtype: str = "auto"
    quantize: Literal["", "int8", "int4"] = ""
    adapter: str = ""
    in_flight: int = IN_FLIGHT  # rows with a worker's engine at a time
    format: Literal["jsonl", "parquet"] = "jsonl"
    rows_per_part: int = ROWS_PER_PART
    limit: int | None = None  # the first rows only
    shard: str = ""  # "2/4": of the parts every fourth, from the second on; for machines that share the folder
    max_errors: int | None = None  # rows that may fail before the job stops; none: any number

    def __post_init__(self) -> None:
        for name in ("in_flight", "rows_per_part"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}; expected 1 or more.")
        for name in ("input", "output"):
            if not getattr(self, name):
                raise ConfigError(f"{name!r} is empty; expected a path.")
        self.sampling.params(0)  # raises what no row could be asked with
        _ = self.shard_numbers

    @property
    def shard_numbers(self) -> tuple[int, int]:
        """Which shard, from 1, and of how many. Raises ConfigError."""
        if not self.shard:
            return 1, 1
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigError(f"shard is {self.shard!r}; expected number/how many, such as '2/4'.")
        return int(match[1]), int(match[2])

    @classmethod
    def of(cls, source: str | Path | Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Self:
        """From a TOML file, or a table of the same keys. `changes`: values by key, "sampling.seed" for example, that
        take the place of the source's. Raises ConfigError, with the file's name.
        """
        table = dict(source) if isinstance(source, Mapping) else read_toml(source)
        for key, value in (changes or {}).items():
            _put(table, key, value)
        try:
            if isinstance(schema := table.get("json_schema"), (str, Path)):
                table["json_schema"] = _read_schema(Path(schema))  # workers elsewhere may not have the file
            if table.get("embed") is True:
                table["embed"] = {}
            return from_table(cls, table)
        except ConfigError as error:
            raise ConfigError(str(error) if isinstance(source, Mapping) else f"{source}: {error}") from None


def _read_schema(path: Path) -> Any:
    """What a JSON file holds. Raises ConfigError."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"json_schema {str(path)!r} cannot be read as JSON: {reason}.") from None


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    *folders, name = key.split(".")
    for folder in folders:
        inner = table.get(folder, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key!r} is set, but {folder} is {inner!r}; expected a table.")
        table[folder] = dict(inner)
        table = table[folder]
    table[name] = value


def parse_changes(texts: Sequence[str]) -> dict[str, Any]:
    """ "key=value" texts, values as in TOML, or as plain text where they are none. Raises ConfigError."""
    import tomllib

    changes: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set got {text!r}; expected key=value, such as workers=2.")
        try:
            changes[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            changes[key.strip()] = value.strip()
    return changes
