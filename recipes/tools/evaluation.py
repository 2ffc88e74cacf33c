"""How often commands that training never had become the right call, asked as the server asks the engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import qwen2_audio as qa
from qwen2_audio.api.chat import AudioChat
from qwen2_audio.evaluate.nano.mix import Samples, clip_seed
from qwen2_audio.evaluate.nano.scene import render_speech
from qwen2_audio.evaluate.nano.world.speakers import known_question
from qwen2_audio.evaluate.nano.world.utterance import Utterance
from qwen2_audio.serve.tools import ToolUse, answer_message, params_for, with_tools
from qwen2_audio.types import Completion

from .commands import call_of
from .rows import command_of, offered, saying, tools_of

GROUPS = {"seen": "voices of training", "variant": "unseen variants", "voice": "unseen voices"}
CHOICES = ("auto", "required")
BATCH = 16
LONGEST = 160  # tokens of an answer


@dataclass(frozen=True)
class Spoken:
    """A held-out command or question, spoken, with the tools that are offered."""

    samples: Samples
    said: Utterance
    families: list[str]
    call: tuple[str, dict[str, Any]] | None  # None: nothing is to be called


@dataclass(frozen=True)
class Score:
    """Counts of one row of the table."""

    name: str
    asked: int
    parsed: int  # answers with calls whose arguments are JSON
    right: int  # answers that are the one right call, or none where none is due


def spoken(group: str, count: int, *, asks: bool = False) -> Iterator[Spoken]:
    """`count` commands of the test split by the voices of `group`; `asks`: questions, which ask for no call."""
    for index in range(count):
        rng = np.random.default_rng(clip_seed(f"tools test {group} {asks}", index))
        families = offered(rng)
        said = known_question(rng) if asks else command_of(rng, families, "test")
        samples, _ = render_speech("test", index, group, saying(said), about=f"tools {asks}")
        yield Spoken(samples, said, families, None if asks else call_of(said))


def calls_in(answer: Completion, use: ToolUse) -> list[tuple[str, Any]]:
    """The calls of an answer. Raises ValueError where the arguments of one are no JSON, as in a call that was cut."""
    message, _ = answer_message(answer, use)
    functions = [call["function"] for call in message.get("tool_calls", ())]
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


def score(model: AudioChat, name: str, items: list[Spoken], choice: str) -> Score:
    """Ask about all items with tool_choice `choice`."""
    parsed = right = 0
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        uses = [ToolUse(tuple(tools), tuple(tools), choice == "required", parallel=False) for tools in _tools(batch)]
        conversations = [
            with_tools([qa.user(audio=(item.samples, 16_000))], use) for item, use in zip(batch, uses, strict=True)
        ]
        params = [qa.SamplingParams(temperature=0, max_tokens=LONGEST, **params_for(use, {})) for use in uses]
        for item, use, answer in zip(batch, uses, model.batch(conversations, params), strict=True):
            try:
                calls = calls_in(answer, use)
            except ValueError:
                continue
            parsed += bool(calls)
            right += calls == ([] if item.call is None else [item.call])
    return Score(name, len(items), parsed, right)


def _tools(items: list[Spoken]) -> Iterator[list[Any]]:
    return (tools_of(item.families) for item in items)


def evaluate(model: AudioChat, count: int, tell: Callable[[str], None]) -> list[Score]:
    """The rows of the table, each of `count` clips."""
    scores = []
    for group, title in GROUPS.items():
        items = list(spoken(group, count))
        for choice in CHOICES:
            scores.append(score(model, f"commands, {title}, {choice}", items, choice))
            tell(line(scores[-1]))
    questions = list(spoken("seen", count, asks=True))
    scores.append(score(model, "questions that ask for no call, auto", questions, "auto"))
    tell(line(scores[-1]))
    return scores


def line(row: Score) -> str:
    """A row of the table."""
    return f"| {row.name} | {row.right / row.asked:.1%} | {row.parsed / row.asked:.1%} | {row.asked} |"
