"""A run on the tiny checkpoint with six rows of data."""

import json

import pytest

from qwen2_audio.train.config import TrainConfig, from_table


@pytest.fixture
def rows(tmp_path, wav_file):
    """A file of six conversations, all with a clip but one; each names a rejected answer."""
    answers = ["a dog", "glass breaking", "rain and thunder", "a door", "two people", "nothing"]
    path = tmp_path / "rows.jsonl"
    lines = []
    for i, answer in enumerate(answers):
        clip = wav_file(f"{i}.wav", seconds=0.3 + 0.1 * i, hertz=200.0 * (i + 1))
        question = "What is it?" if i == 5 else [{"type": "audio", "audio": str(clip)}, {"type": "text", "text": "?"}]
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": messages, "rejected_response": "thunder, a cat"}))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def make(tiny_checkpoint, tmp_path, rows):
    """make(steps=3, ...) -> TrainConfig of the tiny checkpoint and the six rows."""

    def config(**changes) -> TrainConfig:
        table = {
            "model": str(tiny_checkpoint), "output": str(tmp_path / "run"), "device": "cpu", "method": "full",
            "parts": ["encoder", "projector", "language_model"],
        }  # fmt: skip
        table["data"] = {"train": str(rows), "batch_size": 2} | changes.pop("data", {})
        table["optim"] = {"learning_rate": 1e-3, "schedule": "constant"} | changes.pop("optim", {})
        return from_table(TrainConfig, table | changes)

    return config
