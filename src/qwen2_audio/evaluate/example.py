"""What is asked of the model (Example), and what it answered (Prediction): the rows that evaluation speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..datasets.row import Sound


@dataclass(frozen=True)
class Example:
    """One row of a benchmark, in the same form whatever its files looked like."""

    task: str  # the registry's id: "librispeech-test-clean"
    id: str  # unique within the task
    source: str  # the official lists' name of its part, "librispeech_test_clean"; scores are given by source
    sound: Sound
    prompt: str | None  # what follows the clip; None: the clip alone is the question
    reference: str | None  # the right answer as the data set writes it; None where only a judge decides
    choices: tuple[str, ...] = ()  # multiple choice, in the data set's order
    group: str = ""  # what varies together (speaker, dialogue): intervals resample groups; "": the row by itself
    columns: Mapping[str, Any] = field(default_factory=dict)  # all else: category, difficulty, instructions
    where: str = ""  # for messages: "librispeech_eval.jsonl, line 7"


@dataclass(frozen=True)
class Prediction:
    """An answer, or the reason why there is none; one line of predictions.jsonl."""

    key: str  # sha1 of task, id, clip, prompt, decoding and weights: equal keys are equal questions to an equal model
    task: str
    id: str
    source: str
    audio: str  # the clip's name, for people
    text: str  # "" where error is set
    reference: str | None
    prompt: str | None = None
    choices: tuple[str, ...] = ()
    group: str = ""
    seconds: float = 0.0  # the clip's length in its file
    heard: float = 0.0  # what the model heard of it; less than seconds where it was cut
    tokens: int = 0  # of the answer
    finish_reason: str = ""  # "stop", "length", ...
    error: str | None = None  # one sentence
    columns: Mapping[str, Any] = field(default_factory=dict)
