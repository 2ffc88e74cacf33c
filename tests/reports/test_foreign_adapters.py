"""An adapter on a model with other weights than it was made for is warned of; another dtype or quantisation is not."""

import warnings

import pytest
import torch

from qwen2_audio import lora
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.train import sft


@pytest.fixture
def adapter(make):
    return sft.run(make(steps=1, method="lora", parts=["language_model"]))


def test_another_base_of_the_same_shape_is_warned_of(adapter, tiny_checkpoint):
    model = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint)
    with torch.no_grad():
        model.language_model.model.norm.weight.mul_(1.5)
    with pytest.warns(UserWarning, match=rf"was made for {tiny_checkpoint}, and this model has other weights"):
        lora.attach(model, adapter)


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"quantize": "int8"}, {"quantize": "int4"}])
def test_its_own_base_is_not(adapter, tiny_checkpoint, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lora.attach(Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint, **options), adapter)
