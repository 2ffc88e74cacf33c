"""AIR-Bench foundation and MMSU: the same letter of A to D, and two denominators."""

from __future__ import annotations

from collections.abc import Sequence

from ..example import Prediction
from ..task import Task
from .choices import (
    LETTERS,
    Judgements,
    airbench_letter,
    choice_details,
    column_of,
    parse_choice,
    parsed_measures,
    right_choice,
)
from .measure import Measure, Scores, accuracy

SPEECH = ("Speaker_", "Speech_", "Spoken_", "Synthesized_Voice")
MUSIC = ("Music_",)


def airbench_foundation(task: Task, predictions: Sequence[Prediction], judgements: Judgements) -> Scores:
    """`accuracy_official` leaves out what the authors' parser does not read; the others are of our parser."""
    answers = [airbench_letter(prediction.text) for prediction in predictions]
    parts = [
        "speech" if p.source.startswith(SPEECH) else "music" if p.source.startswith(MUSIC) else "sound"
        for p in predictions
    ]
    return _letters(predictions, answers, [answer is not None for answer in answers], {"part": parts})


def mmsu(task: Task, predictions: Sequence[Prediction], judgements: Judgements) -> Scores:
    """`accuracy_official` leaves out answers of a wrong form, but counts empty ones; `accuracy_of_all` counts both."""
    answers = [airbench_letter(prediction.text) for prediction in predictions]
    empty = [prediction.text.strip() in ("", "None") for prediction in predictions]
    counted = [answer is not None or nothing for answer, nothing in zip(answers, empty, strict=True)]
    by = {name: column_of(predictions, name) for name in ("category", "sub-category", "task_name")}
    return _letters(predictions, answers, counted, by)


def _letters(
    predictions: Sequence[Prediction], answers: Sequence[str | None], counted: Sequence[bool], by: dict[str, list[str]]
) -> Scores:
    right = [right_choice(prediction) for prediction in predictions]
    found = [parse_choice(prediction.text, prediction.choices, count=4) for prediction in predictions]
    counts = [len(prediction.choices) or 4 for prediction in predictions]
    hits = [a is not None and b is not None and a == LETTERS[b] for a, b in zip(answers, right, strict=True)]
    measures: tuple[Measure, ...] = (
        accuracy("accuracy_official", hits, counted),
        accuracy("accuracy_of_all", hits),
        *parsed_measures(found, right, counts),
    )
    return Scores(measures, details=choice_details(found, counts), by=by, read_as=answers)
