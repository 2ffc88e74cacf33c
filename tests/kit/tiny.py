"""The tiny shape that most tests of the model use: its config, a config with changes, and random models of it.

Two layers a side, 16 wide where sound goes in and 32 where text does, 8 mel bins, windows of 60 frames (15 tokens).
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

AUDIO_ID = 63
AUDIO: dict[str, Any] = {
    "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 8,
    "max_source_positions": 30,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


def tiny_dict(audio: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """What config.json of the tiny shape holds, with these keys changed or added in its parts and at its top."""
    parts = {"audio_config": AUDIO | (audio or {}), "text_config": TEXT | (text or {})}
    return copy.deepcopy({**parts, "audio_token_index": AUDIO_ID, **more})


def tiny_config(
    audio: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **more: Any
) -> Qwen2AudioConfig:
    """The config of `tiny_dict(audio, text, **more)`."""
    return Qwen2AudioConfig.from_dict(tiny_dict(audio, text, **more))


def tiny_model(
    config: Qwen2AudioConfig | None = None, *, seed: int = 0, noise: float = 0.0
) -> Qwen2AudioForConditionalGeneration:
    """A random model in eval mode, the same for the same arguments; `noise` is added to every parameter.

    With initial weights alone, of deviation 0.02, logits are so close that neither errors nor tokens show.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2AudioForConditionalGeneration(config or tiny_config()).eval()
        with torch.no_grad():
            for parameter in model.parameters() if noise else ():
                parameter.add_(torch.randn_like(parameter) * noise)
    return model
