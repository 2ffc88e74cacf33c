"""Nano's examination: a checkpoint answers every question, through the package's own engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from ...api.loading import load
from ...types import Message, SamplingParams
from ..word_errors import load_levenshtein
from .people_questions import people_questions
from .questions import Question, questions
from .speech.engines import check_engines
from .tally import Tally

BATCH = 64  # conversations handed to the engine at once
MAX_NEW_TOKENS = 40  # of an answer, unless a question says otherwise
ROWS = 15  # rows of the table with `count` questions each, for the progress bar


class Listener:
    """A checkpoint that answers, in float32."""

    def __init__(self, folder: Path) -> None:
        self.chat = load(folder, dtype="float32")

    def answers(
        self, conversations: Sequence[list[Message]], seed: Sequence[int] | None = None, tokens: int = MAX_NEW_TOKENS
    ) -> list[str]:
        """The next answer in each conversation, of at most `tokens`: greedy, or with a `seed` one drawn at temperature
        1 from all tokens."""
        params = [SamplingParams(max_tokens=tokens, temperature=0.0)] * len(conversations)
        if seed is not None:
            drawn = SamplingParams(max_tokens=tokens, temperature=1.0, top_k=0)
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
    asked = chain(_batches(questions(count)), _batches(people_questions(-(-count // 3))))
    batches, total = asked, -(-count * ROWS // BATCH)
    for batch in track(batches, f"asking {folders[0]}", total=total, console=Console(stderr=True)):
        for listener, tally in zip(listeners, tallies, strict=True):
            answers = listener.answers([question.messages for question in batch], tokens=batch[0].tokens)
            for question, answer in zip(batch, answers, strict=True):
                tally.add(question, answer)
    return tallies


def _batches(stream: Iterator[Question]) -> Iterator[list[Question]]:
    while batch := list(islice(stream, BATCH)):
        yield batch
