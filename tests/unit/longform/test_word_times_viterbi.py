"""CTC's forced alignment against all paths there are, and its bands against the whole trellis."""

from itertools import product

import numpy as np
import pytest

from qwen2_audio.longform.word_times_letters import WILDCARD
from qwen2_audio.longform.word_times_viterbi import forced_path

CLASSES = 4  # the blank and three letters


def best_of_all(log_probs, labels):
    """The score of the best path, by trying every sequence of classes and, for wildcards, every way to read it."""
    frames, extended = len(log_probs), [column for label in labels for column in (0, label)] + [0]
    best = -np.inf
    for steps in product((0, 1, 2), repeat=frames - 1):
        for first in (0, 1):
            states = np.cumsum([first, *steps])
            if states[-1] not in (len(extended) - 1, len(extended) - 2) or states.max() >= len(extended):
                continue
            if any(step == 2 and not skips(extended, state) for step, state in zip(steps, states[1:], strict=True)):
                continue
            best = max(best, sum(value(row, extended[state]) for row, state in zip(log_probs, states, strict=True)))
    return best


def skips(extended, state):
    return state % 2 == 1 and (extended[state] != extended[state - 2] or extended[state] == WILDCARD)


def value(row, column):
    return row[2:].max() if column == WILDCARD else row[column]


def score(log_probs, labels, path):
    assert path.dtype == np.int32
    return sum(value(row, 0 if label < 0 else labels[label]) for row, label in zip(log_probs, path, strict=True))


def valid(labels, path):
    """Every label once, in order, with a blank between two equal ones."""
    said, before = [], -1
    for label in path.tolist():
        if label >= 0 and label != before:
            assert not said or label == said[-1] + 1
            assert not (said and labels[label] == labels[said[-1]] != WILDCARD and before == said[-1])
            said.append(label)
        before = label
    return said == list(range(len(labels)))


@pytest.mark.parametrize("labels", [[1], [1, 2], [2, 2], [2, 2, 3], [WILDCARD, 2], [WILDCARD, WILDCARD], [1, 2, 1]])
def test_the_best_of_all_paths(labels):
    random = np.random.default_rng(len(labels))
    for frames in range(len(labels) + 1, 7):
        log_probs = np.log(random.dirichlet(np.ones(CLASSES) * 0.5, frames) + 1e-9)
        path = forced_path(log_probs, np.array(labels))
        assert valid(labels, path)
        assert score(log_probs, labels, path) == pytest.approx(best_of_all(log_probs, labels), abs=1e-4)


def speech(letters, random, noise=1.0):
    """Log-probs as CTC gives them: a peak for each letter, blanks between, some of it wrong."""
    rows = []
    for letter in letters:
        for column in [*[0] * random.integers(1, 4), letter, *[0] * random.integers(0, 2)]:
            logits = random.normal(0, noise, 30)
            logits[column] += 5
            rows.append(logits - np.log(np.exp(logits).sum()))
    return np.array(rows)


def test_a_band_and_few_steps_kept_find_the_path_of_the_whole_trellis():
    random = np.random.default_rng(0)
    letters = random.integers(1, 29, 400)
    log_probs = speech(letters, random)
    whole = forced_path(log_probs, letters)
    assert valid(letters, whole)
    assert np.array_equal(forced_path(log_probs, letters, band=128), whole)
    assert np.array_equal(forced_path(log_probs, letters, band=128, steps_bytes=128 * 90), whole)
    assert np.array_equal(forced_path(log_probs, letters, steps_bytes=1), whole)


def test_a_text_whose_end_the_band_does_not_reach_is_aligned_with_a_wider_one():
    random = np.random.default_rng(1)
    letters = random.integers(1, 29, 300)
    log_probs = speech(letters[:100], random)[:320]
    path = forced_path(np.concatenate([log_probs, speech(letters[250:], random)]), letters, band=64)
    assert valid(letters, path)


def test_what_cannot_be():
    log_probs = np.log(np.full((3, CLASSES), 1 / CLASSES))
    assert forced_path(log_probs, np.array([1, 2, 3, 1])) is None
    assert forced_path(log_probs, np.array([2, 2, 3])) is None  # a blank must fit in between
    assert forced_path(log_probs, np.array([], int)).tolist() == [-1, -1, -1]
