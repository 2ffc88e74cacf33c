"""AdamW with packed moments against torch's: nearly the same steps from a quarter of the memory."""

import pytest
import torch

from qwen2_audio.train import sft
from qwen2_audio.train.adamw8bit import (
    BLOCK,
    CHUNK,
    AdamW8bit,
    pack_positive,
    pack_signed,
    unpack_positive,
    unpack_signed,
)
from qwen2_audio.train.config import OptimConfig
from qwen2_audio.train.optim import optimiser


def values(spread=3.0):
    """Blocks whose values lie over several powers of ten, as moments do."""
    generator = torch.Generator().manual_seed(0)
    size = torch.pow(10, -spread * torch.rand(8, BLOCK, generator=generator)) * torch.logspace(-9, 3, 8)[:, None]
    return size * torch.randn(8, BLOCK, generator=generator).sign()


def test_a_packed_value_keeps_its_relative_precision():
    wide = values()
    first = unpack_signed(*pack_signed(wide))
    large = wide.abs() > 0.01 * wide.abs().amax(1, keepdim=True)
    assert ((first - wide).abs() / wide.abs())[large].max() < 0.1
    assert torch.equal(first.sign(), torch.where(first == 0, 0, wide.sign()))
    second = unpack_positive(*pack_positive(wide.square()))
    assert ((second.sqrt() - wide.abs()) / wide.abs())[large].abs().max() < 0.05


def test_packing_what_was_packed_changes_nothing():
    both = ((pack_signed, unpack_signed, values()), (pack_positive, unpack_positive, values() ** 2))
    for pack, unpack, given in both:
        codes, scale = pack(given)
        again, scale_again = pack(unpack(codes, scale))
        assert torch.equal(codes, again)
        assert torch.equal(scale, scale_again)


def test_zeros_stay_zeros_and_a_small_second_moment_never_becomes_one():
    nothing = torch.zeros(2, BLOCK)
    assert not unpack_signed(*pack_signed(nothing)).any()
    assert not unpack_positive(*pack_positive(nothing)).any()
    second = torch.zeros(1, BLOCK)
    second[0, :2] = torch.tensor([1.0, 1e-30])
    assert (unpack_positive(*pack_positive(second)) > 0)[0, :3].tolist() == [True, True, False]


def fit(kind, steps=300):
    """A noisy linear regression; returns the optimiser, its matrix and the losses."""
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(96, 64, generator=generator) * torch.logspace(-2, 0, 64)
    found = torch.nn.Parameter(torch.zeros(96, 64))
    bias = torch.nn.Parameter(torch.zeros(96))
    model = torch.nn.Module()
    model.found, model.bias = found, bias
    steps_of = optimiser(model, OptimConfig(kind=kind, learning_rate=1e-2, weight_decay=0.01))
    losses = []
    for _ in range(steps):
        x = torch.randn(32, 64, generator=generator)
        loss = (x @ (found - truth).T + bias).square().mean()
        loss.backward()
        steps_of.step()
        steps_of.zero_grad()
        losses.append(float(loss.detach()))
    return steps_of, found, losses


def test_it_learns_as_the_one_with_fp32_moments():
    _, exact, losses = fit("adamw")
    packed, found, packed_losses = fit("adamw8bit")
    assert isinstance(packed, AdamW8bit)
    assert losses[-1] < losses[0] / 100
    assert packed_losses[-1] == pytest.approx(losses[-1], rel=0.1)
    assert (found - exact).abs().max() < 0.05
    first_step = fit("adamw", 1)[1] - fit("adamw8bit", 1)[1]
    assert first_step.abs().max() < 1e-7  # nothing is packed yet


def test_its_moments_take_two_bytes_a_value():
    packed, found, _ = fit("adamw8bit", 2)
    state = packed.state[found]
    assert sum(tensor.nbytes for tensor in state.values()) < 2.1 * found.numel()


def test_a_tensor_of_more_than_a_chunk_is_updated_whole(monkeypatch):
    from qwen2_audio.train import adamw8bit

    whole = fit("adamw8bit", 5)[1]
    assert CHUNK % BLOCK == 0
    monkeypatch.setattr(adamw8bit, "CHUNK", 7 * BLOCK)
    assert torch.equal(fit("adamw8bit", 5)[1], whole)


def test_its_state_comes_back_bit_for_bit():
    packed, _, _ = fit("adamw8bit", 3)
    saved = {number: {n: t.clone() for n, t in entry.items()} for number, entry in packed.state_dict()["state"].items()}
    other, _, _ = fit("adamw8bit", 1)
    other.load_state_dict({**packed.state_dict(), "state": saved})
    for number, entry in other.state_dict()["state"].items():
        for name, tensor in entry.items():
            assert tensor.dtype == saved[number][name].dtype
            assert torch.equal(tensor, saved[number][name])


def test_a_run_with_it_learns(make):
    from qwen2_audio.train.metrics import read

    result = sft.run(make(steps=30, optim={"kind": "adamw8bit"}, data={"batch_size": 6}))
    losses = [line["loss"] for line in read(result.parent / "metrics.jsonl")]
    assert losses[-1] < losses[0] / 3
