import pytest
import torch

from qwen2_audio import Qwen2AudioForConditionalGeneration
from qwen2_audio.errors import ConfigError, WeightsError
from qwen2_audio.model.initialize import without_weights
from qwen2_audio.quantize.linear import QuantizedEmbedding, QuantizedLinear
from qwen2_audio.quantize.packing import Format
from qwen2_audio.quantize.scheme import Scheme

LAYER = "language_model.model.layers.1."


@pytest.fixture
def blank(odd_config):
    with without_weights():
        return Qwen2AudioForConditionalGeneration(odd_config())


@pytest.mark.parametrize(
    ("name", "group", "expected"),
    [
        ("int4", None, Format(4, 64)),
        ("int4", 32, Format(4, 32)),
        ("int8", None, Format(8, 32)),
        ("int8", 64, Format(8, 64)),
    ],
)
def test_which_part_gets_what(blank, name, group, expected):
    modules = Scheme.for_model(blank, name, group).modules
    for path in ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"):
        assert modules[LAYER + path] == expected
    assert modules["audio_tower.layers.0.fc1"] == modules["language_model.lm_head"] == Format(8, 32)
    assert modules["multi_modal_projector.linear"] == Format(16)
    assert modules["language_model.model.embed_tokens"] == Format(8, 64)
    assert "audio_tower.embed_positions" not in modules
    assert len(modules) == 2 * 6 + 2 * 7 + 3


def test_what_config_json_says_is_what_was_chosen(blank):
    scheme = Scheme.for_model(blank, "int4")
    data = scheme.to_config()
    assert (data["quant_method"], data["version"], data["scheme"]) == ("qwen2-audio", 1, "int4")
    assert data["modules"][LAYER + "mlp.up_proj"] == {"bits": 4, "group": 64}
    assert data["modules"]["multi_modal_projector.linear"] == {"bits": 16}
    assert Scheme.from_config(data, "x") == scheme


def test_empty_layers_take_the_place_of_the_models(blank):
    model = blank
    Scheme.for_model(model, "int4").install(model)
    assert isinstance(model.language_model.model.embed_tokens, QuantizedEmbedding)
    assert not any(isinstance(module, torch.nn.Linear) for module in model.modules())
    down = model.get_submodule(LAYER + "mlp.down_proj")
    assert isinstance(down, QuantizedLinear)
    assert (down.in_features, down.out_features, down.bias) == (72, 40, None)
    assert all(tensor.is_meta for tensor in model.buffers())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("int5",), "quantize is 'int5'; expected None, 'int4' or 'int8'."),
        (("int4", 48), "group is 48; expected 32 or 64 inputs that share a scale."),
    ],
)
def test_what_is_not_there_is_refused(blank, arguments, sentence):
    with pytest.raises(ConfigError) as caught:
        Scheme.for_model(blank, *arguments)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"quant_method": "gptq"},
            "F is quantised (gptq); this package loads fp32, fp16 and bf16 checkpoints, and those",
        ),
        ({"version": 2}, "F is quantised in layout 2, and this package reads layout 1; update this package."),
        (
            {"version": 0},
            "F is quantised in layout 0, and this package reads layout 1; quantise the original checkpoint",
        ),
        ({"version": None}, "F is quantised in layout None, and this package reads layout 1; quantise the original"),
        ({"scheme": "int2"}, "F: quantization_config has the scheme 'int2' and 1 modules; expected int4 or int8 and"),
        ({"modules": 3}, "F: quantization_config has the scheme 'int4' and no modules; expected int4 or int8 and the"),
        (
            {"modules": {"a": {"bits": 3}}},
            "F: a has 3 bits in groups of 0; expected 4 or 8 bits in groups of 32 or 64,",
        ),
        ({"modules": {"a": {"bits": 4, "group": 128}}}, "F: a has 4 bits in groups of 128; expected 4 or 8 bits in"),
        ({"modules": {"a": 4}}, "F: a has 4 bits in groups of 0; expected"),
    ],
)
def test_a_config_that_cannot_be_read_is_refused(changes, sentence):
    good = {"quant_method": "qwen2-audio", "version": 1, "scheme": "int4", "modules": {"a": {"bits": 16}}}
    Scheme.from_config(good, "F")
    with pytest.raises(WeightsError) as caught:
        Scheme.from_config(good | changes, "F")
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("language_model.model.layers.9.mlp.up_proj", Format(4, 64)),
        ("audio_tower.conv1", Format(8, 32)),
        ("language_model.model.embed_tokens", Format(4, 64)),
    ],
)
def test_modules_that_the_model_has_not_are_refused(blank, path, form):
    with pytest.raises(WeightsError) as caught:
        Scheme("int4", {path: form}).install(blank)
    assert str(caught.value) == (
        f"quantization_config names {path} with {form.bits} bits, which this model has no such layer for; check that "
        "config.json belongs to these weights."
    )
