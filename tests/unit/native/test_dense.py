"""Products with float32 weights for few rows, and the engine's steps of a float32 model in one call."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qwen2_audio.model.language_model import Qwen2DecoderLayer, Qwen2LanguageModel
from qwen2_audio.model.paged import PagedAttentionBatch, PagedStorage
from qwen2_audio.native import dense, fused
from qwen2_audio.native.dense import MOST_ROWS, DenseLinear
from qwen2_audio.native.install import accelerate
from qwen2_audio.native.layers import DenseLanguageModel
from qwen2_audio.native.paged import NativePagedStorage, storage_for

SHAPES = [(704, 256), (1, 7), (13, 37), (50, 300), (16, 1000)]  # outputs, inputs


@pytest.fixture(autouse=True)
def _fast_kernels(kernels, monkeypatch):
    """Also on a machine that has none but the portable ones."""
    monkeypatch.setattr(dense, "worthwhile", lambda: True)


def linear(outputs, inputs, bias=True, seed=0):
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(inputs, outputs, bias=bias))
    dense.adopt(made)
    return made[0].requires_grad_(False)


def counted(monkeypatch):
    """The rows of each native product, and of each call for all layers."""
    found, rows = fused.kernels(), []
    call = found.qwa_dense

    class Library:
        def __getattr__(self, name):
            return getattr(found, name)

        def qwa_dense(self, *args):
            rows.append(args[5])
            call(*args)

    loaded = dense.library.load()
    monkeypatch.setattr(dense.library, "load", lambda: type(loaded)(Library(), loaded.isa, loaded.reason))
    return rows


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_exact_on_every_instruction_set(each_isa, outputs, inputs, bias):
    layer = linear(outputs, inputs, bias)
    for rows in (2, 3, 15, 16, 17, MOST_ROWS):
        x = torch.randn(rows, inputs)
        exact = x.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0)
        assert torch.allclose(layer(x).double(), exact, rtol=0, atol=1e-6 * float(exact.abs().max()) + 1e-6)


def test_long_sums_are_no_worse_than_a_librarys():
    layer, x = linear(8, 20_000), torch.randn(4, 20_000)
    exact = x.double() @ layer.weight.double().T + layer.bias.double()
    ours, theirs = ((y.double() - exact).abs().max() for y in (layer(x), F.linear(x, layer.weight, layer.bias)))
    assert ours <= 4 * theirs


def test_a_row_does_not_depend_on_the_others_nor_on_the_threads():
    layer, x = linear(100, 96), torch.randn(MOST_ROWS, 96)
    whole, threads = layer(x), torch.get_num_threads()
    for first, last in ((0, 2), (5, 22), (30, 32)):
        assert torch.equal(layer(x[first:last]), whole[first:last])
    try:
        torch.set_num_threads(1)
        assert torch.equal(layer(x), whole)
    finally:
        torch.set_num_threads(threads)


def test_shapes_and_layouts_are_those_of_linear(monkeypatch):
    layer, rows = linear(6, 8), counted(monkeypatch)
    for x in (torch.randn(2, 3, 8), torch.randn(8, 5).T, torch.randn(2, 1, 1, 8), torch.randn(4, 16)[:, ::2]):
        y = layer(x)
        assert y.shape == (*x.shape[:-1], 6) and torch.allclose(y, F.linear(x, layer.weight, layer.bias), atol=1e-6)
    assert rows == [6, 5, 2, 4]


def test_everything_else_is_torchs(monkeypatch):
    layer, rows = linear(6, 8), counted(monkeypatch)
    for x in (torch.randn(1, 8), torch.randn(8), torch.randn(MOST_ROWS + 1, 8), torch.randn(0, 8)):
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    x = torch.randn(3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert copy.deepcopy(layer).double()(x.double()).dtype == torch.float64
    assert layer(x.clone().requires_grad_()).requires_grad
    with pytest.raises(RuntimeError):
        layer(torch.randn(3, 4))
    layer.weight.requires_grad_()
    assert layer(x).requires_grad
    assert rows == []
    with torch.no_grad():
        assert not layer(x).requires_grad
    assert rows == [3]


def test_plain_linears_of_the_language_model_become_dense(tiny):
    model = tiny(None)
    names, weights = list(model.state_dict()), {name: p.data_ptr() for name, p in model.named_parameters()}
    accelerate(model)
    assert list(model.state_dict()) == names
    assert weights == {name: p.data_ptr() for name, p in model.named_parameters()}
    kinds = {type(module) for module in model.language_model.modules() if isinstance(module, nn.Linear)}
    assert kinds == {DenseLinear} and type(model.language_model) is DenseLanguageModel
    assert not any(isinstance(module, DenseLinear) for module in model.audio_tower.modules())
    again = copy.deepcopy(model)
    assert accelerate(again) == 0 and type(again.language_model) is DenseLanguageModel


class Passes:
    """Two sequences over one storage; `storage` PagedStorage: the readable path."""

    def __init__(self, model, storage=None):
        self.model, self.language = model, model.language_model
        self.storage = storage or storage_for(self.language, 8)
        self.pasts = [0, 0]

    def step(self, counts, seed=0):
        ids = torch.randint(0, 94, (1, sum(counts)), generator=torch.Generator().manual_seed(seed))
        step = PagedAttentionBatch(self.storage, [[3, 0], [1, 5]], self.pasts, counts)
        self.pasts = [past + count for past, count in zip(self.pasts, counts, strict=True)]
        with torch.no_grad():
            return self.language(ids, position_ids=step.positions, past_key_values=step).logits[0]


@pytest.fixture
def plain(tiny):
    model = tiny(None).eval()
    accelerate(model)
    return model


@pytest.fixture
def calls(monkeypatch):
    seen, layers_ = [], fused.layers_
    monkeypatch.setattr(fused, "layers_", lambda *args: seen.append(args[4].shape[1]) or layers_(*args))
    return seen


STEPS = [(20, 12), (1, 1), (3, 1), (38, 30), (1, 1)]


def test_steps_of_few_rows_are_one_call_and_equal_the_readable_path(plain, calls):
    readable = PagedStorage(plain.config.text_config, 8)
    ours, theirs = Passes(plain), Passes(plain, readable)
    assert type(ours.storage) is NativePagedStorage
    for number, counts in enumerate(STEPS):
        a, b = ours.step(counts, number), theirs.step(counts, number)
        assert torch.allclose(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))
    assert calls == [32, 2, 4, 2]


def test_generate_stays_the_readable_path(plain, calls):
    assert type(plain.language_model).new_cache is Qwen2LanguageModel.new_cache
    with torch.no_grad():
        cache = plain.new_cache(2)
        for ids in (torch.arange(8).view(2, 4), torch.arange(2)[:, None]):
            plain.language_model(ids, past_key_values=cache)
    assert calls == []


def test_a_model_with_a_native_cache_uses_it(tiny, calls):
    model = tiny(None).eval()
    accelerate(model, "float32")
    expected = copy.deepcopy(tiny(None)).eval()
    with torch.no_grad():
        ours, theirs = model.new_cache(1), expected.new_cache(1)
        for ids in (torch.arange(40)[None], torch.arange(3)[None], torch.arange(1)[None]):
            a = model.language_model(ids, past_key_values=ours).logits
            b = expected.language_model(ids, past_key_values=theirs).logits
            assert torch.allclose(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))
    assert calls == [3, 1]


def test_new_weights_are_what_is_computed_with(plain, calls):
    passes = Passes(plain)
    before = passes.step((2, 1))
    weight = plain.language_model.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight.mul_(3)  # where it lies
    passes.pasts = [0, 0]
    written = passes.step((2, 1))
    plain.language_model.model.layers[0].mlp.up_proj.weight = nn.Parameter(weight / 3)  # elsewhere
    passes.pasts = [0, 0]
    assert not torch.equal(written, before) and torch.allclose(passes.step((2, 1)), before, atol=1e-5)
    q_proj = plain.language_model.model.layers[2].self_attn.q_proj
    q_proj.bias = nn.Parameter(q_proj.bias + 3)
    passes.pasts = [0, 0]
    assert not torch.allclose(passes.step((2, 1)), before, atol=1e-3)
    assert calls == [3] * 4


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")  # people still use it
def test_a_traced_model_has_its_products():
    layer, x = linear(6, 8), torch.randn(3, 8)
    traced = torch.jit.trace(layer, x)
    assert torch.allclose(traced(x + 1), F.linear(x + 1, layer.weight, layer.bias))


def test_hooks_other_linears_and_training_take_the_readable_path(plain, calls):
    passes, layer, heard = Passes(plain), plain.language_model.model.layers[1], []
    hook = layer.mlp.register_forward_hook(lambda *args: heard.append(1))
    passes.step((1, 1))
    hook.remove()
    assert heard and calls == []
    assert type(layer) is Qwen2DecoderLayer
    layer.mlp.down_proj = nn.Linear(layer.mlp.down_proj.in_features, layer.mlp.down_proj.out_features, bias=False)
    passes.step((1, 1))
    plain.train()
    passes.step((1, 1))
    assert calls == []
