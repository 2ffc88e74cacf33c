"""Which of the 22 kinds of sound is it? Held-out clips of nano's world, decided by a checkpoint."""

from __future__ import annotations

from collections.abc import Callable

from ...api.chat import AudioChat
from ...api.decisions import Question
from ..calibration import Calibration, calibration
from .mix import render_clip
from .sounds.kinds import NAMED
from .words import WORDS

QUESTION = "What is this sound?"
ANSWER = "This is the sound of {x}."  # as nano answers this question; see `wording.WHAT`
HELD_OUT = "test"  # the split that training has no parameters of


def decide_kinds(chat: AudioChat, count: int, on_done: Callable[[], object] = lambda: None) -> Calibration:
    """Decide about `count` clips, each kind as often as the others, by the words of nano's own answers."""
    choices = [ANSWER.format(x=WORDS[kind].phrases[0]) for kind in NAMED]
    question = Question.of({"question": QUESTION, "choices": choices, "labels": "words"})
    probabilities, right, masses = list[float](), list[bool](), list[float]()
    for index in range(count):
        kind = NAMED[index % len(NAMED)]
        samples, _ = render_clip(HELD_OUT, index // len(NAMED), kind)
        decision = chat.decide((samples, 16_000), question)
        probabilities.append(max(decision.probabilities))
        right.append(decision.choice == choices[NAMED.index(kind)])
        masses.append(decision.label_mass)
        on_done()
    return calibration(probabilities, right, masses)
