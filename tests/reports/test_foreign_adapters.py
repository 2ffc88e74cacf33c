"""An adapter on a model with other weights than it was made for is warned of; another dtype or quantisation is not."""

import shutil
import warnings

import pytest
import torch

from qwen2_audio import lora
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.train import sft


@pytest.fixture
def base(tiny_checkpoint, tmp_path):
    """The tiny checkpoint with norms that bfloat16 rounds."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_checkpoint, folder)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.linspace(0.001, 0.01, parameter.numel()))
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(make, base):
    return sft.run(make(model=str(base), steps=1, method="lora", parts=["language_model"]))


def test_another_base_of_the_same_shape_is_warned_of(adapter, base):
    model = Qwen2AudioForConditionalGeneration.from_pretrained(base)
    with torch.no_grad():
        model.language_model.model.norm.weight.mul_(1.5)
    with pytest.warns(UserWarning, match=rf"was made for {base}, and this model has other weights"):
        lora.attach(model, adapter)


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"quantize": "int8"}, {"quantize": "int4"}])
def test_its_own_base_is_not(adapter, base, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lora.attach(Qwen2AudioForConditionalGeneration.from_pretrained(base, **options), adapter)
