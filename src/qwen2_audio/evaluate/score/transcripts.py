"""Word and character error rates: the official chain, and two readings beside it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..example import Prediction
from ..normalize.official import TAG, chain, tokens
from ..task import Task
from ..word_errors import align
from .echoes import without_echo
from .judgement import Judgement
from .measure import Array, Measure, Scores

COLUMNS = ("substitutions", "deletions", "insertions", "reference_tokens")


def plain_tokens(text: str, *, characters: bool) -> list[str]:
    """Lower-case words without punctuation but apostrophes, or their characters: what most papers count."""
    text = TAG.sub(" ", text).lower()
    kept = "".join(c if c == "'" or not unicodedata.category(c).startswith("P") else " " for c in text)
    words = kept.split()
    return list("".join(words)) if characters else words


def transcript_tokens(task: Task, text: str) -> list[str]:
    """The tokens that the task's error rate counts, for its report."""
    return tokens(text, task.language, characters=task.scorer == "cer" or None)


def error_rates(task: Task, predictions: Sequence[Prediction], judgements: Mapping[str, Sequence[Judgement]]) -> Scores:
    """`wer` or `cer` as the official evaluation counts; `_lenient` without a chat model's sentence around the
    transcript; `_plain` without the normalisers; `_mean` the mean of the rows' rates, which some suites print."""
    name, by_character = task.scorer, task.scorer == "cer"
    texts = [prediction.text for prediction in predictions]
    bare = [without_echo(text) for text in texts]
    references = [transcript_tokens(task, prediction.reference or "") for prediction in predictions]
    counted = _count(zip(references, (transcript_tokens(task, text) for text in texts), strict=True))
    lenient = counted.copy()
    for row, (text, inside) in enumerate(zip(texts, bare, strict=True)):
        if text != inside:
            lenient[row] = _count([(references[row], transcript_tokens(task, inside))])[0]
    plain = _count(
        (plain_tokens(one.reference or "", characters=by_character), plain_tokens(one.text, characters=by_character))
        for one in predictions
    )
    has_words = counted[:, 3] > 0
    rates = np.where(has_words, counted[:, :3].sum(1) / np.maximum(counted[:, 3], 1), 0.0)
    return Scores(
        (
            Measure(name, counted, _rate, lower_is_better=True, columns=COLUMNS),
            Measure(f"{name}_lenient", lenient, _rate, lower_is_better=True, columns=COLUMNS),
            Measure(f"{name}_plain", plain, _rate, lower_is_better=True, columns=COLUMNS),
            Measure(f"{name}_mean", np.stack([rates, has_words], axis=-1).astype(float), lower_is_better=True),
        ),
        signature={"norm": chain(task.language), "tok": "characters" if by_character else "words"},
    )


def _count(pairs: Iterable[tuple[list[str], list[str]]]) -> Array:
    """[rows, 4]: substitutions, deletions, insertions, tokens of the reference."""
    counts = []
    for reference, answer in pairs:
        tags = [tag for tag, _, _ in align(reference, answer)]
        counts.append([tags.count("replace"), tags.count("delete"), tags.count("insert"), len(reference)])
    return np.array(counts, float).reshape(len(counts), 4)


def _rate(sums: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., :3].sum(-1) / sums[..., 3])
