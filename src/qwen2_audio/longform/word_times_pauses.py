"""Sentences of a segment, each with its own times: by its words' times, or, without these, by the pauses.

Without word times the words are dealt to the runs of sound, in order, so that each run is about as long as the letters
of its words take, and preferably ends with a sentence. That finds where sentences begin, not where each word does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .transcript import Segment, Timing, Word, join_texts, split_words
from .word_times import sounding

_END = re.compile(r"[.!?…。！？]+['\"’”)\]」』]*$")
_ABBREVIATION = re.compile(r"^(?:mr|mrs|ms|dr|prof|st|vs|no|e\.g|i\.e|[a-z])\.$", re.IGNORECASE)
_CELL = 0.01  # s
_CLOSED, _SHORTEST = 10, 5  # cells: pauses that are none, runs that are none
_INSIDE = 0.6  # cost of a run that ends inside a sentence


def sentences_of(words: Sequence[str]) -> list[tuple[int, int]]:
    """Words, as `split_words` gives them, of each sentence: first, one behind the last."""
    spans, first = [], 0
    for index, word in enumerate(words):
        following = words[index + 1].strip()[:1] if index + 1 < len(words) else ""
        last = _END.search(word) and not _ABBREVIATION.match(word.strip()) and not following.islower()
        if last or index + 1 == len(words):
            spans.append((first, index + 1))
            first = index + 1
    return spans


def by_words(segment: Segment) -> list[Segment]:
    """A segment whose words have times as its sentences; each lasts from its first word to its last."""
    return _cut(segment, [_timed(segment.words[first:end]) for first, end in _spans(segment)], "aligned")


def by_pauses(segment: Segment, samples: np.ndarray) -> list[Segment]:
    """A segment without times of words as its sentences; `samples` are those from its start to its end, at 16 kHz."""
    texts = [word.text for word in segment.words] or split_words(segment.text)
    spans = sentences_of(texts)
    runs = _runs(samples) if len(spans) > 1 else []
    if not runs:
        return [segment]
    letters = [max(1, sum(map(str.isalnum, text))) for text in texts]
    starts, ends = _dealt(letters, {end for _, end in spans}, runs)
    known = [(segment.start + starts[first], segment.start + ends[end - 1]) for first, end in spans]
    return _cut(segment, [(start, min(max(end, start + _CELL), segment.end)) for start, end in known], "estimated")


def _spans(segment: Segment) -> list[tuple[int, int]]:
    return sentences_of([word.text for word in segment.words])


def _timed(words: Sequence[Word]) -> tuple[float, float] | None:
    starts = [word.start for word in words if word.start is not None]
    ends = [word.end for word in words if word.end is not None]
    return (starts[0], ends[-1]) if starts else None


def _cut(segment: Segment, times: Sequence[tuple[float, float] | None], timing: Timing) -> list[Segment]:
    """The segment's sentences at `times`; one without joins the sentence before, or the next one where it is first."""
    texts = [word.text for word in segment.words] or split_words(segment.text)
    spans = sentences_of(texts)
    groups: list[tuple[int, int, tuple[float, float] | None]] = []
    for (first, end), found in zip(spans, times, strict=True):
        if groups and (found is None or groups[-1][2] is None):
            first, found = groups[-1][0], groups[-1][2] if found is None else found
            groups[-1] = (first, end, found)
        else:
            groups.append((first, end, found))
    if any(found is None for _, _, found in groups):
        return [segment]
    parts = []
    for first, end, found in groups:
        assert found is not None
        words = segment.words[first:end]
        parts.append(
            replace(
                segment,
                start=found[0],
                end=found[1],
                text=join_texts(["".join(texts[first:end])]),
                words=words,
                tokens=segment.tokens if len(groups) == 1 else tuple(id for word in words for id in word.tokens),
                timing=timing,
            )
        )
    return parts


def _runs(samples: np.ndarray) -> list[tuple[int, int]]:
    """Runs of sound in steps of 10 ms: first, one behind the last."""
    loud = sounding(samples, len(samples) // 160)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(np.int8), [0]])))
    runs: list[tuple[int, int]] = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if runs and start - runs[-1][1] < _CLOSED:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return [(start, end) for start, end in runs if end - start >= _SHORTEST]


def _dealt(letters: list[int], ends: set[int], runs: list[tuple[int, int]]) -> tuple[list[float], list[float]]:
    """Start and end in seconds of each word, where the first words are dealt to the first run, and so on.

    A run costs |p - d| / (.15 + .15 d), d its duration and p that of its words' letters at the mean speed.
    """
    lengths = np.array([end - start for start, end in runs]) * _CELL
    sums = np.concatenate([[0.0], np.cumsum(letters)]) * float(lengths.sum()) / sum(letters)  # s of the first words
    count = len(letters)
    inside = np.array([0.0 if n in ends or n == 0 else _INSIDE for n in range(count + 1)])
    best = np.full(count + 1, np.inf)  # cost of the first n words in the runs so far
    best[0] = 0.0
    choices = []
    for length in lengths:
        predicted = sums[None, :] - sums[:, None]  # [words before, words after]
        costs = best[:, None] + np.abs(predicted - length) / (0.15 + 0.15 * length) + inside[None, :]
        costs[np.tril_indices(count + 1, -1)] = np.inf
        choices.append(costs.argmin(axis=0))
        best = costs.min(axis=0)
    groups, after = list[tuple[int, int]](), count
    for choice in reversed(choices):
        groups.append((int(choice[after]), after))
        after = int(choice[after])
    starts, stops = [0.0] * count, [0.0] * count
    for (first, end), (begin, stop) in zip(reversed(groups), runs, strict=True):
        share = np.concatenate([[0.0], np.cumsum(letters[first:end])]) / max(1, sum(letters[first:end]))
        for word in range(first, end):
            starts[word] = (begin + (stop - begin) * float(share[word - first])) * _CELL
            stops[word] = (begin + (stop - begin) * float(share[word - first + 1])) * _CELL
    return starts, stops
