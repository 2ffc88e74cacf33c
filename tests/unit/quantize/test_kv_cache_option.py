"""`kv_cache=` of from_pretrained and load: how keys and values are stored."""

from __future__ import annotations

import pytest

import qwen2_audio as qa
from qwen2_audio import Qwen2AudioEncoder, Qwen2AudioForConditionalGeneration
from qwen2_audio.errors import ConfigError
from qwen2_audio.native import ops

load = Qwen2AudioForConditionalGeneration.from_pretrained
needs_kernels = pytest.mark.skipif(not ops.available(), reason="no native kernels on this machine")


@needs_kernels
def test_a_quantised_model_keeps_16_bits_unless_told(odd_folder):
    assert load(odd_folder, quantize="int8").new_cache(1).kv_dtype == "float16"
    for kv_cache in ("float32", "float16", "int8"):
        assert load(odd_folder, quantize="int4", kv_cache=kv_cache).new_cache(1).kv_dtype == kv_cache


def test_a_plain_model_may_have_a_small_cache(odd_folder):
    assert load(odd_folder, kv_cache="int8").new_cache(1).kv_dtype == "int8"
    assert not hasattr(load(odd_folder).new_cache(1), "kv_dtype")


def test_load_hands_it_on():
    model = qa.load("nano", kv_cache="int8")
    assert model.model.new_cache(1).kv_dtype == "int8"
    clip = qa.nano_path() / "clips" / "dog.wav"
    question = [qa.user("What is that sound?", audio=clip)]
    assert model.chat(question).text == qa.load("nano").chat(question).text


@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}])
def test_an_unknown_one_is_refused(odd_folder, options):
    with pytest.raises(ConfigError, match="kv_cache is 'int2'; expected one of float16, float32, int8"):
        load(odd_folder, kv_cache="int2", **options)


def test_other_dtypes_and_models_have_none(odd_folder):
    with pytest.raises(ConfigError, match="for models that compute in float32 on the CPU; this one is bfloat16"):
        load(odd_folder, dtype="bfloat16", kv_cache="int8")
    with pytest.raises(ConfigError, match="Qwen2AudioEncoder keeps no KV cache; leave it out"):
        Qwen2AudioEncoder.from_pretrained(odd_folder, kv_cache="int8")
