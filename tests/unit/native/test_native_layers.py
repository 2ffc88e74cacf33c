"""Native layers against the readable ones with the same Linears.

With 16-bit weights within 1e-5 of the largest value. With 4 and 8 bits an activation that lies next to the middle
between two of its 8-bit steps may go either way, which shows in layers as narrow as these: 3e-2. What is tight there:
one call for all layers gives the bits that layer by layer gives.
"""

import copy

import pytest
import torch
from torch import nn

from qwen2_audio.native import fused
from qwen2_audio.native.install import accelerate
from qwen2_audio.native.layers import NativeDecoderLayer, NativeLanguageModel
from qwen2_audio.quantize.packing import Format

HALF, INT4, INT8 = Format(16), Format(4, 32), Format(8, 32)
FORMS = {
    "float16": HALF,
    "int4": INT4,
    "int8": INT8,
    "int4, groups of 64": Format(4, 64),
    "mixed": lambda path: {
        "q": Format(4, 32), "k": Format(8, 32), "v": Format(16), "o": Format(8, 64), "g": Format(4, 64),
        "u": Format(8, 32), "d": Format(4, 32), "f": Format(8, 32), "l": Format(8, 32),
    }[path.rpartition(".")[2][0]],
}  # fmt: skip


@pytest.fixture
def pair(tiny):
    """pair(...) -> a quantised model, and the same with native layers."""

    def make(form=HALF, kv_cache="float32", **options):
        plain = tiny(form, **options)
        native = copy.deepcopy(plain)
        assert accelerate(native, kv_cache) == 5
        return plain, native

    return make


@pytest.fixture
def calls(kernels, monkeypatch):
    """How often all layers went through one call."""
    seen, layers_ = [], fused.layers_
    monkeypatch.setattr(fused, "layers_", lambda *args: seen.append(args) or layers_(*args))
    return seen


def near(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def run(model, lengths, batch=1, mask=None, **options):
    """Logits of each of several passes of `lengths` positions, one cache for all."""
    torch.manual_seed(5)
    ids = torch.randint(0, 94, (batch, sum(lengths)))
    cache, out, past = model.new_cache(batch), [], 0
    for count in lengths:
        seen = None if mask is None else mask[:, : past + count]
        positions = None if mask is None else (seen.cumsum(1) - 1).clamp(min=0)[:, past:]
        with torch.no_grad():
            out.append(
                model.language_model(
                    ids[:, past : past + count],
                    attention_mask=seen,
                    position_ids=positions,
                    past_key_values=cache,
                    **options,
                ).logits
            )
        past += count
    return out


@pytest.mark.parametrize("form", FORMS)
def test_decode_steps_equal_the_readable_path(each_isa, pair, calls, form):
    plain, native = pair(FORMS[form])
    for found, expected in zip(run(native, [40, 1, 1, 3]), run(plain, [40, 1, 1, 3]), strict=True):
        near(found, expected, 1e-5 if form == "float16" else 3e-2)
    assert len(calls) == 3


@pytest.mark.parametrize("shape", [
    {"head_dim": 64, "num_attention_heads": 7, "num_key_value_heads": 1},
    {"head_dim": 80, "num_attention_heads": 2, "num_key_value_heads": 2},
    {"head_dim": 128, "num_attention_heads": 1, "num_key_value_heads": 1, "hidden_size": 72, "intermediate_size": 100},
])  # fmt: skip
def test_shapes(kernels, pair, shape):
    plain, native = pair(**shape)
    for found, expected in zip(run(native, [300, 1, 32, 33]), run(plain, [300, 1, 32, 33]), strict=True):
        near(found, expected)


@pytest.mark.parametrize("batch", [2, 8, 9, 40])
@pytest.mark.parametrize("kv_cache", ["float32", "float16", "int8"])
def test_batches_with_padding(kernels, pair, batch, kv_cache):
    """Up to 32 rows go through all layers in one call, more layer by layer; the readable path reads the same cache."""
    plain, native = pair(HALF, kv_cache)
    plain.new_cache = native.new_cache
    mask = (torch.arange(20)[None] >= torch.arange(batch)[:, None] % 7).long()
    (start, *steps), (expected_start, *expected_steps) = (run(m, [18, 1, 1], batch, mask) for m in (native, plain))
    valid, tolerance = mask[:, :18].bool(), 1e-5 if kv_cache == "float32" else 5e-3  # rounding may go either way, too
    near(start[valid], expected_start[valid], tolerance)
    for found, expected in zip(steps, expected_steps, strict=True):
        near(found, expected, tolerance)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [8, 9, 32, 33])
