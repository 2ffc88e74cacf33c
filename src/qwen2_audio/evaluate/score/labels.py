"""One word of a fixed set as the answer: emotions (MELD), vocal sounds (VocalSound)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..example import Prediction
from ..task import Task
from .judgement import Judgement
from .measure import Array, Measure, Scores, accuracy

# Label -> other words that mean it, all folded; the label itself is one of them.
EMOTIONS: Mapping[str, tuple[str, ...]] = {
    "neutral": ("calm", "normal"),
    "joy": ("happy", "happiness", "joyful", "amused", "excited"),
    "anger": ("angry", "annoyed", "furious", "mad"),
    "surprise": ("surprised", "astonished", "amazed"),
    "sadness": ("sad", "sorrow", "unhappy"),
    "disgust": ("disgusted",),
    "fear": ("fearful", "scared", "afraid", "frightened", "anxious"),
}
VOCAL_SOUNDS: Mapping[str, tuple[str, ...]] = {
    "laughter": ("laugh", "laughing", "laughs"),
    "sigh": ("sighing", "sighs"),
    "cough": ("coughing", "coughs"),
    "throat clearing": ("throatclearing", "throat-clearing", "clearing throat", "clears throat", "throat clear"),
    "sneeze": ("sneezing", "sneezes"),
    "sniff": ("sniffing", "sniffs", "sniffle", "sniffling"),
}
LABELS: Mapping[str, Mapping[str, tuple[str, ...]]] = {"meld": EMOTIONS, "vocalsound": VOCAL_SOUNDS}
FAR_BELOW = 0.10  # strict accuracy this far below the mapped one is a difference of spelling


def fold(text: str) -> str:
    """Lower case, without space around and punctuation behind."""
    return re.sub(r"[\s.,;:!?。！，]+$", "", text.strip().lower())


def label_of(text: str, labels: Mapping[str, Sequence[str]]) -> str | None:
    """The label that an answer means, by itself or by another word; None where it names none, or two."""
    folded = fold(re.sub(r"<\|.*?\|>", " ", text))
    words = {word: label for label, others in labels.items() for word in (label, *others)}
    if folded in words:
        return words[folded]
    alternatives = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))  # the longest first
    named = {words[match] for match in re.findall(rf"\b(?:{alternatives})\b", folded)}
    return named.pop() if len(named) == 1 else None


def label_accuracy(
    task: Task, predictions: Sequence[Prediction], judgements: Mapping[str, Sequence[Judgement]]
) -> Scores:
    """Accuracy three times: `strict` as the official evaluation takes it (case counts, and space behind), `folded`, and
    `mapped` with synonyms; and the mean F1 of the labels after mapping."""
    references = [prediction.reference or "" for prediction in predictions]
    labels = LABELS.get(task.id) or {fold(reference): () for reference in sorted(set(references))}
    names = list(labels)
    truths = [label_of(reference, labels) for reference in references]
    found = [label_of(prediction.text, labels) for prediction in predictions]
    answers = [prediction.text for prediction in predictions]
    confusion = np.zeros((len(predictions), len(names), len(names) + 1))  # the last column: no label
    for row, (truth, answer) in enumerate(zip(truths, found, strict=True)):
        if truth is not None:
            confusion[row, names.index(truth), -1 if answer is None else names.index(answer)] = 1

    def details(rows: Sequence[int]) -> dict[str, Any]:
        common = Counter(truths[row] for row in rows).most_common(1)
        return {
            "confusion": {"labels": names, "matrix": confusion[list(rows)].sum(0).astype(int).tolist()},
            "no_label": sum(found[row] is None for row in rows),
            "majority_label": common[0][0] if common else None,
            "majority_accuracy": round(common[0][1] / len(rows), 6) if common else None,
        }

    strict = [a == b.lstrip() for a, b in zip(references, answers, strict=True)]
    folded = [fold(a) == fold(b) for a, b in zip(references, answers, strict=True)]
    mapped = [truth is not None and truth == answer for truth, answer in zip(truths, found, strict=True)]
    flat = confusion.reshape(len(predictions), len(names) * (len(names) + 1))
    return Scores(
        (
            accuracy("accuracy_strict", strict),
            accuracy("accuracy_folded", folded),
            accuracy("accuracy_mapped", mapped),
            Measure("macro_f1", flat, lambda sums: _macro_f1(sums, len(names))),
        ),
        details=details,
        read_as=found,
    )


def _macro_f1(sums: Array, labels: int) -> Array:
    """[..., labels * (labels + 1)] to the mean F1 of the labels that occur in the references."""
    matrix = sums.reshape(*sums.shape[:-1], labels, labels + 1)
    right = np.diagonal(matrix[..., :labels], axis1=-2, axis2=-1)
    true, named = matrix.sum(-1), matrix[..., :labels].sum(-2)
    f1 = 2 * right / np.maximum(true + named, 1)
    occurs = true > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((f1 * occurs).sum(-1) / occurs.sum(-1))
