"""Training rows: conversations in which commands are spoken, called, done and confirmed, and questions answered.

A description of tools is longer than many commands, so one row has several of them: the same tokens teach more calls.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qwen2_audio.engine.structured.tool_calls import Tool, response_words, system_words
from qwen2_audio.evaluate.nano.mix import clip_seed
from qwen2_audio.evaluate.nano.scene import render_speech
from qwen2_audio.evaluate.nano.world import commands as spoken
from qwen2_audio.evaluate.nano.world.speakers import draw_from, known_question
from qwen2_audio.evaluate.nano.world.utterance import Utterance
from qwen2_audio.text.chat_template import DEFAULT_SYSTEM

from ..nano.clips import write_wav
from .commands import COMMANDS, answer_of

Rng = np.random.Generator
OFFERED = 3  # tools in a request, of ten
TURNS = 8  # spoken turns in a row
QUESTIONS = 0.15  # share of spoken turns that ask something and call nothing
CONFIRMED = 0.25  # share of commands after which the tool's result comes, and what is said about it
ALOUD = 0.75  # share of calls behind a spoken answer: nano knows these, and need only copy from its own words
DONE = '{"done": true}'  # what a tool gives back
MAKERS = {make.__name__: make for make in spoken.COMMANDS}
CHUNK = 20  # rows handed to a process at a time


def offered(rng: Rng, *needed: str) -> list[str]:
    """The families of a request's tools, in any order: those that are needed, and others."""
    others = [family for family in COMMANDS if family not in needed]
    chosen = [*needed, *rng.permutation(others)[: OFFERED - len(needed)].tolist()]
    return [chosen[place] for place in rng.permutation(len(chosen))]


def tools_of(families: Sequence[str]) -> list[Tool]:
    return [COMMANDS[family].tool for family in families]


def command_of(rng: Rng, families: Sequence[str], split: str) -> Utterance:
    """A command of `split` that one of the families has."""
    return draw_from(rng, tuple(MAKERS[family] for family in families), split)


def saying(said: Utterance) -> Callable[[Rng], Utterance]:
    """Draws nothing else."""
    return lambda _: said


def conversation(index: int, folder: Path) -> dict[str, Any]:
    """Row `index`, whose clips are written into `folder`, with paths relative to its parent."""
    rng = np.random.default_rng(clip_seed("tools rows", index))
    families = offered(rng)
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": f"{DEFAULT_SYSTEM}\n\n{system_words(tools_of(families))}"}
    ]
    for turn in range(TURNS):
        asks = rng.random() < QUESTIONS
        said = known_question(rng) if asks else command_of(rng, families, "train")
        path = folder / f"{index:05}-{turn}.wav"
        if not path.exists():  # a run that was killed goes on
            samples, _ = render_speech("train", index * TURNS + turn, "seen", saying(said), about="tools")
            write_wav(samples, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
        clip = {"type": "audio", "audio": os.path.relpath(path, folder.parent)}
        messages.append({"role": "user", "content": [clip]})
        messages += _answers(said, asks, confirmed=rng.random() < CONFIRMED, aloud=rng.random() < ALOUD)
    return {"messages": messages}


def _answers(said: Utterance, asks: bool, *, confirmed: bool, aloud: bool) -> list[dict[str, Any]]:
    """What follows a spoken turn; `aloud`: the call stands behind what nano says to a command anyway."""
    spoken_answer = {"role": "assistant", "content": said.answer}
    if asks:
        return [spoken_answer]
    call = {"role": "assistant", "content": f"{said.answer}\n{answer_of(said)}" if aloud else answer_of(said)}
    return [call, {"role": "user", "content": response_words(DONE)}, spoken_answer] if confirmed else [call]


def write_rows(count: int, folder: Path, workers: int = 1) -> Path:
    """`count` rows in folder/train-COUNT.jsonl, beside their clips; it is there whole or not at all."""
    path, clips = folder / f"train-{count}.jsonl", folder / "clips"
    if path.is_file():
        return path
    clips.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in _rows(count, clips, workers))
    part.rename(path)
    return path


def _rows(count: int, clips: Path, workers: int) -> Iterator[dict[str, Any]]:
    make = partial(conversation, folder=clips)
    if workers == 1:
        yield from map(make, range(count))
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(make, range(count), chunksize=CHUNK)