def test_a_decode_step_gives_a_row_the_same_bits_alone_and_among_others(each_isa, pair, rows, form):
    """Up to 32 rows go through all layers in one call, as one does; more layer by layer."""
    _, native = pair(FORMS[form], "float16")
    torch.manual_seed(6)
    cache = native.new_cache(rows)
    for layer in range(3):
        cache.update(layer, *torch.randn(2, rows, 2, 300, 40))
    ids = torch.randint(0, 94, (rows, 1))
    some = sorted({*range(0, rows, 5), rows - 1})  # every place in a tile of 8
    copies = {row: cache.copy(300, 310) for row in some}
    with torch.no_grad():
        together = native.language_model(ids, past_key_values=cache).logits
        for row, own in copies.items():
            own.reorder(torch.tensor([row]))
            alone = native.language_model(ids[row : row + 1], past_key_values=own).logits
            assert torch.equal(alone, together[row : row + 1])


@pytest.mark.parametrize("form", FORMS)
def test_several_new_positions_give_the_bits_of_one_after_the_other(kernels, pair, form):
    _, native = pair(FORMS[form], "float16")
    together, single = run(native, [40, 4]), run(native, [40, 1, 1, 1, 1])
    assert torch.equal(together[1], torch.cat(single[1:], 1))


def test_threads_change_no_bit(each_isa, pair, threads):
    _, native = pair(FORMS["mixed"], "float16")
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(run(native, [12, 1, 2])[1:])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_input_is_left_as_it_was(kernels, pair):
    _, native = pair()
    for positions in (3, 30):
        x = torch.randn(1, positions, 80)
        before = x.clone()
        with torch.no_grad():
            native.language_model(inputs_embeds=x, past_key_values=native.new_cache(1))
            native.language_model(inputs_embeds=x)
        assert torch.equal(x, before)


def test_hidden_states(kernels, pair, calls):
    plain, native = pair()
    ids = torch.arange(5)[None]
    with torch.no_grad():
        found, expected = (
            m.language_model(ids, past_key_values=m.new_cache(1), output_hidden_states=True) for m in (native, plain)
        )
    assert len(found.hidden_states) == 4 and not calls
    for a, b in zip(found.hidden_states, expected.hidden_states, strict=True):
        near(a, b)


def test_prefill_in_pieces_equals_the_whole(kernels, pair):
    for kv_cache, tolerance in (("float32", 1e-5), ("float16", 1e-3)):
        _, native = pair(HALF, kv_cache)
        (whole,) = run(native, [60])
        near(torch.cat(run(native, [25, 30, 5]), 1), whole, tolerance)


@pytest.mark.parametrize(("form", "tolerance"), [("float16", 1e-5), ("mixed", 3e-2)])
def test_encoder(each_isa, pair, form, tolerance):
    plain, native = pair(FORMS[form])
    features = torch.randn(2, 8, 60)
    for lengths in ([50, 50], [50, 37]):
        with torch.no_grad():
            near(*(m.audio_tower.encode(features, lengths) for m in (native, plain)), tolerance)
    mask = torch.arange(30)[None] < torch.tensor([[25], [19]])
    with torch.no_grad():
        near(*(m.audio_tower(features, mask).last_hidden_state for m in (native, plain)), tolerance)


def same_bits(native, plain):
    """Whether both took the readable path. The passes are short: natively they would be one call."""
    return all(torch.equal(a, b) for a, b in zip(run(native, [5, 1]), run(plain, [5, 1]), strict=True))


