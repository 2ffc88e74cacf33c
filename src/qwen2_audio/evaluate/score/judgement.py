"""A judge's reply about an answer; one line of judgements.jsonl."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Judgement:
    """What a judge said of one answer, word for word; it is parsed when it is scored."""

    task: str
    id: str  # the row's
    judge: str  # model and version; judgements of two judges are never averaged
    reply: str
    swapped: bool = False  # AIR-Bench's second round: the model is Assistant 1, the reference Assistant 2
    sample: int = 0  # which of several replies to the same question
