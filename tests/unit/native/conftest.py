"""The native library on each instruction set, and small quantised models."""

import pytest
import torch
from torch import nn

from kit.tiny import tiny_config, tiny_model
from qwen2_audio.native import fused, library
from qwen2_audio.quantize.linear import QuantizedLinear
from qwen2_audio.quantize.search import quantize_linear


@pytest.fixture
def kernels():
    """The library; the test is skipped where there is none."""
    if library.load().library is None:
        pytest.skip(library.load().reason)
    assert fused.kernels() is not None
    return library.load().library


@pytest.fixture(params=library.ISAS)
def each_isa(request, kernels):
    """The library on one instruction set after the other."""
    if not kernels.qwa_supported(request.param.encode()):
        pytest.skip(f"this CPU does not run {request.param}")
    before = kernels.qwa_selected()
    kernels.qwa_select(request.param.encode())
    yield request.param
    kernels.qwa_select(before)


@pytest.fixture
def threads():
    """Set torch's threads, which the library follows; put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def quantise(model, form_of):
    """Every Linear of `model` whose path `form_of` gives a Format for, quantised in place."""
    for path, linear in list(model.named_modules()):
        form = form_of(path) if type(linear) is nn.Linear else None
        if form is None:
            continue
        new = QuantizedLinear(linear.in_features, linear.out_features, form, bias=linear.bias is not None)
        new.set_weight(quantize_linear(linear.weight.detach(), form))
        if linear.bias is not None:
            new.bias = linear.bias.detach().clone()
        owner, _, name = path.rpartition(".")
        setattr(model.get_submodule(owner), name, new.train(linear.training))
    return model


@pytest.fixture
def tiny():
    """Make a tiny random model: tiny(form, hidden_size=...) -> quantised, in eval, without gradients.

    `form` is a Format, or gives one for a Linear's path.
    """

    def make(form, **text):
        config = tiny_config(
            {"d_model": 48, "encoder_ffn_dim": 80},
            {
                "vocab_size": 96, "hidden_size": 80, "intermediate_size": 144, "num_hidden_layers": 3, "head_dim": 40,
                "max_position_embeddings": 2048, **text,
            },
            audio_token_index=95,
        )  # fmt: skip
        model = tiny_model(config, noise=0.1).requires_grad_(False)
        form_of = form if callable(form) else lambda path: form
        return quantise(model, lambda path: None if path.startswith("multi_modal") else form_of(path))

    return make
