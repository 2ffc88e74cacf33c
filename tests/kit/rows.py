"""Rows of training data with clips."""

from __future__ import annotations

import json
from pathlib import Path

from kit.clip_files import wav_bytes

ANSWERS = ("a dog", "glass breaking", "rain and thunder", "a door", "two people", "nothing")


def write_rows(folder: Path) -> Path:
    """A file of six conversations, all with a clip but one; each names a rejected answer."""
    lines = []
    for i, answer in enumerate(ANSWERS):
        clip = folder / f"{i}.wav"
        clip.write_bytes(wav_bytes(0.3 + 0.1 * i, hertz=200.0 * (i + 1)))
        question = "What is it?" if i == 5 else [{"type": "audio", "audio": str(clip)}, {"type": "text", "text": "?"}]
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": messages, "rejected_response": "thunder, a cat"}))
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path
