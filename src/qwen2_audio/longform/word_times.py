"""Times of words whose text is known: CTC's forced alignment with a linear head on the checkpoint's own encoder.

    samples -> encoder states, 50 a second -> log-probs of letters -> best path through the text -> words

Sound between words is not a letter's: where it is quiet, letters cost more, and a word that would begin in silence
begins with the next sound.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..audio.mel import SAMPLE_RATE
from ..errors import ConfigError
from .windows import SHORTEST
from .word_times_head import RATE, AlignerHead, encoder_states
from .word_times_letters import SPACE, WILDCARD, labels_of, spell
from .word_times_viterbi import forced_path

if TYPE_CHECKING:
    import torch

    from ..model.encoder import Qwen2AudioEncoder

_CELLS = 100  # a second: the steps in which sound and silence are told apart
_PER_FRAME = _CELLS // RATE
_QUIET = 0.06  # of the loud sound's level
_PENALTY = 4.0  # taken from a letter's log-prob in silence
_BEFORE, _AFTER = 1, 4  # frames before and behind a sound in which a letter may be: CTC's peaks are late
_LAST = 0.04  # s that a word goes on from its last letter's frame
_JOINED = 0.2  # s; a word ends with the next one's beginning if that is not later
_LEAST = 0.02  # s a word lasts
# Below this geometric mean of its letters' probabilities a word is not in the sound. On nano it drops none of 230 right
# words and 19 of 30 inserted ones; in white noise 5 dB below the speech none and 4. Higher, it drops a real voice's.
FLOOR = 3e-4


@dataclass(frozen=True)
class WordSpan:
    """Where a word lies, in seconds, and the probability of its letters there, their geometric mean."""

    start: float
    end: float
    score: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of a part of a sound; parts of one sound can be laid end to end."""

    log_probs: np.ndarray  # float [T, C]: of CTC's classes in each frame of 20 ms
    loud: np.ndarray  # bool [2 T]: whether there is sound, by steps of 10 ms
    starts: np.ndarray  # float64 [T]: where each frame begins, in seconds of the sound

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        return cls(
            np.concatenate([part.log_probs for part in parts]),
            np.concatenate([part.loud for part in parts]),
            np.concatenate([part.starts for part in parts]),
        )


class WordTimer(Protocol):
    """What finds times of words."""

    def ensure_available(self) -> None:
        """Raises ConfigError where it cannot."""

    def words(self, samples: np.ndarray, words: Sequence[str], start: float = 0.0) -> list[WordSpan | None]:
        """float32 [S] at 16 kHz that begin at `start` seconds, and all words in them -> where each is; None for a word
        without letters, or one that is not there."""


class Aligner:
    """Times of words by a checkpoint's encoder and its head. Several threads may call it."""

    def __init__(self, encoder: Qwen2AudioEncoder, path: Path | None, name: str) -> None:
        """`path`: the head's file; None where the checkpoint `name` has none. Nothing is read yet."""
        self._encoder, self._path, self._name = encoder, path, name
        self._lock = Lock()

    def ensure_available(self) -> None:
        """Raises ConfigError: the checkpoint has no aligner, or it was made for another encoder."""
        _ = self.symbols

    @property
    def symbols(self) -> str:
        return self._loaded[0].symbols

    def words(self, samples: np.ndarray, words: Sequence[str], start: float = 0.0) -> list[WordSpan | None]:
        """As `WordTimer.words`, of at most 30 s."""
        return align_words([self.evidence(samples, start)], words, self.symbols, self._loaded[0].shift)

    def align(self, parts: Sequence[Evidence], words: Sequence[str]) -> list[WordSpan | None]:
        """The same with the evidence of a sound's parts, in order."""
        return align_words(parts, words, self.symbols, self._loaded[0].shift)

    def evidence(self, samples: np.ndarray, start: float = 0.0) -> Evidence:
        """float32 [S] at 16 kHz, at most 30 s, that begin at `start` seconds of a sound; nothing under 21 ms."""
        head, weight, bias = self._loaded
        if len(samples) < SHORTEST:
            return Evidence(np.zeros((0, len(bias)), np.float16), np.zeros(0, bool), np.zeros(0))
        states = encoder_states(self._encoder, samples, [head.layer])[head.layer]
        log_probs = (states @ weight.T + bias).log_softmax(-1).half().cpu().numpy()
        frames = len(log_probs)
        return Evidence(log_probs, sounding(samples, _PER_FRAME * frames), start + np.arange(frames) / RATE)

    @property
    def _loaded(self) -> tuple[AlignerHead, torch.Tensor, torch.Tensor]:
        with self._lock:
            return self._head_on_device

    @cached_property
    def _head_on_device(self) -> tuple[AlignerHead, torch.Tensor, torch.Tensor]:
        import torch

        if self._path is None:
            raise ConfigError(missing_aligner(self._name))
        head = AlignerHead.read(self._path)
        head.check_fits(self._encoder, str(self._path))
        device = self._encoder.conv1.weight.device
        return head, torch.from_numpy(head.weight).to(device), torch.from_numpy(head.bias).to(device)


