"""Muon against torch's where that has it, and what it leaves to AdamW."""

import pytest
import torch
from torch import nn

from qwen2_audio.errors import ConfigError
from qwen2_audio.train import muon as module
from qwen2_audio.train.config import OptimConfig
from qwen2_audio.train.muon import Muon, orthogonal
from qwen2_audio.train.optim import optimiser


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def precision(request, monkeypatch):
    """Both kinds of CPU; torch's own computes in bfloat16."""
    monkeypatch.setattr(module, "fast_bfloat16", lambda: request.param)
    return 3e-2 if request.param else 5e-2


@pytest.mark.parametrize("shape", [(48, 96), (96, 48), (32, 32)])
def test_all_directions_become_equally_strong(precision, shape):
    torch.manual_seed(0)
    x = torch.randn(shape) @ torch.diag(torch.logspace(-1, 0, shape[1]))
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    made = orthogonal(x)
    strengths = torch.linalg.svdvals(made)
    assert strengths.min() > 0.5 and strengths.max() < 1.3
    inside = u.T @ made @ v.T
    assert (inside - torch.diag(inside.diagonal())).abs().max() < precision  # the same directions
    assert made.dtype == torch.float32


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
def test_matrices_move_as_torchs_muon_moves_them(precision):
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(24, 40)) for _ in "ab")
    mine = Muon([ours], [], lr=0.02, weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        ours.grad = torch.randn(24, 40)
        theirs.grad = ours.grad.clone()
        mine.step()
        other.step()
    moved = (theirs.detach() - 1).norm()
    assert (ours - theirs).detach().norm() < precision * moved


def test_all_else_moves_as_adamw_moves_it():
    torch.manual_seed(0)
    shapes = ((7,), (4, 3, 3))
    ours, theirs = ([nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in "ab")
    mine = Muon([], ours, lr=0.02, betas=(0.9, 0.98), weight_decay=0.1)
    groups = [{"params": theirs[:1], "weight_decay": 0.0}, {"params": theirs[1:], "weight_decay": 0.1}]
    other = torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.98))
    for _ in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape)
            b.grad = a.grad.clone()
        mine.step()
        other.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_embeddings_heads_and_vectors_are_not_turned():
    model = nn.ModuleDict(
        {
            "embed_tokens": nn.Embedding(5, 4),
            "layer": nn.Linear(4, 6),
            "conv": nn.Conv1d(4, 4, 3),
            "lm_head": nn.Linear(6, 5),
        }
    )
    made = optimiser(model, OptimConfig(kind="muon", weight_decay=0.1))
    turned = [p for group in made.param_groups if group["muon"] for p in group["params"]]
    assert len(turned) == 1 and turned[0] is model["layer"].weight
    decays = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    assert len(decays) == len(list(model.parameters()))
    assert all(decays[id(p)] == (0.1 if p.dim() > 1 else 0.0) for p in model.parameters())


def test_it_is_refused_with_divided_weights(make):
    with pytest.raises(ConfigError, match=r"optim.kind is 'muon' and parallel is 'fsdp'"):
        make(parallel="fsdp", optim={"kind": "muon"})
