"""A user's own questions: by choice where there are choices, by the reference's words, by a judge if one was asked."""

from __future__ import annotations

from collections.abc import Sequence

from ..example import Prediction
from ..task import Task
from .choices import Judgements, choice_details, parse_choice, parsed_measures, right_choice, string_match
from .judged import judge_measures, references_of
from .measure import Measure, Scores, accuracy
from .words import contains_reference, equals_reference, token_f1


def question_answers(task: Task, predictions: Sequence[Prediction], judgements: Judgements) -> Scores:
    """`exact_match` of folded words; where rows have choices, `accuracy_parsed` and kin of those rows come first."""
    references = [references_of(prediction) for prediction in predictions]
    texts = [prediction.text for prediction in predictions]
    pairs = list(zip(texts, references, strict=True))
    free: tuple[Measure, ...] = (
        accuracy("exact_match", [equals_reference(text, reference) for text, reference in pairs]),
        accuracy("contains_reference", [contains_reference(text, reference) for text, reference in pairs]),
        accuracy("token_f1", [token_f1(text, reference) for text, reference in pairs]),
    )
    judged = judge_measures("qa", predictions, judgements)
    if not any(prediction.choices for prediction in predictions):
        return Scores((*free, *judged))
    right = [right_choice(p) if p.choices else None for p in predictions]
    found = [parse_choice(p.text, p.choices) if p.choices else None for p in predictions]
    counts = [max(len(p.choices), 1) for p in predictions]
    has = [number is not None for number in right]
    chosen = tuple(
        Measure(measure.name, measure.counts * [[float(known)] for known in has])
        for measure in parsed_measures(found, right, counts)
    )
    matched = [
        p.choices and string_match(p.choices[right[row] or 0], p.text, p.choices) for row, p in enumerate(predictions)
    ]
    by_words = accuracy("accuracy_string_match", [float(bool(match)) for match in matched], has)
    return Scores((*chosen, by_words, *free, *judged), details=choice_details(found, counts), read_as=found)
