"""What a task of the registry states: data, prompt, decoding, scoring, published figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..types import SamplingParams

CheckpointKind = Literal["base", "instruct", "any"]


@dataclass(frozen=True)
class Golden:
    """A published figure to hold a result against."""

    value: float  # in the metric's own unit
    metric: str  # "wer", "bleu", "accuracy_strict"
    by: str  # "paper", "model card", "Vast"
    source: str = ""  # the source's name in the lists where the figure is of one of several
    noise: float | None = None  # half-width of its 95 % interval from sampling alone, where EVAL F3 gives one


@dataclass(frozen=True)
class DeafCheck:
    """On `rows` rows the clip is exchanged for another; see evaluate/deaf.py for what is compared."""

    rows: int = 8
    threshold: float = 0.05


@dataclass(frozen=True)
class Task:
    """One benchmark as its authors run it."""

    id: str  # "librispeech-test-clean"
    title: str
    checkpoint: CheckpointKind
    layouts: tuple[str, ...]  # names of functions in evaluate/layouts that find its rows, in the order they are tried
    sources: tuple[tuple[str, int], ...]  # names in the official lists, with their rows
    prompt: str | None  # text, or a key of evaluate/prompts; None: the clip alone
    scorer: str  # a name of evaluate/score
    language: str = "en"  # decides the normaliser
    system: str | None = None  # None: what the checkpoint's template says by itself
    decoding: SamplingParams = field(
        default_factory=lambda: SamplingParams(temperature=0, max_tokens=256, min_tokens=1, repetition_penalty=1.0)
    )
    batch: int = 8  # of the official run; for the protocol's name, not for the engine
    group: str = ""  # the column over which intervals are bootstrapped
    goldens: tuple[Golden, ...] = ()
    deaf: DeafCheck | None = DeafCheck()  # None: the right answer does not depend on the clip's content
    licence: str = ""
    where: str = ""  # how to get the data, one sentence
