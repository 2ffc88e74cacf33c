"""What a row asks of a model, and what came back: the words that local checkpoints and endpoints share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol

import numpy as np

from ..inputs.messages import system, user
from ..types import Message, SamplingParams
from .example import Example
from .prompts.prompt import question_prompt
from .registry.warnings import CheckpointFacts
from .task import Task

Form = Literal["base", "chat"]
TRANSCRIBE = "Transcribe the speech."


@dataclass(frozen=True)
class Question:
    """A clip and what is asked about it."""

    # float32 [S], 16 kHz, at most 30 s unless `long` says how it is heard; None: the prompt alone, as judges are asked
    waveform: np.ndarray | None
    prompt: str | None
    params: SamplingParams
    form: Form = "chat"  # base: <|audio_bos|><|AUDIO|><|audio_eos|> and the prompt, without a chat template
    system: str | None = None
    long: str = "refuse"  # how a waveform of more than 30 s is heard, as `AudioChat.chat` takes it

    def messages(self) -> list[Message]:
        """The conversation. The form "base" has one message."""
        first = [system(self.system)] if self.system is not None and self.form == "chat" else []
        return [*first, user(self.prompt, audio=self.waveform)]


@dataclass(frozen=True)
class Answer:
    """What a model said."""

    text: str
    tokens: int
    finish_reason: str


class Model(Protocol):
    """A local checkpoint, or one behind an endpoint.

    `name` is for people, `fingerprint` tells weights apart, `settings` are what else decides an answer.
    """

    name: str
    fingerprint: str
    in_flight: int  # questions that it works on at a time
    dropped: tuple[str, ...]  # options of questions that it could not be given

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def form(self, task: Task) -> Form:
        """How this task's prompts are put to it."""
        ...

    def facts(self, task: Task) -> CheckpointFacts:
        """What decides whether the task's published figures can be expected of it."""
        ...

    def submit(self, question: Question) -> Callable[[], Answer]:
        """Ask, and return at once what waits for the answer. That raises Qwen2AudioError where there is none."""
        ...

    def close(self) -> None: ...


def form_of(task: Task, *, is_base: bool) -> Form:
    """The form in which a task's official run asks; of a task of any checkpoint, that in which this one was trained."""
    return "base" if task.checkpoint == "base" or (task.checkpoint == "any" and is_base) else "chat"


def fitted(model: Model, task: Task, examples: Sequence[Example]) -> tuple[Task, Sequence[Example]]:
    """A task and its rows as `model` can be asked them: a chat checkpoint gets a user's own clips of the task `asr` in
    chat, where a published benchmark's prompts stay as they are. A row's own prompt stays, too."""
    in_chat = replace(task, checkpoint="any", prompt=TRANSCRIBE)
    if task.id != "asr" or task.prompt is None or model.form(in_chat) != "chat":
        return task, examples
    official = question_prompt(task.prompt)
    rows = [replace(row, prompt=TRANSCRIBE) if row.prompt == official else row for row in examples]
    return in_chat, rows


def question_of(
    task: Task, example: Example, waveform: np.ndarray, form: Form, key: str, long: str = "refuse"
) -> Question:
    """A row's question. Where the task draws its answers, the seed comes from the row's `key`, so that it is asked the
    same way whenever it is asked."""
    params = task.decoding
    if params.temperature != 0 and params.seed is None:
        params = replace(params, seed=int(key[:8], 16) & 0x7FFFFFFF)
    return Question(waveform, example.prompt, params, form, task.system, long)


def decoding_of(params: SamplingParams) -> dict[str, Any]:
    """The options that are set, as they stand in run.json and in keys."""
    found = {field.name: getattr(params, field.name) for field in fields(params)}
    default = SamplingParams()
    return {name: _listed(value) for name, value in found.items() if value != getattr(default, name)}


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
