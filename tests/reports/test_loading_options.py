"""Options of from_pretrained and save_pretrained that programs for transformers pass."""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file

from kit.reference import reference_name
from kit.tiny import tiny_config, tiny_model
from kit.twins import batch, twins
from qwen2_audio import Qwen2AudioEncoder, Qwen2AudioForConditionalGeneration, Qwen2AudioModel
from qwen2_audio.errors import ConfigError, WeightsError

load = Qwen2AudioForConditionalGeneration.from_pretrained


@pytest.fixture(scope="module")
def model():
    return tiny_model(noise=0.2)


@pytest.fixture
def folder(tmp_path, model):
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def assert_same(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_name_by_its_keyword(folder, model):
    loaded = load(pretrained_model_name_or_path=str(folder))
    assert_same(loaded, model)
    assert loaded.name_or_path == loaded.config.name_or_path == str(folder)
    with pytest.warns(FutureWarning, match="name_or_path= is now pretrained_model_name_or_path="):
        assert_same(load(name_or_path=folder), model)
    assert "name_or_path" not in json.dumps(loaded.config.to_dict())


def test_what_needs_no_network_is_accepted(folder, model):
    options = {"token": "hf_x", "cache_dir": folder.parent, "force_download": True, "weights_only": True}
    assert_same(load(folder, use_safetensors=True, **options), model)
    assert_same(load(folder.parent, subfolder="checkpoint"), model)
    with pytest.raises(ConfigError, match="use_safetensors is False; only safetensors are read"):
        load(folder, use_safetensors=False)
    with pytest.raises(OSError, match="No folder"):
        load("./nowhere/at/all")


def test_what_the_hub_is_asked_with(monkeypatch, folder, model):
    import huggingface_hub

    asked = {}
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, name, **_: asked.update(api=self.token))
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **options: asked.update(options) or folder.parent
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    loaded = load("owner/name", token="hf_x", cache_dir="/c", force_download=True, subfolder="checkpoint")
    assert_same(loaded, model)
    assert (asked["api"], asked["token"], asked["cache_dir"], asked["force_download"]) == ("hf_x", "hf_x", "/c", True)
    assert "checkpoint/*.safetensors" in asked["allow_patterns"]


def test_keys_of_the_config(folder):
    loaded = load(folder, output_hidden_states=True, text_config={"use_cache": False})
    assert loaded.config.output_hidden_states
    assert list(loaded(torch.tensor([[1]]))) == ["logits", "hidden_states"]
    other = load(folder, config=str(folder), attn_implementation={"audio_config": "eager"})
    assert other.config.audio_config._attn_implementation == "eager"
    assert other.config.text_config._attn_implementation == "sdpa"
    with pytest.raises(ConfigError, match='`attn_implementation="foo"` is not supported'):
        load(folder, attn_implementation={"audio_config": "foo"})


# Tensors of one's own


def test_a_state_dict_in_place_of_the_files(folder, model):
    other = tiny_model(seed=1, noise=0.2)
    assert_same(load(folder, state_dict=other.state_dict()), other)
    assert_same(load(None, config=other.config, state_dict=other.state_dict()), other)
    named_by_the_reference = {reference_name(name): tensor for name, tensor in other.state_dict().items()}
    assert_same(load(folder, state_dict=named_by_the_reference), other)
    half = load(folder, state_dict=other.state_dict(), dtype="float16")
    assert half.dtype == torch.float16
    encoder = Qwen2AudioEncoder.from_pretrained(folder, state_dict=other.state_dict())
    assert_same(encoder, other.audio_tower)


def test_a_state_dict_that_does_not_fit(folder, model):
    state = model.state_dict()
    del state["audio_tower.conv1.bias"]
    with pytest.raises(
        WeightsError, match=r"The tensors of the state_dict do not fit .* 1 missing: audio_tower.conv1.bi"
    ):
        load(folder, state_dict=state)
    with pytest.raises(ConfigError, match="got no folder and no name; pass one, or both config and state_dict"):
        load(config=model.config)


def test_an_empty_one_keeps_the_initial_weights(model):
    torch.manual_seed(3)
    expected = Qwen2AudioForConditionalGeneration(tiny_config())
    torch.manual_seed(3)
    loaded, info = load(None, config=tiny_config(), state_dict={}, output_loading_info=True)
    assert_same(loaded, expected)
    assert not loaded.training
    assert info["missing_keys"] == {name for name, _ in expected.named_parameters()}


@pytest.mark.parametrize("kind", [Qwen2AudioModel, Qwen2AudioForConditionalGeneration])
def test_loading_info(folder, kind):
    loaded, info = kind.from_pretrained(folder, output_loading_info=True)
    assert isinstance(loaded, kind)
    nothing = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}
    assert info == nothing


# Saving


def test_saving_returns_nothing_and_takes_the_references_options(tmp_path, model):
    theirs, ours = twins()
    returned = [m.save_pretrained(str(tmp_path / name)) for m, name in ((theirs, "theirs"), (ours, "ours"))]
    assert returned == [None, None]
    assert model.save_pretrained(tmp_path / "new", safe_serialization=True, is_main_process=True) is None
    assert_same(load(tmp_path / "new"), model)
    model.save_pretrained(tmp_path / "none", is_main_process=False)
    assert not (tmp_path / "none").exists()
    for option, sentence in (
        ({"safe_serialization": False}, "safe_serialization=False is not offered; safetensors are the only files"),
        ({"push_to_hub": True}, "push_to_hub=True is not offered; save to a folder"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            model.save_pretrained(tmp_path / "none", **option)


def test_other_tensors_are_written(tmp_path, model):
    """What FSDP has gathered."""
    state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=state)
    written = load_file(tmp_path / "model.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], state[name]) for name in state)
    del state["audio_tower.conv1.bias"]
    with pytest.raises(WeightsError, match=r"look at audio_tower.conv1.bias"):
        model.save_pretrained(tmp_path, state_dict=state)


# Quantised models and casts


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_a_quantised_model_is_not_cast(folder, scheme):
    model = load(folder, quantize=scheme)
    with torch.no_grad():
        before = model(**batch()).logits
    casts = (
        lambda: model.half(),
        lambda: model.bfloat16(),
        lambda: model.to(torch.float16),
        lambda: model.to("cpu", torch.bfloat16),
        lambda: model.double(),
    )
    for cast in casts:
        with pytest.raises(ConfigError, match="is quantised and computes in float32, so it cannot become") as caught:
            cast()
        assert str(caught.value).count(". ") == 0
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        assert torch.equal(model.float().cpu().to("cpu")(**batch()).logits, before)
