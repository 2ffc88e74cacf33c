import copy

import pytest
import torch
from torch import nn

from qwen2_audio import Qwen2AudioForConditionalGeneration
from qwen2_audio.errors import ConfigError
from qwen2_audio.quantize import calibrate as calibrating
from qwen2_audio.quantize.calibrate import Group, InputStatistics, best_factors, calibrate, groups_of, scaling_factors
from qwen2_audio.quantize.packing import Format
from qwen2_audio.quantize.scheme import Scheme
from qwen2_audio.quantize.search import rounded


def ids(rows: int = 4) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    return [{"input_ids": torch.randint(0, 70, (1, 20), generator=draw)} for _ in range(rows)]


def scaled(model, scaling):
    """A copy of the model with its tensors changed as those of its checkpoint would be."""
    other = Qwen2AudioForConditionalGeneration(model.config).eval()
    other.load_state_dict({name: scaling.apply(name, tensor) for name, tensor in model.state_dict().items()})
    return other


def test_scaling_changes_nothing_but_the_rounding(odd_model):
    torch.manual_seed(0)
    odd_model = copy.deepcopy(odd_model)
    for name, parameter in odd_model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    scaling = calibrate(odd_model, ids(), Scheme.for_model(odd_model, "int4", 32))
    other = scaled(odd_model, scaling)
    linears = {path for group in groups_of(odd_model) for path in group.linears}
    assert {name: len(importance) for name, importance in scaling.importance.items()} == {
        f"{path}.weight": odd_model.get_submodule(path).in_features for path in linears
    }
    layer = "language_model.model.layers.0."
    for name in ("input_layernorm.weight", "self_attn.v_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"):
        assert not torch.equal(other.get_parameter(layer + name), odd_model.get_parameter(layer + name))
    for name in ("audio_tower.layers.0.fc1.weight", "language_model.lm_head.weight"):
        assert torch.equal(other.get_parameter(name), odd_model.get_parameter(name))
    prompt = ids(1)[0]["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(other(prompt).logits, odd_model(prompt).logits, atol=1e-4, rtol=1e-4)


def layer_with_outliers() -> tuple[nn.Module, torch.Tensor]:
    """A Linear, and inputs of which three channels are thirty times as large as the rest."""
    torch.manual_seed(0)
    x = torch.randn(400, 128)
    x[:, [3, 17, 90]] *= 30
    layer = nn.Linear(128, 96, bias=False)
    nn.init.normal_(layer.weight)
    return nn.ModuleDict({"layer": layer}), x


def test_it_helps_where_channels_stand_out():
    model, x = layer_with_outliers()
    statistics = InputStatistics(128)
    statistics.add(x[:300])
    weight, form = model["layer"].weight.detach(), Format(4, 64)
    with torch.no_grad():
        s = best_factors(model, Group(("layer",)), statistics, form)
    unseen = x[300:]

    def error(of):
        return float((unseen @ (of - weight).T).norm() / (unseen @ weight.T).norm())

    plain, weighed = error(rounded(weight, form)), error(rounded(weight, form, statistics.importance))
    both = error(rounded(weight * s, form, statistics.importance / s.square()) / s)
    assert s[17] > 1.2 * s[1]
    assert weighed < 0.65 * plain
    assert both < 0.55 * plain


def test_it_is_left_alone_where_it_would_not_help(monkeypatch):
    model, x = layer_with_outliers()
    statistics = InputStatistics(128)
    statistics.add(x)
    monkeypatch.setattr(calibrating, "EXPONENTS", (0.0, 40.0))
    with torch.no_grad():
        s = best_factors(model, Group(("layer",)), statistics, Format(4, 64))
    assert torch.equal(s, torch.ones(128))


def test_what_is_kept_of_the_inputs_is_bounded_and_drawn_from_all():
    statistics = InputStatistics(3)
    for number in range(50):
        statistics.add(torch.full((100, 3), float(number)))
    assert (statistics.count, len(statistics.rows)) == (5000, calibrating.ROWS)
    assert torch.allclose(statistics.mean, torch.full((3,), 24.5))
    assert 20 < float(statistics.rows.mean()) < 29
    assert len(statistics.rows[:, 0].unique()) > 40


def test_heads_that_share_values_share_factors(odd_model):
    groups = {group.linears[0]: group for group in groups_of(odd_model)}
    assert len(groups) == 8
    group = groups["language_model.model.layers.1.self_attn.o_proj"]
    assert (group.producer, group.repeats, group.head) == ("language_model.model.layers.1.self_attn.v_proj", 2, 10)
    statistics = InputStatistics(40)
    statistics.add(torch.rand(50, 40) * torch.arange(1, 41))
    with torch.no_grad():
        s = best_factors(odd_model, group, statistics, Format(4, 32)).view(2, 2, 10)
    torch.testing.assert_close(s[:, 0], s[:, 1])
    assert s.max() > 1.2 * s.min()


def test_a_channel_that_is_never_used_gets_a_finite_factor():
    for mean in (torch.tensor([0.0, 1.0, 2.0]), torch.zeros(3)):
        s = scaling_factors(mean, 0.5)
        assert s.isfinite().all() and (s > 0).all()
        assert torch.equal(scaling_factors(mean, 0.0), torch.ones(3))


def test_nothing_to_calibrate_on_is_refused(odd_model):
    with pytest.raises(ConfigError, match=r"^There is nothing to calibrate on; give at least one clip, or a file with"):
        calibrate(odd_model, [], Scheme.for_model(odd_model, "int4"))
