"""Write the example clips: renderings of the test split, as 16-bit mono WAV at 16 kHz.

python -m recipes.nano.examples
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from qwen2_audio.errors import Qwen2AudioError
from qwen2_audio.evaluate.nano.mix import render_clip
from qwen2_audio.evaluate.nano.scene import render_speech
from qwen2_audio.evaluate.nano.speech.engines import check_engines
from qwen2_audio.evaluate.nano.world.facts import FACTS
from qwen2_audio.evaluate.nano.world.speakers import command

from .clips import write_wav

SOUNDS = ("dog", "cat", "glass", "rain", "bell", "siren", "knocking", "piano")
QUESTIONS = {"capital": "What is the capital of France?", "sum": "What is seven plus five?"}  # file: what is asked
LONGEST = 3.0  # seconds: 96 kB


def first_short(kind: str) -> np.ndarray:
    """The first test clip of `kind` that is short enough, and loud enough to be heard on a small speaker."""
    for index in range(1000):
        samples, clip = render_clip("test", index, kind)
        if 1.5 <= clip.seconds <= LONGEST and clip.level_db > -26:
            return samples
    raise LookupError(f"None of the first 1000 test clips of {kind!r} is short and loud enough.")


def spoken(question: str) -> np.ndarray:
    """A test rendering of a question, loud enough."""
    fact = next(fact for fact in FACTS if question in fact.questions)
    said = fact.asked(fact.questions.index(question))
    return _loud(lambda index: render_speech("test", index, "variant", lambda rng: said, about="examples"))


def held_out_command() -> np.ndarray:
    """A command that training never had."""
    return _loud(lambda i: render_speech("test", i, "variant", lambda rng: command(rng, "test"), about="commands"))


def _loud(render) -> np.ndarray:
    for index in range(1000):
        samples, clip = render(index)
        if clip.seconds <= LONGEST and clip.level_db > -24:
            return np.asarray(samples)
    raise LookupError("None of the first 1000 renderings is short and loud enough.")


def main() -> int:
    parser = argparse.ArgumentParser(description="Write example clips that nano was not trained on.")
    parser.add_argument("--out", type=Path, default=Path("src/qwen2_audio/nano/clips"))
    folder = parser.parse_args().out
    try:
        check_engines()
    except Qwen2AudioError as error:
        print(error, file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    clips = {kind: first_short(kind) for kind in SOUNDS}
    clips |= {name: spoken(question) for name, question in QUESTIONS.items()} | {"command": held_out_command()}
    for name, samples in clips.items():
        write_wav(samples, folder / f"{name}.wav")
        print(folder / f"{name}.wav")
    return 0


if __name__ == "__main__":
    sys.exit(main())
