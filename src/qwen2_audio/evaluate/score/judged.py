"""Figures that a judge gives. The judge is a part of their names, "score@judge", so that no two share a column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from ..example import Prediction
from ..judge.forms import FORMS
from ..task import Task
from .choices import Judgements, column_of
from .judgement import Judgement
from .measure import Array, Measure, Scores, accuracy
from .words import contains_reference, token_f1

AIRBENCH_PARTS = {
    "speech_QA": "speech", "speech_dialogue_QA": "speech", "sound_QA": "sound", "sound_generation_QA": "sound",
    "music_QA": "music", "music_generation_analysis_QA": "music", "speech_and_sound_QA": "mixed",
    "speech_and_music_QA": "mixed",
}  # fmt: skip
NOT_JUDGED = {"judged": "no: `qwen2-audio eval judge` asks a judge"}


def judge_measures(scorer: str, predictions: Sequence[Prediction], judgements: Judgements) -> tuple[Measure, ...]:
    """Each judge's figure, and the share of its replies that could be read; the others count nowhere."""
    form, measures = FORMS[scorer], []
    for judge, said in sorted(judgements.items()):
        replies = _by_row(said)
        counts, read = np.zeros((len(predictions), 2)), np.zeros((len(predictions), 2))
        for row, prediction in enumerate(predictions):
            given = [form.parse(judgement.reply) for judgement in replies.get(prediction.id, [])]
            marks = [values[0] for values in given if values is not None]
            read[row] = len(marks), len(given)
            if marks and form.metric == "accuracy_judge":
                counts[row] = float(sum(marks) * 2 > len(marks)), 1  # the majority
            elif marks:
                counts[row] = sum(marks), len(marks)
        measures += [Measure(f"{form.metric}@{judge}", counts), Measure(f"read@{judge}", read)]
    return tuple(measures)


def _by_row(judgements: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    rows: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        rows.setdefault(judgement.id, []).append(judgement)
    return rows


def by_judge(task: Task, predictions: Sequence[Prediction], judgements: Judgements) -> Scores:
    """VoiceBench's and OpenAudioBench's judged sets; beside the judge's, whether the reference's words are there."""
    references = [references_of(prediction) for prediction in predictions]
    known = [bool(reference) for reference in references]
    texts = [prediction.text for prediction in predictions]
    found = [contains_reference(text, reference) for text, reference in zip(texts, references, strict=True)]
    overlap = [token_f1(text, reference) for text, reference in zip(texts, references, strict=True)]
    own = (accuracy("contains_reference", found, known), accuracy("token_f1", overlap, known)) if any(known) else ()
    judged = judge_measures(task.scorer, predictions, judgements)
    notes = {} if judged else NOT_JUDGED
    return Scores((*judged, *own) or (answered(predictions),), details=lambda rows: dict(notes))


def references_of(prediction: Prediction) -> list[str]:
    """A row's right answers: TriviaQA and WebQuestions have lists of them, written as JSON or as Python writes them."""
    text = (prediction.reference or "").strip()
    if text.startswith("[") and text.endswith("]"):
        quoted = re.findall(r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'", text)
        return [one or two for one, two in quoted if one or two] or [text]
    return [text] if text else []


def answered(predictions: Sequence[Prediction]) -> Measure:
    """The share of rows that have any answer: all that can be said where nobody judged."""
    return accuracy("answered", [float(bool(prediction.text.strip())) for prediction in predictions])


def airbench_chat(task: Task, predictions: Sequence[Prediction], judgements: Judgements) -> Scores:
    """AIR-Bench's mean marks, of both orders each by itself and then of the two, as the paper's are."""
    measures: list[Measure] = []
    for judge, said in sorted(judgements.items()):
        counts = _pairs(predictions, _by_row(said))
        for name, column in (("score", 0), ("reference_score", 1), ("win_rate", 2)):
            measures.append(Measure(f"{name}@{judge}", counts[:, [column, 3, 5 + column, 8]], _mean_of_orders))
        measures.append(Measure(f"read@{judge}", counts[:, [3, 4]] + counts[:, [8, 9]]))
    names = column_of(predictions, "task_name")
    parts = [AIRBENCH_PARTS.get(name or p.source, "") for name, p in zip(names, predictions, strict=True)]
    notes: Mapping[str, str] = {} if measures else NOT_JUDGED
    return Scores(tuple(measures) or (answered(predictions),), details=lambda rows: dict(notes), by={"part": parts})


def _pairs(predictions: Sequence[Prediction], replies: Mapping[str, Sequence[Judgement]]) -> Array:
    """[rows, 10]: for each order the model's marks, the reference's, the model's wins, pairs read, replies."""
    counts = np.zeros((len(predictions), 10))
    for row, prediction in enumerate(predictions):
        for judgement in replies.get(prediction.id, ()):
            start = 5 if judgement.swapped else 0
            counts[row, start + 4] += 1
            pair = FORMS["airbench_chat"].parse(judgement.reply)
            if pair is not None:  # of Assistant 1 and Assistant 2
                reference, model = reversed(pair) if judgement.swapped else pair
                counts[row, start : start + 4] += model, reference, model > reference, 1
    return counts


def _mean_of_orders(sums: Array) -> Array:
    """[..., 4]: marks and pairs of the two orders. The mean of their means, or the one that there is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.stack([sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 3]])
    present = ~np.isnan(means)
    mean = np.where(present, means, 0).sum(0) / np.maximum(present.sum(0), 1)
    return np.asarray(np.where(present.any(0), mean, np.nan))
