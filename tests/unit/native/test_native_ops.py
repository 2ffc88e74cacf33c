"""Norm, SwiGLU and RoPE in native code against torch: within 2e-6 of the largest value."""

import pytest
import torch
import torch.nn.functional as F

from qwen2_audio.checkpoint.config import Qwen2Config
from qwen2_audio.model.language_model import RMSNorm, RotaryEmbedding, rotate
from qwen2_audio.native import fused
from qwen2_audio.native.self_test_fused import self_test

WIDTHS = [1, 15, 16, 17, 33, 80, 1000, 4096]


def near(found, expected, tolerance=2e-6):
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_rms_norm(each_isa, rows, width):
    norm = RMSNorm(width, 1e-5).requires_grad_(False)
    norm.weight.uniform_(0.5, 2)
    x = torch.randn(rows, width) * 3
    near(fused.rms_norm(x, norm.weight, norm.eps), norm(x))


def test_rms_norm_of_zeros_is_zero(each_isa):
    assert torch.equal(fused.rms_norm(torch.zeros(2, 20), torch.ones(20), 1e-6), torch.zeros(2, 20))


@pytest.mark.parametrize("count", WIDTHS)
def test_silu_mul(each_isa, count):
    gate, up = torch.randn(2, 9, count) * 8
    near(fused.silu_mul_(gate.clone(), up), F.silu(gate) * up)


def test_silu_at_its_ends(each_isa):
    gate = torch.tensor([-1e4, -200.0, -90.0, -87.5, -20.0, -1e-6, 0.0, 1e-6, 20.0, 90.0, 1e4])
    found = fused.silu_mul_(gate.clone(), torch.ones_like(gate))
    assert torch.allclose(found, F.silu(gate), rtol=1e-6, atol=1e-32)


@pytest.mark.parametrize("dim", [2, 40, 64, 80, 128])
@pytest.mark.parametrize(("batch", "shared"), [(1, False), (3, True), (3, False)])
def test_rope(each_isa, dim, batch, shared):
    config = Qwen2Config(hidden_size=4 * dim, num_attention_heads=4, num_key_value_heads=2, head_dim=dim)
    positions = torch.randint(0, 5000, (1 if shared else batch, 5))
    rope = RotaryEmbedding(config)(positions, torch.float32)
    step = fused.Step(config, (batch, 5, 0), rope)
    for heads in (4, 2):
        x = torch.randn(batch, 5, heads * dim)
        expected = rotate(x.view(batch, 5, heads, dim).transpose(1, 2), rope).transpose(1, 2).flatten(2)
        near(fused.rotate_(step, x), expected)


def test_angles_and_masks_that_do_not_fit_are_refused():
    config = Qwen2Config(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    rope = RotaryEmbedding(config)(torch.zeros(2, 3, dtype=torch.long), torch.float32)
    with pytest.raises(RuntimeError):
        fused.Step(config, (3, 3, 0), rope)
    with pytest.raises(RuntimeError):
        fused.Step(config, (2, 3, 1), rope, keys=torch.ones(2, 3, dtype=torch.bool))


def test_rows_do_not_depend_on_their_number_or_on_threads(each_isa, threads):
    x, weight = torch.randn(50, 1111), torch.randn(1111)
    whole = fused.rms_norm(x, weight, 1e-6)
    assert torch.equal(whole[7:8], fused.rms_norm(x[7:8], weight, 1e-6))
    threads(1)
    assert torch.equal(whole, fused.rms_norm(x, weight, 1e-6))


def test_self_test_passes_on_each_instruction_set(each_isa, kernels):
    assert self_test(kernels) is None


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("qwa_rms_norm", "RMSNorm"),
        ("qwa_silu_mul", "SwiGLU"),
        ("qwa_rotate", "attention over a cache of float32"),
        ("qwa_write_kv", "attention over a cache of float32"),
        ("qwa_attention", "attention over a cache of float32"),
    ],
)
def test_self_test_names_a_call_that_does_nothing(kernels, name, wrong):
    class Broken:
        def __getattr__(self, called):
            return (lambda *_: None) if called == name else getattr(kernels, called)

    assert self_test(Broken()) == wrong


def test_a_refused_library_leaves_the_work_to_torch(kernels, monkeypatch, caplog):
    monkeypatch.setattr("qwen2_audio.native.self_test_fused.self_test", lambda library: "SwiGLU")
    fused.kernels.cache_clear()
    try:
        assert fused.kernels() is None
    finally:
        fused.kernels.cache_clear()
    assert "The native SwiGLU is refused: it differs from torch. Torch computes it." in caplog.text
