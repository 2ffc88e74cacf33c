"""Clips that nobody has made: what is known about them is all the language model needs for its first lessons."""

from __future__ import annotations

import numpy as np

from qwen2_audio.evaluate.nano.mix import SPEECH, STRANGE, Clip
from qwen2_audio.evaluate.nano.scene import TURNS
from qwen2_audio.evaluate.nano.sounds.kinds import NAMED, NAMES
from qwen2_audio.evaluate.nano.world.speakers import utterance


def imagined(rng: np.random.Generator) -> Clip:
    """A training clip's description, sorts as often as in `scene.TURNS`."""
    sort = TURNS[int(rng.integers(len(TURNS)))]
    if sort == "sound":
        return Clip(NAMES[int(rng.integers(len(NAMES)))], 2.0, -20.0)
    if sort == "strange":
        return Clip(STRANGE, 2.0, -20.0)
    said = utterance(rng, "train")
    sex = "man" if rng.random() < 0.5 else "woman"
    behind = NAMED[int(rng.integers(len(NAMED)))] if sort == "mixed" else ""
    return Clip(SPEECH, 2.0, -20.0, said.text, said.family, said.answer, sex, "", behind)
