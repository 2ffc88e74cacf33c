"""Nano's examination: a checkpoint answers every question, through the package's own engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from ...api.loading import load
from ...types import Message, SamplingParams
from ..word_errors import load_levenshtein
from .lifelike import field_questions, joined_questions, neural_questions
from .people_questions import people_questions
from .questions import Question, questions
from .real_world import FOLDER, missing, real_questions
from .speech import kokoro
from .speech.engines import check_engines
from .tally import Tally

BATCH = 64  # conversations handed to the engine at once
MAX_NEW_TOKENS = 40  # of an answer, unless a question says otherwise
ROWS = 17  # rows of the table with `count` questions each, for the progress bar


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


def all_questions(count: int, real: Path = FOLDER, tell: Callable[[str], None] = print) -> Iterator[Question]:
    """The examination, `count` questions a row; of the rows that are slow to make or to answer a third.

    Rows of real recordings (in the folder `real`) and of Kokoro's voices are left out where they cannot be had; `tell`
    gets the reason, one sentence each.
    """
    yield from questions(count)
    yield from people_questions(-(-count // 3))
    yield from field_questions(count)
    yield from joined_questions(-(-count // 3))
    if reason := kokoro.available():
        tell(f"nano.neural_voice.wer is left out: {reason}")
    else:
        yield from neural_questions(-(-count // 3))
    if reason := missing(real):
        tell(f"The rows nano.real_speech and nano.real_sound are left out: {reason}")
    else:
        yield from real_questions(real)


def examine(
    folders: Sequence[Path], count: int, real: Path = FOLDER, tell: Callable[[str], None] = print
) -> list[Tally]:
    """Ask each checkpoint the same questions, those of `all_questions`, with a progress bar on stderr.

    Raises EvaluationError where a synthesiser is missing, ConfigError where rapidfuzz is.
    """
    from rich.console import Console
    from rich.progress import track

    check_engines()
    load_levenshtein()
    listeners, tallies = [Listener(folder) for folder in folders], [Tally() for _ in folders]
    batches, total = _batches(all_questions(count, real, tell)), -(-count * ROWS // BATCH)
    for batch in track(batches, f"asking {folders[0]}", total=total, console=Console(stderr=True)):
        for listener, tally in zip(listeners, tallies, strict=True):
            answers = listener.answers([question.messages for question in batch], tokens=batch[0].tokens)
            for question, answer in zip(batch, answers, strict=True):
                tally.add(question, answer)
    return tallies


def _batches(stream: Iterator[Question]) -> Iterator[list[Question]]:
    """Questions whose answers may have as many tokens."""
    for _, alike in groupby(stream, key=lambda question: question.tokens):
        while batch := list(islice(alike, BATCH)):
            yield batch
