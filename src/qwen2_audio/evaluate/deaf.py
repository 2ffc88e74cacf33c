"""Does the model hear at all? On a few rows the clip is exchanged for another of the same length.

A checkpoint on this machine is asked what it thinks of its own answer with the right and with the wrong clip: the mean
log-probability of its tokens, teacher-forced. Of an endpoint the answers themselves are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..errors import EvaluationError
from .question import Model, Question
from .task import DeafCheck


@runtime_checkable
class Scorer(Protocol):
    """A model that tells how likely an answer is to it."""

    scores_answers: bool  # where it is one process; of several, texts are compared

    def logprob(self, question: Question, answer: str) -> float: ...


@dataclass(frozen=True)
class Hearing:
    """What the check found. `change`: of the log-probability a token, in nats, or the share of answers that changed."""

    rows: int
    change: float
    threshold: float
    measure: str  # "log-probability" or "text"

    @property
    def hears(self) -> bool:
        return self.change > self.threshold

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "change": round(self.change, 6), "hears": self.hears}


def check_hearing(model: Model, questions: Sequence[Question], check: DeafCheck) -> Hearing:
    """Ask `questions`, each with a clip, twice: with its own clip and with the next one's.

    Raises what the questions raise.
    """
    sounds = [question for question in questions if question.waveform is not None]
    greedy = [replace(question, params=replace(question.params, temperature=0.0)) for question in sounds]
    others = [replace(question, waveform=_other_clip(greedy, number)) for number, question in enumerate(greedy)]
    answers = [wait() for wait in [model.submit(question) for question in greedy]]
    if isinstance(model, Scorer) and model.scores_answers:
        changes = [
            abs(model.logprob(right, answer.text) - model.logprob(wrong, answer.text))
            for right, wrong, answer in zip(greedy, others, answers, strict=True)
        ]
        return Hearing(len(changes), float(np.mean(changes)), check.threshold, "log-probability")
    silent = [replace(question, waveform=np.zeros_like(question.waveform)) for question in greedy]
    waits = [model.submit(question) for question in [*others, *silent]]
    wrong = [wait().text.strip() for wait in waits]
    changed = [
        answer.text.strip() not in (one, two) or one != two
        for answer, one, two in zip(answers, wrong[: len(others)], wrong[len(others) :], strict=True)
    ]
    return Hearing(len(changed), float(np.mean(changed)), check.threshold, "text")


def refuse_deaf(model: str, task: str, hearing: Hearing) -> None:
    """Raises EvaluationError where the model does not hear."""
    if hearing.hears:
        return
    what = (
        "the log-probability of its answers changed by"
        if hearing.measure == "log-probability"
        else "the share of answers that changed is"
    )
    raise EvaluationError(
        f"{model} does not seem to hear: on {hearing.rows} rows of {task} the clip was exchanged, and {what} "
        f"{hearing.change:.3g}; expected more than {hearing.threshold:g}. Look whether clips reach the model (a "
        "projector without weights, an adapter that fits badly, `audios=` where a library wants `audio=`); "
        "--no-deaf-check runs all the same."
    )


def _other_clip(questions: Sequence[Question], number: int) -> np.ndarray:
    """Another question's clip at the length of this one's: a model that only counts audio tokens must notice nothing.

    Silence where all clips are the same.
    """
    own = questions[number].waveform
    assert own is not None
    for step in range(1, len(questions)):
        other = questions[(number + step) % len(questions)].waveform
        if other is not None and len(other):
            fitted = np.resize(other, len(own))
            if not np.array_equal(fitted, own):
                return fitted
    return np.zeros_like(own)