def test_training_eager_and_other_dtypes_take_the_readable_path(kernels, pair, calls):
    plain, native = pair()
    plain.new_cache = native.new_cache
    assert not same_bits(native, plain) and len(calls) == 2
    calls.clear()
    for change in (lambda m: m.train(), lambda m: m.eval().set_attn_implementation("eager")):
        change(plain), change(native)
        assert same_bits(native, plain) and not calls
    for model in (plain, native):
        model.set_attn_implementation("sdpa")
        model.language_model.bfloat16()  # the whole model, being quantised, refuses a cast
    del plain.new_cache
    assert same_bits(native, plain) and not calls
    assert native.new_cache(1).update(0, *torch.zeros(2, 1, 2, 1, 40).bfloat16())[0].dtype == torch.bfloat16


def test_attentions_come_from_the_readable_path(kernels, pair, calls):
    _, native = pair()
    native.set_attn_implementation("eager")
    out = native.language_model(torch.arange(4)[None], past_key_values=native.new_cache(1), output_attentions=True)
    assert len(out.attentions) == 3 and out.attentions[0].shape == (1, 4, 4, 4) and not calls


def test_gradients_flow(kernels, pair, calls):
    plain, native = pair()
    grads = []
    for model in (plain, native):
        x = torch.randn(1, 4, 80, generator=torch.Generator().manual_seed(1)).requires_grad_()
        model.language_model(inputs_embeds=x).logits.square().sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads) and not calls
    native.language_model.model.layers[0].input_layernorm.weight.requires_grad_()
    assert native.language_model(torch.arange(4)[None], past_key_values=native.new_cache(1)).logits.requires_grad


def test_a_linear_that_was_replaced_is_not_passed_over(kernels, pair, calls):
    plain, native = pair()

    class Adapted(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base

        def forward(self, x):
            return self.base(x) + 1

    run(native, [1])
    assert len(calls) == 1
    for model in (plain, native):
        attention = model.language_model.model.layers[1].self_attn
        attention.v_proj = Adapted(attention.v_proj)
    for found, expected in zip(run(native, [40, 1]), run(plain, [40, 1]), strict=True):
        near(found, expected)
    assert len(calls) == 1
    for model in (plain, native):
        attention = model.language_model.model.layers[1].self_attn
        attention.v_proj = attention.v_proj.base
    for found, expected in zip(run(native, [40, 1]), run(plain, [40, 1]), strict=True):
        near(found, expected)
    assert len(calls) == 2


def halve_weights(layer):
    layer.mlp.up_proj.weight_codes = layer.mlp.up_proj.weight_codes / 2


def triple_norm(layer):
    layer.post_attention_layernorm.weight.data = layer.post_attention_layernorm.weight.data * 3


@pytest.mark.parametrize("change", [halve_weights, triple_norm])
def test_tensors_that_changed_are_seen(kernels, pair, calls, change):
    plain, native = pair()
    run(native, [1])
    for model in (plain, native):
        change(model.language_model.model.layers[2])
    for found, expected in zip(run(native, [40, 1]), run(plain, [40, 1]), strict=True):
        near(found, expected)
    assert len(calls) == 2


def test_hooks_are_called(kernels, pair, calls):
    _, native = pair()
    heard = []
    hook = native.language_model.model.layers[0].mlp.gate_proj.register_forward_hook(lambda *_: heard.append(1))
    run(native, [5, 1])
    assert len(heard) == 2 and not calls
    hook.remove()
    run(native, [5, 1])
    assert len(heard) == 2 and len(calls) == 2


def test_a_copy_has_its_own_weights(kernels, pair, calls):
    _, native = pair(INT4)
    expected = run(native, [5, 1])
    other = copy.deepcopy(native)
    for layer in native.language_model.model.layers:
        layer.mlp.down_proj.weight_codes.zero_()
    assert isinstance(other.language_model, NativeLanguageModel)
    assert isinstance(other.language_model.model.layers[0], NativeDecoderLayer)
    assert all(torch.equal(a, b) for a, b in zip(run(other, [5, 1]), expected, strict=True))
    assert not torch.equal(run(native, [5])[0], expected[0])


def test_a_cache_of_other_rows_is_refused(kernels, pair):
    _, native = pair()
    with pytest.raises(RuntimeError):
        native.language_model(torch.zeros(2, 1, dtype=torch.long), past_key_values=native.new_cache(3, 10))
