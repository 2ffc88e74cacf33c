"""Nano's examination: a checkpoint answers every question, through the package's own engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from ...api.loading import load
from ...types import Message, SamplingParams
from ..word_errors import load_levenshtein
from .questions import Question, questions
from .speech.engines import check_engines
from .tally import Tally

BATCH = 64  # conversations handed to the engine at once
MAX_NEW_TOKENS = 40
ROWS = 11  # rows of the table with `count` questions each, for the progress bar


class Listener:
    """A checkpoint that answers, in float32."""

    def __init__(self, folder: Path) -> None:
        self.chat = load(folder, dtype="float32")

    def answers(self, conversations: Sequence[list[Message]], seed: Sequence[int] | None = None) -> list[str]:
        """The next answer in each conversation: greedy, or with a `seed` one drawn at temperature 1 from all tokens."""
        params = [SamplingParams(max_tokens=MAX_NEW_TOKENS, temperature=0.0)] * len(conversations)
        if seed is not None:
            drawn = SamplingParams(max_tokens=MAX_NEW_TOKENS, temperature=1.0, top_k=0)
            seeds = np.random.default_rng(seed).integers(1 << 31, size=len(conversations))
            params = [replace(drawn, seed=int(number)) for number in seeds]
        return [completion.text for completion in self.chat.batch(conversations, params)]


def examine(folders: Sequence[Path], count: int) -> list[Tally]:
    """Ask each checkpoint the same questions, `count` a row, with a progress bar on stderr.

    Raises EvaluationError where a synthesiser is missing, ConfigError where rapidfuzz is.
    """
    from rich.console import Console
    from rich.progress import track

    check_engines()
    load_levenshtein()
    listeners, tallies = [Listener(folder) for folder in folders], [Tally() for _ in folders]
    batches, total = _batches(questions(count)), -(-count * ROWS // BATCH)
    for batch in track(batches, f"asking {folders[0]}", total=total, console=Console(stderr=True)):
        for listener, tally in zip(listeners, tallies, strict=True):
            answers = listener.answers([question.messages for question in batch])
            for question, answer in zip(batch, answers, strict=True):
                tally.add(question, answer)
    return tallies


def _batches(stream: Iterator[Question]) -> Iterator[list[Question]]:
    while batch := list(islice(stream, BATCH)):
        yield batch
