"""A small model whose shapes fill no whole panels and groups, and a switch that leaves the native kernels out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qwen2_audio import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration
from qwen2_audio.quantize import linear

AUDIO = dict(
    d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=40, num_mel_bins=8,
    max_source_positions=30, initializer_range=0.5,
)  # fmt: skip
TEXT = dict(
    vocab_size=70, hidden_size=40, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=10, eos_token_id=3, initializer_range=0.2,
)  # fmt: skip


@pytest.fixture(scope="session")
def odd_config() -> Callable[..., Qwen2AudioConfig]:
    """A config of shapes that fill no whole panels and groups: odd_config(key=value)."""
    data = {"audio_config": AUDIO, "text_config": TEXT, "torch_dtype": "float32"}
    return lambda **changes: Qwen2AudioConfig.from_dict(data | changes)


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
