"""The data files of the trainer's stages: JSONL, made from a library and a seed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .clips import Library
from .conversations import Conversation
from .people import writer_of

SHORT = 3.0  # seconds; of longer clips fewer conversations are kept: they cost more and teach no more


def conversations(
    library: Library, shares: dict[str, float], count: int, seed: int, split: str = "train", short: float = SHORT
) -> Iterator[Conversation]:
    """`count` conversations, the library's clips in turn; sentences without a clip belong to `split`. Clips longer
    than `short` seconds are passed over the more often the longer they are."""
    rng = np.random.default_rng((seed, 6))
    writer = writer_of([entry.clip for entry in library.entries], shares, split)
    order: list[int] = []
    while count:
        order = order or rng.permutation(len(library)).tolist()
        clip = order.pop()
        if rng.random() < (short / max(short, library.entries[clip].clip.seconds)) ** 2:
            yield writer.write(clip, rng)
            count -= 1


def row_of(conversation: Conversation, library: Library, folder: Path) -> dict[str, Any]:
    """A conversation as a line of the data file in `folder`."""
    if conversation.base is not None:
        prompt, target = conversation.base
        return {"audio": _path(library, conversation.clips[0], folder), "prompt": prompt, "gt": target}
    messages = []
    for message in conversation.messages:
        content = message["content"]
        if not isinstance(content, str):
            content = [
                {**part, "audio": _path(library, part["audio"], folder)} if "audio" in part else part
                for part in content
            ]
        messages.append({**message, "content": content})
    return {"messages": messages}


def _path(library: Library, clip: int, folder: Path) -> str:
    return os.path.relpath(library.wav(clip), folder)


def write_conversations(
    library: Library,
    shares: dict[str, float],
    count: int,
    seed: int,
    path: Path,
    split: str = "train",
    short: float = SHORT,
) -> None:
    """A data file for SFT; it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        for conversation in conversations(library, shares, count, seed, split, short):
            file.write(json.dumps(row_of(conversation, library, path.parent)) + "\n")
    part.rename(path)
