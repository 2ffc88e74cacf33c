"""`qwen2-audio demo`: the documented ways to use the model, on the bundled checkpoint and clips."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoint.locate import nano_path
from ..errors import WeightsError
from ..inputs.messages import assistant, user
from ..types import Completion, Message
from . import terminal

if TYPE_CHECKING:
    from ..api.chat import AudioChat

VOICE_CHAT = ("capital.wav", "command.wav")  # clips of a person who speaks to the model
TYPED = "What did I say?"
AUDIO_ANALYSIS = (("dog.wav", "What's that sound?"), ("sum.wav", "What does the person say?"))
BATCH_QUESTION = "What do you hear?"


@dataclass(frozen=True)
class Row:
    """One question and its answer."""

    program: str
    clip: str  # its file name, which describes it
    question: str
    answer: Completion
    seconds: float


def command(model: terminal.Model = None, json: terminal.Json = False) -> None:
    clips = bundled_clips()
    chat = terminal.load_model(model)
    rows = []
    with terminal.waiting("Listening"):
        for program in (voice_chat, audio_analysis, batch):
            rows += list(program(chat, clips))
    if json:
        print(terminal.as_json([_as_dict(row) for row in rows]))
    else:
        _print_table(rows)


def bundled_clips() -> dict[str, Path]:
    """The clips of the package by file name. Raises WeightsError if a clip of this demo is missing."""
    folder = nano_path() / "clips"
    clips = {path.name: path for path in sorted(folder.glob("*.wav"))}
    missing = [name for name in (*VOICE_CHAT, *(clip for clip, _ in AUDIO_ANALYSIS)) if name not in clips]
    if missing:
        raise WeightsError(f"{folder} has no {' and no '.join(missing)}; install the package again.")
    return clips


def voice_chat(chat: AudioChat, clips: dict[str, Path]) -> Iterator[Row]:
    """A clip without text, in which the person asks the question; then a typed question about the clip."""
    for name in VOICE_CHAT:
        messages = [user(audio=clips[name])]
        yield _answer(chat, "voice chat", messages, name, "(sound alone)")
        messages.append(user(TYPED))
        yield _answer(chat, "voice chat", messages, name, TYPED)


def audio_analysis(chat: AudioChat, clips: dict[str, Path]) -> Iterator[Row]:
    """A conversation of two turns, each with a clip and a question."""
    messages: list[Message] = []
    for name, question in AUDIO_ANALYSIS:
        messages.append(user(question, audio=clips[name]))
        yield _answer(chat, "audio analysis", messages, name, question)


def batch(chat: AudioChat, clips: dict[str, Path]) -> Iterator[Row]:
    """One conversation per clip, computed together; the seconds are those of the complete batch."""
    started = time.perf_counter()
    answers = chat.batch([[user(BATCH_QUESTION, audio=clip)] for clip in clips.values()])
    seconds = time.perf_counter() - started
    for name, answer in zip(clips, answers, strict=True):
        yield Row(f"batch of {len(clips)}", name, BATCH_QUESTION, answer, seconds)


def _answer(chat: AudioChat, program: str, messages: list[Message], clip: str, question: str) -> Row:
    """Answer the conversation, and append the answer to it."""
    started = time.perf_counter()
    answer = chat.chat(messages)
    messages.append(assistant(answer.text))
    return Row(program, clip, question, answer, time.perf_counter() - started)


def _heard(row: Row) -> str:
    heard = row.answer.heard[-1]
    return f"{row.clip} ({heard.seconds:.1f} s, {heard.tokens} tokens)"


def _as_dict(row: Row) -> dict[str, object]:
    heard = row.answer.heard[-1]
    return {
        "program": row.program,
        "heard": [{"clip": row.clip, "seconds": heard.seconds, "tokens": heard.tokens}],
        "asked": row.question,
        "said": row.answer.text,
        "seconds": round(row.seconds, 3),
    }


def _print_table(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("program", "heard", "asked", "said", "seconds", title="qwen2-audio demo")
    for number, row in enumerate(rows):
        ends = number + 1 == len(rows) or rows[number + 1].program != row.program
        cells = (row.program, _heard(row), row.question, row.answer.text, f"{row.seconds:.2f}")
        table.add_row(
            *(Text(cell) for cell in cells), end_section=ends
        )  # Text, because rich reads [brackets] as markup
    Console(file=sys.stdout).print(table)