def missing_aligner(name: str) -> str:
    """The sentence for a checkpoint without an aligner."""
    return (
        f"Times of words need an aligner, and {name or 'this checkpoint'} has none; make one with "
        "`qwen2-audio train aligner MODEL DATA`, or name its file with --aligner (load(aligner=))."
    )


def sounding(samples: np.ndarray, cells: int) -> np.ndarray:
    """bool [cells]: whether each 10 ms of float32 [S] have 6 % or more of the loud sound's level (its 95th
    percentile)."""
    step = SAMPLE_RATE // _CELLS
    padded = np.zeros(cells * step, np.float32)
    padded[: len(samples)] = samples[: len(padded)]
    levels = np.sqrt((padded.reshape(cells, step) ** 2).mean(axis=1))
    result: np.ndarray = levels >= max(_QUIET * float(np.percentile(levels, 95)), 1e-5)
    return result


def align_words(parts: Sequence[Evidence], words: Sequence[str], symbols: str, shift: float) -> list[WordSpan | None]:
    """Where each of `words` lies in the parts of a sound, which are all there is of it; see `WordTimer.words`."""
    labels, spans = labels_of([spell(word, symbols) for word in words])
    frames = sum(len(part.starts) for part in parts)
    if not labels or not frames:
        return [None] * len(words)
    evidence = Evidence.joined(parts)
    costs = np.where(_near_sound(evidence.loud), 0, _PENALTY).astype(np.float16)
    costed = evidence.log_probs.copy()
    costed[:, 1:] -= costs[:, None]
    path = forced_path(costed, np.array(labels))
    if path is None:
        return [None] * len(words)
    firsts, lasts = _extent(path, len(labels))
    best = _best_log_probs(evidence.log_probs, path, labels)
    found = [
        None if first == end else _placed(evidence, firsts[first], lasts[end - 1], best[first:end], shift)
        for first, end in spans
    ]
    return _in_order([None if word is None or word.score < FLOOR else word for word in found])


def _near_sound(loud: np.ndarray) -> np.ndarray:
    """bool [2 T] by 10 ms -> bool [T] by frames: whether a letter may be there."""
    frames: np.ndarray = np.logical_or.reduce(loud.reshape(-1, _PER_FRAME), axis=1)
    near = frames.copy()
    for offset in range(1, _AFTER + 1):
        near[offset:] |= frames[:-offset]
    for offset in range(1, _BEFORE + 1):
        near[:-offset] |= frames[offset:]
    return near


def _extent(path: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last frame of each label; every label has one."""
    frames = np.flatnonzero(path >= 0)
    firsts, lasts = np.zeros(count, np.int64), np.zeros(count, np.int64)
    lasts[path[frames]] = frames
    firsts[path[frames[::-1]]] = frames[::-1]
    return firsts, lasts


def _best_log_probs(log_probs: np.ndarray, path: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """float64 [L]: each label's highest log-probability in its frames."""
    frames = np.flatnonzero(path >= 0)
    classes = np.asarray(labels)[path[frames]]
    rows = log_probs[frames].astype(np.float32)
    values = np.where(classes == WILDCARD, rows[:, SPACE + 1 :].max(axis=1), rows[np.arange(len(rows)), classes])
    best = np.full(len(labels), -np.inf)
    np.maximum.at(best, path[frames], values)
    return best


def _placed(evidence: Evidence, first: int, last: int, log_probs: np.ndarray, shift: float) -> WordSpan:
    """A word from its first letter's first frame to its last letter's last one, without silence at its beginning."""
    starts = evidence.starts
    start = float(starts[first]) - shift
    earliest = first
    while earliest > 0 and starts[earliest - 1] > start - 1 / RATE and starts[earliest - 1] < starts[earliest]:
        earliest -= 1
    loud = np.flatnonzero(evidence.loud[_PER_FRAME * earliest : _PER_FRAME * (last + 1)]) + _PER_FRAME * earliest
    begins = starts[loud // _PER_FRAME] + loud % _PER_FRAME / _CELLS  # of the steps with sound
    sounds = begins[begins + 1 / _CELLS > start]
    start = max(start, float(sounds[0])) if len(sounds) else float(starts[first])
    end = min(float(starts[last]) + 1 / RATE + _LAST, float(starts[-1]) + 1 / RATE)
    return WordSpan(max(start, 0.0), max(end, start + _LEAST), float(np.exp(log_probs.mean())))


def _in_order(words: Iterable[WordSpan | None]) -> list[WordSpan | None]:
    """Words that do not overlap; a word ends with the next one's beginning where a short pause would follow."""
    placed = list(words)
    known = [index for index, word in enumerate(placed) if word is not None]
    for index, following in zip(known, [*known[1:], None], strict=True):
        word = placed[index]
        after = None if following is None else placed[following]
        assert word is not None
        end = word.end
        if after is not None and following is not None:
            if after.start < word.start + _LEAST:
                start = word.start + _LEAST
                after = placed[following] = WordSpan(start, max(after.end, start + _LEAST), after.score)
            end = after.start if after.start - end < _JOINED else end
        placed[index] = WordSpan(word.start, end, word.score)
    return placed
