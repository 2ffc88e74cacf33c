"""The reference's model and the public class of ours with the same random weights, tiny and in fp32; and a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kit.reference import reference_name, reference_shape
from kit.tiny import AUDIO_ID
from qwen2_audio import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration


def twins(implementation: str = "eager") -> tuple[Any, Qwen2AudioForConditionalGeneration]:
    """(reference, ours); skips the test where transformers is not installed."""
    transformers = pytest.importorskip("transformers")
    theirs_config = transformers.Qwen2AudioConfig(**reference_shape())
    theirs_config._attn_implementation = implementation
    theirs = transformers.Qwen2AudioForConditionalGeneration(theirs_config).eval()
    config = Qwen2AudioConfig(**reference_shape())
    config._attn_implementation = implementation
    ours = Qwen2AudioForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(t.shape, generator=generator) * 0.2 + float("norm" in name and name.endswith("weight"))
        for name, t in sorted(ours.state_dict().items())
    }
    ours.load_state_dict(state)
    theirs.load_state_dict({reference_name(name): value for name, value in state.items()})
    return theirs, ours


def batch() -> dict[str, torch.Tensor]:
    """Two prompts with a clip each, of 60 and 37 frames; every row is padded on the left, the second one more."""
    generator = torch.Generator().manual_seed(1)
    rows = [[0, 0, 5, *[AUDIO_ID] * 15, 7, 8], [0] * 8 + [9, *[AUDIO_ID] * 9, 10, 11]]
    frames = torch.tensor([[1] * 60, [1] * 37 + [0] * 23])
    ids = torch.tensor(rows)
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "input_features": torch.randn(2, 8, 60, generator=generator),
        "feature_attention_mask": frames,
    }
