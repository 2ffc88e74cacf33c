"""A small model whose shapes fill no whole panels and groups, and a switch that leaves the native kernels out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kit.tiny import tiny_config
from qwen2_audio import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration
from qwen2_audio.quantize import linear

AUDIO = {"encoder_ffn_dim": 40, "initializer_range": 0.5}
TEXT = {
    "vocab_size": 70, "hidden_size": 40, "intermediate_size": 72, "head_dim": 10, "eos_token_id": 3,
    "initializer_range": 0.2,
}  # fmt: skip


@pytest.fixture(scope="session")
def odd_config() -> Callable[..., Qwen2AudioConfig]:
    """A config of shapes that fill no whole panels and groups: odd_config(key=value)."""
    top = {"torch_dtype": "float32", "audio_token_index": Qwen2AudioConfig().audio_token_index}
    return lambda **changes: tiny_config(AUDIO, TEXT, **{**top, **changes})


@pytest.fixture(scope="session")
def odd_model(odd_config) -> Qwen2AudioForConditionalGeneration:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Qwen2AudioForConditionalGeneration(odd_config()).eval()


@pytest.fixture
def odd_folder(tmp_path: Path, odd_model) -> Path:
    odd_model.save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.fixture
def torch_only(monkeypatch) -> None:
    """The exact weights in float32, whatever kernels there are."""
    monkeypatch.setattr(linear, "native_ops", lambda: None)
