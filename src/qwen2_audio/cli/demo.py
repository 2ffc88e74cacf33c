"""`qwen2-audio demo`: the documented ways to use the model, on the bundled checkpoint and clips."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..api.loading import nano_path
from ..api.messages import assistant, user
from ..errors import WeightsError
from ..types import Completion, Message
from . import terminal

if TYPE_CHECKING:
    from ..api.chat import AudioChat

SOUNDS = (".flac", ".wav")
CLIPS_NEEDED = 4
BATCH_QUESTION = "What is that sound?"


@dataclass(frozen=True)
class Row:
    """One question and its answer."""

    program: str
    clips: tuple[str, ...]  # file names, which tell what is in them
    asked: str
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


def bundled_clips() -> list[Path]:
    """The clips that come with the package, by name. Raises WeightsError where they are missing."""
    folder = nano_path() / "clips"
    clips = sorted(path for path in folder.glob("*") if path.suffix in SOUNDS)
    if len(clips) < CLIPS_NEEDED:
        raise WeightsError(
            f"{folder} holds {len(clips)} clips; the demo needs {CLIPS_NEEDED}. Install the package again."
        )
    return clips


def voice_chat(chat: AudioChat, clips: list[Path]) -> Iterator[Row]:
    """Turns of sound alone: the clip speaks for itself."""
    messages: list[Message] = []
    for clip in clips[:2]:
        messages.append(user(audio=clip))
        yield _answer(chat, "voice chat", messages, (clip,), "(sound alone)")


def audio_analysis(chat: AudioChat, clips: list[Path]) -> Iterator[Row]:
    """A conversation of two turns, each with a clip and a question."""
    messages: list[Message] = []
    for clip, question in zip(clips[2:4], ("What's that sound?", "What can you hear?"), strict=True):
        messages.append(user(question, audio=clip))
        yield _answer(chat, "audio analysis", messages, (clip,), question)


def batch(chat: AudioChat, clips: list[Path]) -> Iterator[Row]:
    """Every clip in a conversation of its own, all computed together; the seconds are those of the whole batch."""
    started = time.perf_counter()
    answers = chat.batch([[user(BATCH_QUESTION, audio=clip)] for clip in clips])
    seconds = time.perf_counter() - started
    for clip, answer in zip(clips, answers, strict=True):
        yield Row(f"batch of {len(clips)}", (clip.name,), BATCH_QUESTION, answer, seconds)


def _answer(chat: AudioChat, program: str, messages: list[Message], clips: tuple[Path, ...], asked: str) -> Row:
    """Ask, and put the answer into the conversation."""
    started = time.perf_counter()
    answer = chat.chat(messages)
    messages.append(assistant(answer.text))
    return Row(program, tuple(clip.name for clip in clips), asked, answer, time.perf_counter() - started)


def _heard(row: Row) -> str:
    newest = row.answer.heard[-len(row.clips) :]
    return ", ".join(
        f"{name} ({h.seconds:.1f} s, {h.tokens} tokens)" for name, h in zip(row.clips, newest, strict=True)
    )


def _as_dict(row: Row) -> dict[str, object]:
    heard = [
        {"clip": name, "seconds": h.seconds, "tokens": h.tokens}
        for name, h in zip(row.clips, row.answer.heard[-len(row.clips) :], strict=True)
    ]
    return {
        "program": row.program,
        "heard": heard,
        "asked": row.asked,
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
        cells = (row.program, _heard(row), row.asked, row.answer.text, f"{row.seconds:.2f}")
        table.add_row(*(Text(cell) for cell in cells), end_section=ends)  # Text: an answer may hold square brackets
    Console(file=sys.stdout).print(table)
