"""The operation `decide`: questions with given answers about each clip, by one pass and no decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..api.decisions import Decision, PendingDecision, Question, shown
from ..inputs.clip import AudioClip
from ..inputs.messages import user
from .ask import behind_system, check_system
from .config import JobConfig
from .operations import Pending, usage_of, values_of
from .questions import filled, questions_of
from .reading import clip_of
from .runner import JobRow

if TYPE_CHECKING:
    from ..api.chat import AudioChat


class Decide:
    """See `operations.Operation`."""

    def __init__(self, chat: AudioChat, config: JobConfig) -> None:
        check_system(chat, config)
        self._service, self._config = chat.service(), config
        self._questions, self._is_one = questions_of(config), isinstance(config.decide, str)

    def read(self, item: JobRow) -> AudioClip:
        return clip_of(item.row)

    def submit(self, item: JobRow, read: AudioClip) -> Pending:
        values = values_of(item.row)
        questions = [Question.of(filled(question, values)) for question in self._questions]
        messages = behind_system(self._config, user(audio=read.waveform))
        return Decided(self._service.submit_decisions(messages, questions), read, self._is_one)

    def close(self) -> None: ...


class Decided:
    """See `operations.Pending`."""

    def __init__(self, decisions: Sequence[PendingDecision], clip: AudioClip, is_one: bool) -> None:
        self._decisions, self._clip, self._is_one = decisions, clip, is_one

    def done(self) -> bool:
        return all(pending.done() for pending in self._decisions)

    def result(self) -> Mapping[str, Any]:
        decisions = [pending.result() for pending in self._decisions]
        columns = [_columns(decision) for decision in decisions]
        return {
            **(columns[0] if self._is_one else {name: [one[name] for one in columns] for name in columns[0]}),
            "heard": round(self._clip.heard.seconds, 6),
            "usage": {**usage_of(*(decision.usage for decision in decisions)), "completion_tokens": 0},
            "notes": list(self._clip.heard.notes),
        }


def _columns(decision: Decision) -> Mapping[str, Any]:
    options = decision.question.options
    return {
        "label": shown(decision.choice),
        "probabilities": {
            shown(value): probability for (value, _), probability in zip(options, decision.probabilities, strict=True)
        },
        "label_mass": decision.label_mass,
        "confidence": decision.confidence,
        "score": decision.score if decision.question.kind == "score" else None,
    }
