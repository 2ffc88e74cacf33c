"""Which rows a run asks, and reading their clips ahead of the model."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..errors import ConfigError, Qwen2AudioError
from .clips import HeardClip, decode_clip, read_clip
from .example import Example, Prediction
from .predictions import Row, prediction_key

T = TypeVar("T")
READERS = 2  # threads that read and decode clips
AHEAD = 64  # rows that they may be ahead of the model


@dataclass(frozen=True)
class Selection:
    """Rows of a task: the first `limit`, or `sample` drawn by `seed`; of those the `shard`'s."""

    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    shard: tuple[int, int] | None = None  # number, from 1, and how many

    def __post_init__(self) -> None:
        if self.limit is not None and self.sample is not None:
            raise ConfigError("Both --limit and --sample were given; give one of them.")
        for name, value in (("limit", self.limit), ("sample", self.sample)):
            if value is not None and value < 1:
                raise ConfigError(f"--{name} is {value}; expected at least 1.")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise ConfigError(f"--shard is {self.shard[0]}/{self.shard[1]}; expected 1/n to n/n, such as 2/4.")

    def rows(self, examples: Sequence[T]) -> list[tuple[int, T]]:
        """The selected ones, with their numbers in `examples`, in their order."""
        numbers: Sequence[int] = range(len(examples))
        if self.limit is not None:
            numbers = numbers[: self.limit]
        if self.sample is not None and self.sample < len(numbers):
            numbers = sorted(random.Random(self.seed).sample(numbers, self.sample))
        if self.shard is not None:
            numbers = numbers[self.shard[0] - 1 :: self.shard[1]]
        return [(number, examples[number]) for number in numbers]


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """ "2/4" as (2, 4). Raises ConfigError."""
    if text is None:
        return None
    number, slash, total = text.partition("/")
    if not (slash and number.isdecimal() and total.isdecimal()):
        raise ConfigError(f"--shard is {text!r}; expected number/how many, such as 2/4.")
    return int(number), int(total)


class Answers(Protocol):
    """What was answered before, by task and id."""

    @property
    def latest(self) -> Mapping[Row, Prediction]: ...


@dataclass(frozen=True)
class ReadRow:
    """A row whose clip was read: with samples, with the answer that is there already, or with an error."""

    index: int  # in the task's data
    example: Example
    sha1: str  # of the clip; "" where it cannot be read
    key: str
    clip: HeardClip | None = None
    known: Prediction | None = None
    error: str | None = None


def read_row(
    index: int, example: Example, log: Answers, key_of: Callable[[Example, str], str], *, whole: bool = False
) -> ReadRow:
    """A clip is decoded only where its answer is not there yet; errors are tried again. Raises nothing of a clip's.

    `whole`: all of it is heard, and not only what the official run hears.
    """
    sha1 = ""
    try:
        encoded = read_clip(example.sound)
        sha1 = encoded.sha1
        key = key_of(example, sha1)
        known = log.latest.get((example.task, example.id))
        if known is not None and known.key == key and known.error is None:
            return ReadRow(index, example, sha1, key, known=known)
        return ReadRow(index, example, sha1, key, decode_clip(encoded, whole=whole))
    except Qwen2AudioError as error:
        return ReadRow(index, example, sha1, key_of(example, sha1), error=getattr(error, "sentence", "") or str(error))


def read_rows(
    rows: Iterable[tuple[int, Example]], read: Callable[[int, Example], ReadRow], ahead: int = AHEAD
) -> Iterator[ReadRow]:
    """`rows` in their order, read by other threads, `ahead` of them at most before they are asked for."""
    with ThreadPoolExecutor(READERS, thread_name_prefix="qwen2-audio-read") as pool:
        futures: deque[Future[ReadRow]] = deque()
        try:
            for index, example in rows:
                futures.append(pool.submit(read, index, example))
                if len(futures) > ahead:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()


def key_maker(task: str, decoding: dict[str, object], fingerprint: str) -> Callable[[Example, str], str]:
    """The key of a row's prediction, from its example and its clip's hash."""

    def key(example: Example, sha1: str) -> str:
        return prediction_key(task, example.id, audio=sha1, prompt=example.prompt, decoding=decoding, model=fingerprint)

    return key
