import pytest
import torch
import torch.nn.functional as F

from qwen2_audio.native import ops
from qwen2_audio.quantize import linear as layers
from qwen2_audio.quantize.linear import QuantizedEmbedding, QuantizedLinear
from qwen2_audio.quantize.packing import Format
from qwen2_audio.quantize.search import quantize_linear, quantize_rows

FORMS = [Format(4, 64), Format(4, 32), Format(8, 32), Format(8, 64), Format(16)]


def made(form: Format, inputs: int = 100, outputs: int = 37, *, bias: bool = True) -> QuantizedLinear:
    torch.manual_seed(0)
    layer = QuantizedLinear(inputs, outputs, form, bias=bias)
    layer.set_weight(quantize_linear(torch.randn(outputs, inputs), form))
    if layer.bias is not None:
        layer.bias.normal_()
    return layer


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [True, False])
def test_without_kernels_it_is_a_linear_with_the_rounded_weight(torch_only, form, bias):
    layer = made(form, bias=bias)
    x = torch.randn(2, 3, 100)
    torch.testing.assert_close(layer(x), F.linear(x, layer.dequantize(), layer.bias), atol=1e-4, rtol=1e-5)
    assert layer(x[:0]).shape == (0, 3, 37)


@pytest.mark.skipif(not ops.available(), reason="there are no native kernels here")
@pytest.mark.parametrize("form", FORMS)
def test_kernels_come_close_to_it(form, monkeypatch):
    layer, x = made(form), torch.randn(5, 100)
    native = layer(x)
    monkeypatch.setattr(layers, "native_ops", lambda: None)
    assert float((native - layer(x)).norm() / layer(x).norm()) < 0.01  # 8-bit activations


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_the_input_and_nothing_else(form):
    layer, x = made(form), torch.randn(2, 3, 100, requires_grad=True)
    out = layer(x)
    out.square().sum().backward()
    plain = x.detach().clone().requires_grad_()
    F.linear(plain, layer.dequantize(), layer.bias).square().sum().backward()
    torch.testing.assert_close(x.grad, plain.grad, atol=1e-2, rtol=1e-4)
    assert list(layer.parameters()) == []


def test_slices_give_the_same(torch_only, monkeypatch):
    layer, x = made(Format(4, 32)), torch.randn(4, 100, requires_grad=True)
    whole = layer(x)
    monkeypatch.setattr(layers, "SLICE", 1)
    assert len(list(layer.slices())) == 3
    torch.testing.assert_close(layer(x), whole)
    torch.testing.assert_close(layer(x.detach()), whole)
    weights = torch.arange(37.0)
    (gradient,) = torch.autograd.grad((layer(x) * weights).sum(), x)
    torch.testing.assert_close(gradient, (weights @ layer.dequantize()).expand_as(gradient), atol=1e-2, rtol=1e-4)


def test_half_precision_goes_through_the_exact_weights(monkeypatch):
    layer, x = made(Format(8, 32)), torch.randn(2, 100)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(
        layer(x.bfloat16()).float(), F.linear(x, layer.dequantize(), layer.bias), atol=0.3, rtol=0.05
    )


def test_casting_a_model_leaves_codes_and_scales_as_they_are():
    layer = made(Format(16)).half()
    assert layer.bias.dtype == torch.float32
    layer = made(Format(4, 64))
    before = layer(torch.ones(1, 100))
    for cast in (layer.double(), layer.half(), layer.to(torch.bfloat16), layer.float()):
        assert (cast.weight_codes.dtype, cast.weight_scales.dtype) == (torch.uint8, torch.float16)
        assert torch.equal(cast(torch.ones(1, 100)), before)
    assert layer.to("meta").weight_codes.is_meta
    copied = QuantizedLinear(100, 37, Format(4, 64))
    copied.load_state_dict(made(Format(4, 64)).state_dict())
    assert torch.equal(copied(torch.ones(1, 100)), before)


def test_an_embedding_gives_rows():
    table = torch.randn(30, 100)
    form = Format(8, 64)
    embedding = QuantizedEmbedding(30, 100, form)
    stored = quantize_rows(table, form)
    embedding.set_weight(stored)
    ids = torch.tensor([[0, 29, 7], [7, 7, 1]])
    out = embedding(ids)
    assert out.shape == (2, 3, 100)
    assert float((out - table[ids]).norm() / table[ids].norm()) < 0.008
    for n, k in ((0, 0), (29, 63), (29, 64), (7, 99)):
        expected = float(stored.codes[n, k]) * float(stored.scales[n, k // 64])
        assert float(embedding(torch.tensor(n))[k]) == expected


def test_they_say_what_they_are():
    assert repr(made(Format(4, 64))) == (
        "QuantizedLinear(in_features=100, out_features=37, bias=True, int4, groups of 64)"
    )
    assert (
        repr(made(Format(16), bias=False)) == "QuantizedLinear(in_features=100, out_features=37, bias=False, float16)"
    )
    assert repr(QuantizedEmbedding(30, 100, Format(8, 64))) == "QuantizedEmbedding(30, 100, int8, groups of 64)"
    layer = made(Format(8, 32))
    assert (layer.bits, layer.group, layer.in_features, layer.out_features) == (8, 32, 100, 37)
