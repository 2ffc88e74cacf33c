"""Twins: the reference's model and ours with the same weights, tiny and in fp32."""

import pytest
import torch

from kit.reference import reference_name, reference_shape
from kit.tiny import AUDIO_ID
from qwen2_audio.audio.mel import num_audio_tokens
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.model.qwen2_audio import Qwen2AudioForConditionalGeneration


def twins(weights):
    """(reference, ours): `weights(name, index, shape)` gives the tensor of the index-th name in sorted order."""
    transformers = pytest.importorskip("transformers")
    theirs_config = transformers.Qwen2AudioConfig(**reference_shape())
    theirs_config._attn_implementation = "eager"
    theirs = transformers.Qwen2AudioForConditionalGeneration(theirs_config).eval()
    ours = Qwen2AudioForConditionalGeneration(Qwen2AudioConfig(**reference_shape())).eval()
    ours.set_attn_implementation("eager")
    state = {name: weights(name, i, t.shape) for i, (name, t) in enumerate(sorted(ours.state_dict().items()))}
    ours.load_state_dict(state)
    theirs.load_state_dict({reference_name(name): value for name, value in state.items()})
    return theirs, ours


def _spec_weight(name, index, shape):
    values = 0.2 * torch.sin(0.7 * torch.arange(shape.numel(), dtype=torch.float64) + index)
    norm = "norm" in name and name.endswith("weight")
    return (values + float(norm)).float().view(shape)


@pytest.fixture(scope="session")
def spec_twins():
    """The published fixture's weights."""
    return twins(_spec_weight)


@pytest.fixture(scope="session")
def random_twins():
    """Random weights, large enough that every token has a clear best successor."""
    generator = torch.Generator().manual_seed(0)

    def weight(name, index, shape):
        norm = "norm" in name and name.endswith("weight")
        return torch.randn(shape, generator=generator) * 0.2 + float(norm)

    return twins(weight)


@pytest.fixture(scope="session")
def spec_inputs():
    """The published fixture's two prompts: one clip of 60 frames, one of 37, the second row padded on the left."""
    time, band = torch.arange(60)[None, :], torch.arange(1, 9)[:, None]
    features = torch.stack([torch.sin(0.05 * time * band), torch.cos(0.03 * time * band)]).float()
    frames = torch.tensor([[1] * 60, [1] * 37 + [0] * 23], dtype=torch.int32)
    ids = torch.tensor([[5, 6] + [AUDIO_ID] * 15 + [7, 8], [0] * 7 + [9] + [AUDIO_ID] * 9 + [10, 11]])
    mask = (ids != 0).long()
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "input_features": features,
        "feature_attention_mask": frames,
    }


@pytest.fixture(scope="session")
def make_inputs():
    """make_inputs([[5, 37, 6], [7]]) -> a left-padded batch; numbers above 36 are clips of so many mel frames."""

    def make(rows, seed=0):
        generator = torch.Generator().manual_seed(seed)
        frames = [n for row in rows for n in row if n > 36]
        expanded = [[i for n in row for i in ([AUDIO_ID] * num_audio_tokens(n) if n > 36 else [n])] for row in rows]
        width = max(map(len, expanded))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in expanded])
        inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
        if frames:
            columns = torch.arange(60)[None, :]
            inputs["input_features"] = torch.randn(len(frames), 8, 60, generator=generator)
            inputs["feature_attention_mask"] = (columns < torch.tensor(frames)[:, None]).int()
        return inputs

    return make
