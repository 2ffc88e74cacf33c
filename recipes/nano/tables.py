"""What the two halves of nano agree on before they have met: what an encoder's output should look like.

The language model learns to read such states (`pseudo.py`), and the encoder learns to make them (`ctc.py`).
E states at 50 a second, N audio tokens = E // 2, d the encoder's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qwen2_audio.evaluate.nano.mix import SPEECH, Clip

from .batches import CLASSES, LETTERS, letters_of

WRONG = 0.3  # of the letters at most are others, missing or doubled; the share is drawn for each clip
NOISE = 0.35, 0.6  # standard deviation beside states of 1, drawn for each clip


@dataclass(frozen=True)
class Tables:
    """What each letter, sex and kind looks like to the imagined encoder: fixed, drawn once."""

    letters: np.ndarray  # [1 + letters, d], the blank first
    sexes: np.ndarray  # [2, d]
    kinds: np.ndarray  # [classes, d]

    @classmethod
    def drawn(cls, width: int) -> Tables:
        rng = np.random.default_rng(2)
        return cls(
            rng.standard_normal((len(LETTERS) + 1, width)).astype(np.float32),
            0.5 * rng.standard_normal((2, width)).astype(np.float32),
            0.7 * rng.standard_normal((len(CLASSES), width)).astype(np.float32),
        )

    def colour(self, clip: Clip) -> np.ndarray:
        """What does not change within a clip [d]."""
        colour = self.kinds[CLASSES.index(clip.kind)].copy()
        if clip.sex:
            colour += self.sexes[("man", "woman").index(clip.sex)]
        if clip.background:
            colour += self.kinds[CLASSES.index(clip.background)]
        return colour

    def states(self, clip: Clip, rng: np.random.Generator) -> np.ndarray:
        """What the imagined encoder tells of a clip: float32 [N, d]."""
        if clip.kind == SPEECH:
            path = _path(letters_of(clip.text), rng)
        else:
            path = np.zeros(int(rng.integers(40, 120)), int)
            if clip.kind not in CLASSES[: len(CLASSES) - 2]:  # strange speech: letters that make no sense
                path = _path(rng.integers(1, len(LETTERS) + 1, int(rng.integers(8, 30))).tolist(), rng)
        found = self.letters[path[: len(path) // 2 * 2]].reshape(-1, 2, self.letters.shape[1]).mean(1)
        noise = rng.uniform(*NOISE) * rng.standard_normal(found.shape).astype(np.float32)
        return np.asarray(found + self.colour(clip) + noise, np.float32)


def _path(letters: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """A CTC path: letters one to three frames long, blanks between, some wrong; even silence around."""
    path, wrong = [0] * int(rng.integers(1, 12)), WRONG * rng.random() ** 1.5
    for letter in letters:
        heard = [letter]
        if rng.random() < wrong:
            other = int(rng.integers(1, len(LETTERS) + 1))
            heard = [[other], [other], [], [letter, other]][int(rng.integers(4))]
        for one in heard:
            path += [one] * int(rng.choice((1, 1, 2, 3)))
            path += [0] * int(rng.choice((0, 1, 1, 2)))
    return np.array(path + [0] * int(rng.integers(2, 12)))
