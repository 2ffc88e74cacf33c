"""The three implementations agree. flash_attention_2 needs a GPU, so its call is checked on a CPU stand-in for the
package: the same functions, computed row by row with a plain softmax."""

import sys
import types

import pytest
import torch
from torch.testing import assert_close

from kit.tiny import tiny_config
from qwen2_audio.errors import ConfigError
from qwen2_audio.model import attention
from qwen2_audio.model.attention import AttentionMask, attend, attend_spans, causal_mask, check_implementation
from qwen2_audio.model.qwen2_audio import Qwen2AudioForConditionalGeneration


def one_row(q, k, v, causal, scale):
    """q [Q, H, D], k and v [K, KVH, D]: the plain formula, causal from the bottom right."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    if causal:
        scores = scores.masked_fill(~causal_mask(q.shape[0], k.shape[0], q.device), -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


def flash_attn_func(q, k, v, dropout_p, softmax_scale, causal):
    rows = zip(q, k, v, strict=True)
    return torch.stack([one_row(*row, causal, softmax_scale) for row in rows])


def flash_attn_varlen_func(q, k, v, cu_q, cu_k, max_q, max_k, dropout_p, softmax_scale, causal):
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert int(cu_q.diff().max()) == max_q
    assert int(cu_k.diff().max()) == max_k
    spans = zip(cu_q, cu_q[1:], cu_k, cu_k[1:], strict=False)
    return torch.cat([one_row(q[a:b], k[c:d], v[c:d], causal, softmax_scale) for a, b, c, d in spans])


@pytest.fixture
def flash(monkeypatch):
    package = types.ModuleType("flash_attn")
    package.flash_attn_func = flash_attn_func
    package.flash_attn_varlen_func = flash_attn_varlen_func
    monkeypatch.setitem(sys.modules, "flash_attn", package)


def qkv(queries, keys, batch=2, heads=4, kv_heads=2, dim=8):
    torch.manual_seed(0)
    return (
        torch.randn(batch, heads, queries, dim),
        torch.randn(batch, kv_heads, keys, dim),
        torch.randn(batch, kv_heads, keys, dim),
    )


@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (1, 7), (3, 7)])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.usefixtures("flash")
def test_all_three_agree_without_padding(queries, keys, causal):
    q, k, v = qkv(queries, keys)
    visible = AttentionMask(causal=causal)
    eager, weights = attend("eager", q, k, v, visible, scale=0.3)
    assert weights.shape == (2, 4, queries, keys)
    assert_close(weights.sum(-1), torch.ones(2, 4, queries))
    for name in ("sdpa", "flash_attention_2"):
        assert_close(attend(name, q, k, v, visible, scale=0.3)[0], eager, atol=1e-6, rtol=1e-5)


@pytest.mark.usefixtures("flash")
def test_spans_are_separate_clips():
    q, k, v = qkv(9, 9, batch=1, kv_heads=4)
    for name in attention.IMPLEMENTATIONS:
        out = attend_spans(name, q, k, v, [4, 2, 3], scale=1.0)
        for start, end in ((0, 4), (4, 6), (6, 9)):
            at = slice(start, end)
            alone = attend("eager", q[:, :, at], k[:, :, at], v[:, :, at], scale=1.0)[0]
            assert_close(out[:, :, at], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.usefixtures("flash")
@torch.no_grad()
def test_the_whole_model_with_flash_attention(side, monkeypatch):
    """Prefill and decode with padded rows give what sdpa gives."""
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    torch.manual_seed(0)
    config = tiny_config(
        {"encoder_layers": 1, "encoder_ffn_dim": 16, "num_mel_bins": 4, "max_source_positions": 20},
        {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "initializer_range": 0.3},
        audio_token_index=31,
    )
    model = Qwen2AudioForConditionalGeneration(config).eval()
    ids = torch.tensor([[1, 31, 31, 31, 2, 3], [0, 0, 4, 31, 31, 5]])
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    if side == "right":
        ids[1], mask[1] = ids[1].roll(-2), mask[1].roll(-2)
    feature_mask = (torch.arange(14) < torch.tensor([[12], [9]])).int()
    inputs = dict(input_features=torch.randn(2, 4, 14), feature_attention_mask=feature_mask)
    outputs, packed = {}, []
    packing_of = attention.Packing.from_mask
    monkeypatch.setattr(
        attention.Packing, "from_mask", lambda valid: packed.append(valid.shape[1]) or packing_of(valid)
    )
    for name in ("sdpa", "flash_attention_2"):
        model.set_attn_implementation(name)
        first = model(input_ids=ids, attention_mask=mask, **inputs)
        longer = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], 1)
        new = torch.tensor([[7], [8]])
        second = model(input_ids=new, attention_mask=longer, past_key_values=first.past_key_values)
        outputs[name] = (first.logits[mask.bool()], second.logits)
    for a, b in zip(outputs["sdpa"], outputs["flash_attention_2"], strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert packed == [6, 1, 7], "once a pass, however many layers: it waits for the device"


def test_what_cannot_run_is_refused_by_name(monkeypatch):
    with pytest.raises(
        ConfigError,
        match='`attn_implementation="flash"` is not supported; expected one of eager, sdpa, flash_attention_2',
    ):
        check_implementation("flash")
    with pytest.raises(ConfigError, match="needs the package flash-attn, which is not installed"):
        check_implementation("flash_attention_2")
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="needs a CUDA device, and none is visible"):
        check_implementation("flash_attention_2")
