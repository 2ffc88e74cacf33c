"""Tensors that native code must not read are refused in Python: another dtype, layout, length or device."""

from __future__ import annotations

import copy
import re

import pytest
import torch

from qwen2_audio.checkpoint.config import Qwen2Config
from qwen2_audio.model.paged import PagedAttentionBatch
from qwen2_audio.native import fused, ops
from qwen2_audio.native.bound_weights import DECODER_LINEARS, BoundWeights, LayerTable
from qwen2_audio.native.dense import DenseLinear
from qwen2_audio.native.paged import NativePagedStorage
from qwen2_audio.quantize.packing import Format

HEADS, KV_HEADS, DIM = 4, 2, 8
CONFIG = Qwen2Config(hidden_size=32, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=DIM)


def weights(bits=4, group=64, outputs=40, inputs=200):
    """Arguments of a valid Handle."""
    panels, groups = -(-outputs // 16), -(-inputs // group) if group else 0
    if bits == 32:
        codes, scales = torch.zeros(outputs, inputs), None
    elif bits == 16:
        codes, scales = torch.zeros(panels, inputs, 16).half(), None
    else:
        codes = torch.ones(panels, groups, group * bits * 2, dtype=torch.uint8)
        scales = torch.ones(panels, groups, 16).half()
    sizes = {"in_features": inputs, "out_features": outputs, "bits": bits, "group": group}
    return {"codes": codes, "scales": scales, "bias": torch.zeros(outputs), **sizes}


FORMS = [(4, 64), (4, 32), (8, 64), (8, 32), (16, 0), (32, 0)]


@pytest.mark.parametrize(("bits", "group"), FORMS)
def test_valid_weights_are_taken(bits, group):
    ops.Handle(**weights(bits, group))
    ops.Handle(**{**weights(bits, group), "bias": None})


CHANGES = {
    "dtype": lambda tensor: tensor.double(),
    "layout": lambda tensor: torch.stack((tensor, tensor), -1)[..., 0],
    "length": lambda tensor: torch.cat((tensor, tensor)),
    "device": lambda tensor: tensor.to("meta"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("bits", "group", "name"),
    [(bits, group, name) for bits, group in FORMS for name in ("codes", "scales", "bias") if group or name != "scales"],
)
def test_weights_of_another_dtype_layout_length_or_device_are_refused(bits, group, name, change):
    arguments = weights(bits, group)
    arguments[name] = CHANGES[change](arguments[name])
    with pytest.raises(ValueError, match=f"^{name} is .*; native code expects .* numbers on the CPU. Convert it first"):
        ops.Handle(**arguments)


@pytest.mark.parametrize(
    ("bits", "group", "scales"), [(3, 64, True), (4, 48, True), (8, 0, True), (4, 64, False), (16, 0, True)]
)
def test_unknown_formats_are_refused(bits, group, scales):
    arguments = {**weights(), "bits": bits, "group": group}
    if not scales:
        arguments["scales"] = None
    expected = f"The weights have {bits} bits in groups of {group} {'with' if scales else 'without'} scales; expected"
    with pytest.raises(ValueError, match=f"^{expected}"):
        ops.Handle(**arguments)


@pytest.mark.parametrize(
    ("x", "found"),
    [
        (torch.zeros(3, 200).double(), "torch.float64 [3, 200] on cpu"),
        (torch.zeros(3, 199), "torch.float32 [3, 199] on cpu"),
        (torch.zeros(3, 400), "torch.float32 [3, 400] on cpu"),
        (torch.zeros(3, 200, device="meta"), "torch.float32 [3, 200] on meta"),
    ],
)
def test_inputs_of_a_linear_that_do_not_fit_are_refused(kernels, x, found):
    with pytest.raises(ValueError, match=re.escape(f"x is {found}; expected torch.float32 [..., 200] on cpu")):
        ops.linears([ops.Handle(**weights())], x)


def test_linears_that_cannot_share_a_call_are_refused(kernels):
    wide, narrow, plain = (ops.Handle(**weights(*form)) for form in ((4, 64), (8, 32, 40, 100), (32, 0)))
    with pytest.raises(ValueError, match="have 200 inputs in 4 bits, 100 inputs in 8 bits; expected one number of inp"):
        ops.linears([wide, narrow], torch.zeros(2, 200))
    with pytest.raises(ValueError, match=r"have 200 inputs in 32 bits; expected .* 4, 8 or 16 bits"):
        ops.linears([plain], torch.zeros(2, 200))


def step(**changes):
    """A step of 2 rows with 3 new positions behind 4, with arguments changed."""
    rope = tuple(torch.zeros(2, 1, 1, 3, DIM))
    arguments = {"shape": (2, 3, 4), "rope": rope, "keys": torch.ones(2, 7, dtype=torch.bool), **changes}
    return fused.Step(CONFIG, **arguments)


HIDDEN = torch.zeros(2, 3, 32)
KEYS = torch.zeros(2, 3, KV_HEADS * DIM)
CALLS = {
    "x of rms_norm": (lambda x: fused.rms_norm(x, torch.ones(32), 1e-6), HIDDEN),
    "weight of rms_norm": (lambda weight: fused.rms_norm(HIDDEN, weight, 1e-6), torch.ones(32)),
    "gate of silu_mul_": (lambda gate: fused.silu_mul_(gate, HIDDEN), HIDDEN),
    "up of silu_mul_": (lambda up: fused.silu_mul_(HIDDEN.clone(), up), HIDDEN),
    "x of rotate_": (lambda x: fused.rotate_(step(), x), HIDDEN),
    "keys of write_kv": (lambda keys: fused.write_kv(step(), 0, keys, KEYS), KEYS),
    "values of write_kv": (lambda values: fused.write_kv(step(), 0, KEYS, values), KEYS),
    "q of attention": (lambda q: fused.attention(step(), 0, q), HIDDEN),
}
RIGHT = {("x of rms_norm", "layout"), ("x of rms_norm", "length"), ("gate of silu_mul_", "length")}


@pytest.mark.parametrize(("name", "change"), [(n, c) for n in CALLS for c in CHANGES if (n, c) not in RIGHT])
def test_activations_of_another_dtype_layout_length_or_device_are_refused(kernels, name, change):
    call, valid = CALLS[name]
    with pytest.raises(ValueError, match=f"^{name} is .*; native code expects "):
        call(CHANGES[change](valid))


def test_angles_and_masks_of_another_dtype_are_refused():
    rope = tuple(torch.zeros(2, 1, 1, 3, DIM))
    for name, changes in {
        "the cosine of RoPE": {"rope": (rope[0].double(), rope[1])},
        "the sine of RoPE": {"rope": (rope[0], rope[1].bfloat16())},
        "the padding mask": {"keys": torch.ones(2, 7)},
    }.items():
        with pytest.raises(ValueError, match=f"^{name} is contiguous"):
            step(**changes)


def paged(**changes):
    storage = NativePagedStorage(CONFIG, 4, block=16, kv_dtype="float32")
    passed = PagedAttentionBatch(storage, [[0, 1], [2]], [4, 0], [3, 2])
    for name, value in changes.items():
        setattr(passed, name, value)
    return passed


def packed(passed, shape=(HEADS, KV_HEADS, DIM), rope=None):
    rope = rope or tuple(torch.zeros(2, 1, 1, 5, DIM))
    return fused.PackedStep(shape, passed, rope, "float32")


def test_a_pass_that_does_not_fit_its_tables_is_refused():
    assert packed(paged()).rows == 5
    valid = paged()
    with pytest.raises(ValueError, match=r"blocks of \(2, 16, 8\) \(kv_heads, positions, head width\); expected \(4, "):
        packed(valid, (HEADS, HEADS, DIM))
    with pytest.raises(ValueError, match=r"^A pass of 2 sequences has \(3, 3, 2\) numbers of 4 bytes in tables, st"):
        packed(paged(tables=valid.tables[:3]))
    with pytest.raises(ValueError, match=r"has \(4, 3, 1\) numbers"):
        packed(paged(num_computed=valid.num_computed[:1]))
    with pytest.raises(ValueError, match=r"numbers of 8 bytes"):
        packed(paged(tables=type(valid.tables)("q", valid.tables)))
    with pytest.raises(ValueError, match=r"^A sequence has 34 positions and its block table holds 32; add blocks"):
        packed(PagedAttentionBatch(valid.storage, [[0, 1], [2]], [31, 0], [3, 2]))
    with pytest.raises(ValueError, match=r"^the cosine of RoPE is contiguous float64"):
        packed(valid, rope=tuple(torch.zeros(2, 1, 1, 5, DIM).double()))


@pytest.fixture
def layers(tiny):
    return tiny(Format(4, 32)).language_model.model.layers


def table(layers):
    return LayerTable(layers, [BoundWeights(layer, DECODER_LINEARS) for layer in layers])


def test_layers_whose_widths_do_not_fit_are_refused(kernels, layers):
    table(layers)
    layers[1].self_attn.v_proj = copy.deepcopy(layers[1].self_attn.q_proj)
    with pytest.raises(ValueError, match=r"^v of layer 1 has 80 inputs and 160 outputs in 4 bits; expected 80 and 80"):
        table(layers)


def test_layers_with_some_float32_weights_are_refused(kernels, layers):
    layers[2].mlp.down_proj = torch.nn.Linear(144, 80, bias=False)
    with pytest.raises(ValueError, match=r"^down of layer 2 has .* in 32 bits; expected .* float32 in all layers or"):
        table(layers)


def test_norms_of_another_dtype_are_refused(kernels, layers):
    layers[0].post_attention_layernorm.double()
    with pytest.raises(ValueError, match=r"^the weight of a norm is contiguous float64"):
        table(layers)


def test_steps_that_do_not_fit_the_layers_are_refused(kernels, layers):
    made = table(layers)
    config = Qwen2Config(hidden_size=80, num_attention_heads=4, num_key_value_heads=2, head_dim=40)
    rope = torch.zeros(1, 1, 1, 40)
    steps = {rows: fused.Step(config, (rows, 1, 0), (rope, rope)) for rows in (2, 33)}
    for x in (torch.zeros(2, 1, 81), torch.zeros(3, 1, 80), torch.zeros(2, 1, 80).double()):
        with pytest.raises(ValueError, match=r"^x of layers_ is contiguous"):
            fused.layers_(made.address, 0, 3, steps[2], x)
    with pytest.raises(ValueError, match=r"^layers_ got 33 rows for layers .* expected at most 32 rows"):
        fused.layers_(made.address, 0, 3, steps[33], torch.zeros(33, 1, 80))
    other = fused.Step(CONFIG, (2, 1, 0), (torch.zeros(1, 1, 1, DIM),) * 2)
    with pytest.raises(ValueError, match=r"widths \(160, 80\); expected .* widths \(32, 16\) as the step has heads"):
        fused.layers_(made.address, 0, 3, other, torch.zeros(2, 1, 80))


@pytest.mark.parametrize("change", ["weight", "longer", "bias"])
def test_a_dense_linear_that_does_not_fit_is_left_to_torch(change):
    layer = DenseLinear(8, 6).requires_grad_(False)
    assert layer.fits()
    replaced = {"weight": layer.weight.double(), "longer": torch.zeros(7, 8), "bias": layer.bias.double()}[change]
    setattr(layer, "bias" if change == "bias" else "weight", torch.nn.Parameter(replaced, requires_grad=False))
    assert not layer.fits()
