"""What about a checkpoint does not fit a task, in sentences that name the effect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..task import Task


@dataclass(frozen=True)
class CheckpointFacts:
    """What `warnings_for` needs to know of a checkpoint; None where it is not known, as behind an endpoint."""

    kind: Literal["base", "instruct"] | None = None
    repetition_penalty: float | None = None  # with which answers are really drawn: the task's own, or an option's
    chat_template: Literal["own", "none", "official", "foreign"] | None = None


def warnings_for(task: Task, facts: CheckpointFacts) -> list[str]:
    """Sentences on what would make this run's figures others than the published ones; empty where nothing would."""
    said = []
    if facts.kind is not None and task.checkpoint != "any" and facts.kind != task.checkpoint:
        said.append(_wrong_kind(task))
    penalty, official = facts.repetition_penalty, task.decoding.repetition_penalty
    if penalty is not None and official is not None and penalty != official:
        said.append(_penalty(task, penalty, official))
    if task.checkpoint == "instruct" and facts.chat_template in ("foreign", "none"):
        found = "has none" if facts.chat_template == "none" else "has another one"
        said.append(
            f"{task.id} is asked in Qwen2-Audio's chat template, and this checkpoint {found}: answers change, and no "
            "published figure applies."
        )
    return said


def _wrong_kind(task: Task) -> str:
    if task.checkpoint == "base":
        return (
            f"{task.id} is a task of the base checkpoint, and this is an Instruct one: it adds sentences of its own, "
            "which about doubles word error rates (LibriSpeech test-clean 1.7 % becomes 2.9 to 4.2 %)."
        )
    return (
        f"{task.id} is a task of the Instruct checkpoint, and this is a base one: it follows no instructions, and most "
        "answers are in no form that can be scored (MMAU test-mini 49 % becomes 5 %)."
    )


def _penalty(task: Task, penalty: float, official: float) -> str:
    if penalty > official:
        effect = "it drops words that are said twice and changes numbers (up to 0.7 points of word error rate)"
    else:
        effect = "answers may repeat themselves where the official run's do not"
    return f"{task.id} is run with repetition_penalty {official:g} officially, and here with {penalty:g}: {effect}."
