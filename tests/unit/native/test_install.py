"""Native layers put into a built model, and when they are not."""

import pytest
import torch

from qwen2_audio.errors import ConfigError
from qwen2_audio.model.cache import KVCache
from qwen2_audio.model.encoder import Qwen2AudioEncoderLayer
from qwen2_audio.model.language_model import Qwen2DecoderLayer, Qwen2LanguageModel
from qwen2_audio.native import fused
from qwen2_audio.native.cache import NativeKVCache
from qwen2_audio.native.install import accelerate
from qwen2_audio.native.layers import DenseLanguageModel, NativeDecoderLayer, NativeEncoderLayer, NativeLanguageModel
from qwen2_audio.quantize.packing import Format

INT4 = Format(4, 32)


def test_names_and_tensors_stay(kernels, tiny):
    model = tiny(INT4)
    before, paths = model.state_dict(), [path for path, _ in model.named_modules()]
    assert accelerate(model) == 5
    after = model.state_dict()
    assert list(after) == list(before) and [path for path, _ in model.named_modules()] == paths
    assert all(after[name].data_ptr() == before[name].data_ptr() for name in before)
    assert isinstance(model.language_model, Qwen2LanguageModel)
    kinds = [type(layer) for layer in (*model.audio_tower.layers, *model.language_model.model.layers)]
    assert kinds == [NativeEncoderLayer] * 2 + [NativeDecoderLayer] * 3


def test_twice_is_once(kernels, tiny):
    model = tiny(INT4)
    accelerate(model, "int8")
    first = model.language_model
    assert accelerate(model) == 5 and model.language_model is first
    assert model.new_cache(1).kv_dtype == "float16"


@pytest.mark.parametrize("kv_cache", [None, "float32", "float16", "int8"])
def test_the_cache_is_the_one_asked_for(kernels, tiny, kv_cache):
    model = tiny(INT4)
    accelerate(model, kv_cache)
    cache = model.new_cache(2, 30)
    assert isinstance(cache, NativeKVCache) and (cache.batch, cache.capacity) == (2, 30)
    assert cache.kv_dtype == (kv_cache or "float16")


def test_layers_with_one_plain_linear_stay(kernels, tiny):
    model = tiny(lambda path: None if path.endswith(("layers.1.mlp.up_proj", "layers.0.fc2")) else INT4)
    assert accelerate(model) == 3
    assert type(model.language_model.model.layers[1]) is Qwen2DecoderLayer
    assert type(model.audio_tower.layers[0]) is Qwen2AudioEncoderLayer
    with torch.no_grad():
        cache = model.new_cache(1)
        for ids in (torch.arange(9), torch.arange(1)):
            assert model.language_model(ids[None], past_key_values=cache).logits.isfinite().all()


def test_a_plain_model_keeps_its_cache(tiny):
    model = tiny(None)
    assert accelerate(model) == 0
    assert type(model.language_model) is DenseLanguageModel and type(model.new_cache(1)) is KVCache


def test_a_plain_model_may_have_a_small_cache(tiny):
    model = tiny(None)
    assert accelerate(model, "int8") == 0
    assert type(model.language_model) is NativeLanguageModel and model.new_cache(1).kv_dtype == "int8"


def test_an_encoder_alone(kernels, tiny):
    encoder = tiny(INT4).audio_tower
    assert accelerate(encoder) == 2
    with pytest.raises(
        ConfigError, match=r"^kv_cache is 'int8', but Qwen2AudioEncoder keeps no KV cache; leave it out"
    ):
        accelerate(encoder, "int8")


def test_without_kernels_nothing_is_swapped(tiny, monkeypatch):
    monkeypatch.setattr(fused, "kernels", lambda: None)
    model = tiny(INT4)
    assert accelerate(model) == 0
    assert type(model.language_model.model.layers[0]) is Qwen2DecoderLayer and type(model.new_cache(1)) is KVCache


def test_other_dtypes(tiny):
    model = tiny(None).bfloat16()
    assert accelerate(model) == 0
    with pytest.raises(
        ConfigError,
        match=r"^kv_cache is 'float16', which is for models that compute in float32 on the CPU; "
        r"this one is bfloat16 on cpu\. Leave it out\.$",
    ):
        accelerate(model, "float16")


def test_unknown_cache(tiny):
    with pytest.raises(ConfigError, match=r"^kv_cache is 'int4'; expected one of float16, float32, int8\.$"):
        accelerate(tiny(INT4), "int4")
