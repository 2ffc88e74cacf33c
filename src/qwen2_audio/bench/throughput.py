"""`bench throughput`: one checkpoint on one machine, asked through the short API as a program of its user would.

Answers have exactly `max_tokens` tokens, so that figures of two machines, or of two formats, compare. Each measurement
has clips of its own, so that no cache answers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ConfigError
from ..inputs.messages import user
from ..quantize.scheme import KEY as QUANTIZATION
from ..types import Message, SamplingParams
from . import machine
from .clips import clip_variant
from .report import Report, Row

if TYPE_CHECKING:
    from ..api.chat import AudioChat

QUESTION = "What's that sound?"
FIRST_TOKEN_CLIPS = (3.0, 10.0, 30.0)  # seconds
DECODE_CLIP = 3.0
BATCH_CLIPS = (2.0, 15.0)  # the shortest and the longest; the others lie evenly between

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to measure."""

    requests: int = 16  # of the batch
    max_tokens: int = 64  # of each answer, exactly
    repeats: int = 3  # of each measurement, behind one that warms up

    def __post_init__(self) -> None:
        for name, least in {"requests": 1, "max_tokens": 2, "repeats": 1}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least {least}.")


def run(options: Options, chat: AudioChat, progress: Progress = lambda line: None) -> Report:
    """Measure. Wants the machine for itself.

    Raises:
        ContextLengthError: the checkpoint has no room for a clip of 30 s, or for so many tokens.
        CapacityError: memory has none.
    """
    if chat.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(chat.device)
    stopwatch = _Stopwatch(options, chat, progress)
    rows = [*stopwatch.first_token_rows(), stopwatch.decode_row(), *stopwatch.batch_rows(), _memory_row(chat.device)]
    about = machine.describe(torch.get_num_threads()) | {
        "ours": version("qwen2-audio"),
        "checkpoint": chat.name,
        "dtype": f"{_format_of(chat)} on {_device_name(chat.device)}",
    }
    return Report(about, rows)


class _Stopwatch:
    """Asks one AudioChat, and times its answers."""

    def __init__(self, options: Options, chat: AudioChat, progress: Progress) -> None:
        self._options, self._chat, self._progress = options, chat, progress
        self._variant = 0

    def first_token_rows(self) -> list[Row]:
        """Seconds from a waveform to the first token of the answer, nothing else being computed."""
        rows = []
        for length in FIRST_TOKEN_CLIPS:
            name = f"throughput.ttft_{length:g}s"
            seconds = self._repeat(name, partial(self._answer_seconds, length, 1))
            rows.append(_row(name, "s", seconds, f"from the waveform of a {length:g} s clip to the first token"))
        return rows

    def decode_row(self) -> Row:
        """Tokens a second of one answer, after its first token: what a long answer takes longer than one token."""
        more = self._options.max_tokens - 1
        name = "throughput.decode"

        def rate() -> float | None:
            first_token = self._answer_seconds(DECODE_CLIP, 1)
            decode = self._answer_seconds(DECODE_CLIP, 1 + more) - first_token
            return more / decode if decode > 0 else None

        return _row(name, "tokens/s", self._repeat(name, rate), f"one answer of {1 + more} tokens, after its first")

    def batch_rows(self) -> list[Row]:
        """What a batch of requests gets done a second, from its waveforms to the end of its last answer."""
        count, max_tokens = self._options.requests, self._options.max_tokens
        shortest, longest = BATCH_CLIPS
        lengths = [shortest + (longest - shortest) * number / max(count - 1, 1) for number in range(count)]
        name = "throughput.requests"

        def batch_seconds() -> float:
            conversations = [self._conversation(length) for length in lengths]
            start = time.perf_counter()
            self._chat.batch(conversations, _exactly(max_tokens))
            return time.perf_counter() - start

        seconds = self._repeat(name, batch_seconds)
        amounts = {name: (count, "requests/s"), "throughput.audio": (sum(lengths), "s/s")}
        amounts["throughput.tokens"] = (count * max_tokens, "tokens/s")
        notes = [f"{count} at once, clips of {min(lengths):g} to {max(lengths):g} s", "seconds of audio a second"]
        notes.append(f"{max_tokens} of each answer")
        return [
            _row(row_name, unit, [amount / value for value in seconds], note)
            for (row_name, (amount, unit)), note in zip(amounts.items(), notes, strict=True)
        ]

    def _repeat(self, name: str, measure: Callable[[], Any]) -> list[Any]:
        """What `measure` returns, `repeats` times; the first call warms up and does not count."""
        values = []
        for turn in range(self._options.repeats + 1):
            self._progress(f"{name}: " + (f"{turn} of {self._options.repeats}" if turn else "warm-up"))
            values.append(measure())
        return values[1:]

    def _answer_seconds(self, length: float, tokens: int) -> float:
        """Seconds of an answer of so many tokens about a clip of `length` seconds that is new."""
        conversation = self._conversation(length)
        start = time.perf_counter()
        self._chat.chat(conversation, _exactly(tokens))
        return time.perf_counter() - start

    def _conversation(self, length: float) -> list[Message]:
        self._variant += 1
        return [user(QUESTION, audio=clip_variant(length, self._variant))]


def _exactly(tokens: int) -> SamplingParams:
    """Greedy, an answer of so many tokens."""
    return SamplingParams(temperature=0, min_tokens=tokens, max_tokens=tokens)


def _row(name: str, unit: str, values: list[Any], note: str) -> Row:
    """The median and the range; no value where one of them could not be measured."""
    if None in values:
        return Row(name, None, unit, note=note)
    spread = (min(values), max(values)) if len(values) > 1 else None
    return Row(name, statistics.median(values), unit, spread=spread, note=note)


def _memory_row(device: torch.device) -> Row:
    if device.type == "cuda":
        peak, note = torch.cuda.max_memory_allocated(device) / 1e9, "tensors on the GPU, weights and cache included"
        return Row("throughput.peak_gb", peak, "GB", note=note)
    return Row("throughput.peak_gb", machine.peak_gb(), "GB", note="of this process, loading included")


def _format_of(chat: AudioChat) -> str:
    """The scheme of a quantised model, else the dtype."""
    quantization = getattr(chat.model.config, QUANTIZATION, None)
    return str(quantization["scheme"]) if quantization else str(chat.dtype).removeprefix("torch.")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
