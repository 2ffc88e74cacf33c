"""Attention over a cache in native code against torch's on the same stored numbers: within 5e-6 of the largest."""

import pytest
import torch

from qwen2_audio.checkpoint.config import Qwen2Config
from qwen2_audio.model.attention import AttentionMask, attend, causal_mask
from qwen2_audio.native import fused
from qwen2_audio.native.cache import NativeKVCache

KV_DTYPES = ["float32", "float16", "int8"]


class Case:
    """`batch` rows with `past` positions in their cache and `queries` new ones, of `heads` heads over `kv_heads`."""

    def __init__(self, kv_dtype="float16", batch=1, queries=1, past=20, heads=4, kv_heads=2, dim=64, padding=None):
        torch.manual_seed(0)
        self.config = Qwen2Config(
            hidden_size=heads * dim,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=dim,
            num_hidden_layers=1,
        )
        self.length, self.queries, self.past = past + queries, queries, past
        self.cache = NativeKVCache(self.config, batch, kv_dtype=kv_dtype, capacity=self.length + 5)
        for tensor in (*self.cache._keys, *self.cache._values):  # what nobody may read
            tensor.fill_(127 if kv_dtype == "int8" else float("nan"))
        k, v = torch.randn(2, batch, kv_heads, self.length, dim)
        self.keys, self.values = self.cache.update(0, k * 2, v)
        self.q = torch.randn(batch, queries, heads * dim) * 2
        self.seen = None
        if padding is not None:
            self.seen = torch.arange(self.length)[None] >= torch.tensor(padding)[:, None]

    def native(self, row=None, queries=None):
        """The result; of one row alone, or of its first `queries` new positions."""
        cache, q, seen, past = self.cache, self.q, self.seen, self.past
        if row is not None:
            cache = cache.copy(self.length, self.length + 77)
            cache.reorder(torch.tensor([row]))
            q, seen = q[row : row + 1].contiguous(), None if seen is None else seen[row : row + 1]
        if queries is not None:
            q, seen = q[:, :queries].contiguous(), None if seen is None else seen[:, : past + queries]
        rope = torch.zeros(2, 1, 1, q.shape[1], self.config.head_dim)
        step = fused.Step(self.config, (len(q), q.shape[1], past), tuple(rope), seen, cache.kv_dtype)
        return fused.attention(step, cache.address(), q)

    def expected(self):
        q = self.q.view(*self.q.shape[:2], -1, self.config.head_dim).transpose(1, 2)
        mask = causal_mask(self.queries, self.length, q.device)
        if self.seen is not None:
            itself = torch.ones(self.queries, self.length, dtype=torch.bool).tril(self.past).triu(self.past)
            mask = mask & self.seen[:, None, None] | itself
        out, _ = attend(
            "eager",
            q,
            self.keys,
            self.values,
            AttentionMask(mask=mask),
            scale=q.shape[-1] ** -0.5,
            softmax_dtype=torch.float32,
        )
        return out.transpose(1, 2).flatten(2)

    def check(self):
        found, expected = self.native(), self.expected()
        assert torch.allclose(found, expected, rtol=0, atol=5e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(2, 2, 128), (4, 2, 64), (7, 1, 80), (14, 2, 40), (2, 1, 6)])
def test_heads(each_isa, kv_dtype, heads, kv_heads, dim):
    Case(kv_dtype, batch=2, heads=heads, kv_heads=kv_heads, dim=dim).check()


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("past", [0, 1, 14, 15, 16, 254, 255, 256, 257, 700])
@pytest.mark.parametrize("queries", [1, 4])
def test_lengths(kernels, kv_dtype, past, queries):
    Case(kv_dtype, past=past, queries=queries, dim=40).check()


@pytest.mark.parametrize("queries", [1, 2, 3, 5, 8, 9, 70, 300])
def test_new_positions_see_what_is_before_them(each_isa, queries):
    Case(batch=2, queries=queries, past=253).check()


@pytest.mark.parametrize("padding", [[0, 3], [255, 256], [300, 10], [0, 302]])
@pytest.mark.parametrize("queries", [1, 3, 90])
def test_padding_on_the_left(each_isa, padding, queries):
    Case(batch=2, queries=queries, past=300, padding=padding).check()


def test_holes_and_padded_queries(kernels):
    case = Case(batch=2, queries=3, past=290, padding=[0, 292])  # the first new positions of row 1 are padding
    case.seen[0, 5:270] = False
    case.check()
    first = case.native()[1, 0].view(4, 64)
    assert torch.allclose(first, case.values[1, :, 290].repeat_interleave(2, 0), atol=1e-6), "sees itself only"


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_long_context(kernels, kv_dtype):
    Case(kv_dtype, past=5000, heads=2, kv_heads=1).check()


def test_scores_that_would_overflow_alone(each_isa):
    case = Case("float32")
    case.q *= 1000
    case.check()


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_a_row_is_the_same_bit_for_bit_alone_and_with_fewer_new_positions(each_isa, kv_dtype):
    case = Case(kv_dtype, batch=3, queries=90, past=600, padding=[0, 70, 590])
    whole = case.native()
    for row in range(3):
        assert torch.equal(case.native(row), whole[row : row + 1])
    for queries in (1, 2, 5, 9, 64):
        assert torch.equal(case.native(1, queries), whole[1:2, :queries])


def test_padding_on_the_left_changes_no_bit(each_isa):
    """300 positions of which 130 are padding, against the other 170 alone."""
    case = Case("float16", queries=2, past=298, padding=[130])
    alone = Case("float16", queries=2, past=168)
    alone.cache._keys[0][:, :, :170] = case.cache._keys[0][:, :, 130:300]
    alone.cache._values[0][:, :, :170] = case.cache._values[0][:, :, 130:300]
    alone.q = case.q
    assert torch.equal(alone.native(), case.native())


@pytest.mark.parametrize("queries", [2, 90])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_threads_change_no_bit(each_isa, threads, kv_heads, queries):
    """With one head of keys two threads share its chunks; with four, each has heads of its own."""
    case = Case(batch=1, queries=queries, past=900, heads=4, kv_heads=kv_heads)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(case.native())
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    case.check()
