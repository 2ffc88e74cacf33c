"""Models quantised while loading, saved, and loaded again."""

import copy
import json
import re
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen2_audio import Qwen2AudioEncoder, Qwen2AudioForConditionalGeneration, Qwen2AudioModel, lora
from qwen2_audio.checkpoint import memory, weights
from qwen2_audio.errors import CapacityError, ConfigError, WeightsError
from qwen2_audio.pretrained import loading
from qwen2_audio.quantize import checkpoint as quantized
from qwen2_audio.quantize.checkpoint import tensors_of

load = Qwen2AudioForConditionalGeneration.from_pretrained


@pytest.fixture(params=["int4", "int8"])
def scheme(request) -> str:
    return request.param


@pytest.fixture
def saved(odd_folder, tmp_path, scheme) -> Path:
    load(odd_folder, quantize=scheme).save_pretrained(tmp_path / "quantised")
    return tmp_path / "quantised"


def assert_same(one, other) -> None:
    mine, theirs = tensors_of(one), tensors_of(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


def refusal(kind, *arguments, loader=load, **options) -> str:
    with pytest.raises(kind) as caught:
        loader(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(folder: Path, **changes) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    data["quantization_config"] |= changes
    path.write_text(json.dumps(data))


def test_what_is_quantised_while_loading_is_close_to_the_model(torch_only, odd_folder, odd_model, scheme):
    model = load(odd_folder, quantize=scheme)
    assert (model.dtype, model.device.type, model.training) == (torch.float32, "cpu", False)
    for name, tensor in odd_model.state_dict().items():
        path, _, leaf = name.rpartition(".")
        layer = model.get_submodule(path)
        if hasattr(layer, "weight_codes") and leaf == "weight":
            back = layer.dequantize() if hasattr(layer, "dequantize") else layer(torch.arange(70))
            bound = 0.12 if layer.bits == 4 else 0.008
            assert float((back - tensor).norm() / tensor.norm()) < bound, name
        else:
            assert torch.equal(tensors_of(model)[name], tensor), name


def test_saved_and_loaded_it_is_the_same(odd_folder, saved, scheme):
    again = load(saved)
    assert_same(again, load(odd_folder, quantize=scheme))
    assert_same(load(saved, quantize=scheme, dtype="float32"), again)
    ids = torch.arange(6)[None]
    assert torch.equal(again(ids).logits, load(odd_folder, quantize=scheme)(ids).logits)
    data = json.loads((saved / "config.json").read_text())
    assert data["quantization_config"]["scheme"] == scheme
    assert data["torch_dtype"] == "float32"
    again.save_pretrained(saved.parent / "again", max_shard_size="20KB")
    assert (saved.parent / "again" / "model.safetensors.index.json").is_file()
    assert_same(load(saved.parent / "again"), again)


def test_every_tensor_is_aligned_for_the_kernels(saved):
    for name, tensor in tensors_of(load(saved)).items():
        assert tensor.data_ptr() % 64 == 0, name


def test_parts_of_a_quantised_checkpoint(saved, odd_folder, scheme):
    full = load(saved)
    headless = Qwen2AudioModel.from_pretrained(saved)
    assert_same(headless, Qwen2AudioModel.from_pretrained(odd_folder, quantize=scheme))
    assert headless.language_model.lm_head is None
    encoder = Qwen2AudioEncoder.from_pretrained(saved)
    assert_same(encoder, Qwen2AudioEncoder.from_pretrained(odd_folder, quantize=scheme))
    mel = torch.randn(1, 8, 60)
    torch.testing.assert_close(
        encoder(mel).last_hidden_state, full.audio_tower(mel).last_hidden_state, atol=1e-3, rtol=1e-3
    )
    encoder.save_pretrained(saved.parent / "encoder")
    assert_same(Qwen2AudioEncoder.from_pretrained(saved.parent / "encoder"), encoder)


def test_a_tied_head_becomes_a_tensor_of_its_own(tmp_path, odd_config):
    torch.manual_seed(0)
    tied = Qwen2AudioForConditionalGeneration(odd_config(tie_word_embeddings=True)).eval()
    tied.save_pretrained(tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    save_file({name: t for name, t in held.items() if name != weights.HEAD}, tmp_path / "model.safetensors")
    model = load(tmp_path, quantize="int8")
    assert not model.config.tied
    table = tied.language_model.model.embed_tokens.weight.detach()
    head = model.language_model.lm_head.dequantize()
    assert float((head - table).norm() / table.norm()) < 0.008
    model.save_pretrained(tmp_path / "q")
    assert_same(load(tmp_path / "q"), model)


def test_checkpoints_in_other_dtypes_are_quantised_too(odd_folder, odd_model):
    held = load_file(odd_folder / "model.safetensors")
    save_file({name: t.bfloat16() for name, t in held.items()}, odd_folder / "model.safetensors")
    model = load(odd_folder, quantize="int8")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.language_model.lm_head.bits == 8


# Memory


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def private_bytes() -> int:
    return 1024 * int(re.findall(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[0])


LARGE = dict(
    vocab_size=8000, hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8,
    num_key_value_heads=8,
)  # fmt: skip


@needs_proc
@pytest.mark.slow
def test_memory_is_the_result_and_little_more_then_a_mapped_file(tmp_path, odd_config, monkeypatch):
    torch.manual_seed(0)
    Qwen2AudioForConditionalGeneration(odd_config(text_config=LARGE)).save_pretrained(tmp_path / "plain")  # 134 MB
    monkeypatch.setattr(loading, "accelerate", lambda model, kv_cache: None)
    quantize, peak, before = quantized.quantize_linear, [0], private_bytes()

    def watched(*arguments):
        stored = quantize(*arguments)
        peak[0] = max(peak[0], private_bytes() - before)
        return stored

    monkeypatch.setattr(quantized, "quantize_linear", watched)
    model = load(tmp_path / "plain", quantize="int4")
    held = quantized.nbytes(model)
    assert 20e6 < held < 30e6
    assert peak[0] < held + 30e6
    model.save_pretrained(tmp_path / "q")
    del model
    before, started = private_bytes(), time.perf_counter()
    model = load(tmp_path / "q")
    assert time.perf_counter() - started < 3
    assert private_bytes() - before < 5e6
    assert quantized.nbytes(model) == held


def test_no_room_for_the_result(odd_folder, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 50_000)
    text = refusal(CapacityError, odd_folder, quantize="int4")
    assert re.fullmatch(
        r"The model in int4 takes [\d.]+ MB of memory, and 50 kB are available; free memory, or use a larger machine\.",
        text,
    )


# Bad input


def test_a_scheme_that_is_none(odd_folder):
    text = refusal(ConfigError, odd_folder, quantize="int3")
    assert text.startswith("quantize is 'int3'; expected None, 'int4' or 'int8'. Did you mean 'int")


def test_another_dtype(odd_folder, saved, scheme):
    for options in ({"quantize": scheme, "dtype": "bfloat16"}, {"quantize": scheme, "torch_dtype": torch.bfloat16}):
        assert refusal(ConfigError, odd_folder, **options) == (
            f"dtype is bfloat16 for a model quantised to {scheme}, which computes in float32; leave dtype out, or load "
            "the plain checkpoint without quantize."
        )
    assert "dtype is float16 for a model quantised" in refusal(ConfigError, saved, dtype="float16")
    load(saved, dtype="auto")


def test_another_scheme_than_the_files(saved, scheme):
    other = "int8" if scheme == "int4" else "int4"
    assert refusal(ConfigError, saved, quantize=other) == (
        f"{saved} is quantised to {scheme} already and cannot become {other}; leave quantize out, or take the "
        "checkpoint that it was made from."
    )


def test_files_of_another_layout_or_tool(saved):
    change(saved, version=2)
    assert "is quantised in layout 2, and this package reads layout 1; update" in refusal(WeightsError, saved)
    change(saved, version=1, quant_method="awq")
    assert f"{saved} is quantised (awq); this package loads" in refusal(WeightsError, saved)


def test_a_file_that_is_cut_off(saved):
    file = saved / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    text = refusal(WeightsError, saved)
    assert f"({len(whole) - 100:,} bytes, where its header promises {len(whole):,}); fetch it again." in text
    file.write_bytes(whole + b"more")
    assert f"({len(whole) + 4:,} bytes, where its header promises {len(whole):,})" in refusal(WeightsError, saved)
    file.write_bytes(whole[:50])
    assert "is not a whole safetensors file" in refusal(WeightsError, saved)


@pytest.mark.parametrize(
    ("name", "tensor", "sentence"),
    [
        ("language_model.lm_head.weight_scales", None, "1 missing: language_model.lm_head.weight_scales."),
        ("language_model.lm_head.weight", torch.zeros(1), "1 unexpected: language_model.lm_head.weight."),
        (
            "language_model.lm_head.weight_codes",
            torch.zeros(5, 2, 3, dtype=torch.uint8),
            "[5, 2, 3], expected [5, 2, 512]",
        ),
        ("language_model.lm_head.weight_scales", torch.zeros(5, 2, 16), "weight_scales F32, expected float16"),
        ("language_model.model.norm.weight", torch.ones(40).half(), "norm.weight F16, expected float32"),
    ],
)
def test_tensors_that_do_not_fit_are_named(saved, name, tensor, sentence):
    held = load_file(saved / "model.safetensors")
    held = {n: t for n, t in held.items() if n != name} | ({} if tensor is None else {name: tensor})
    save_file(held, saved / "model.safetensors")
    text = refusal(WeightsError, saved)
    assert sentence in text
    assert text.startswith(f"The tensors of {saved} do not fit its config.json")


def test_a_plain_checkpoint_that_does_not_fit_is_refused_before_anything_is_quantised(odd_folder, monkeypatch):
    held = load_file(odd_folder / "model.safetensors")
    del held["language_model.model.norm.weight"]
    save_file(held, odd_folder / "model.safetensors")
    monkeypatch.setattr(quantized, "_quantize", None)
    assert "1 missing: language_model.model.norm.weight" in refusal(WeightsError, odd_folder, quantize="int4")


def test_a_changed_model_is_not_saved(odd_folder, tmp_path):
    model = load(odd_folder, quantize="int8")
    model.language_model.model.norm.bfloat16()
    text = refusal(WeightsError, tmp_path / "x", loader=model.save_pretrained)
    assert text.startswith(
        "This quantised model is not as its config builds it (look at language_model.model.norm.weight)"
    )
    assert not (tmp_path / "x").exists()


def test_an_adapter_is_not_added_to_quantised_weights(odd_folder, odd_model, tmp_path):
    model = load(odd_folder, quantize="int8")
    config = lora.LoraConfig(targets={"language_model": "q_proj"})
    adapted = copy.deepcopy(odd_model)
    lora.inject(adapted, config)
    lora.save_adapter(adapted, tmp_path / "adapter", "odd")
    lora.attach(model, tmp_path / "adapter")
    assert refusal(ConfigError, model, loader=lora.merge) == (
        "The model is quantised, and an adapter cannot be added to 4- or 8-bit weights; merge it into the plain "
        "checkpoint with qwen2-audio merge, then make the result small with qwen2-audio quantize."
    )
