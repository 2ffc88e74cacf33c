import pytest
import torch
from safetensors.torch import load_file

from qwen2_audio import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration
from qwen2_audio.api import placement
from qwen2_audio.api.placement import choose_placement, sizes_of, stored_dtype
from qwen2_audio.checkpoint import memory
from qwen2_audio.errors import CapacityError, ConfigError


@pytest.fixture
def official():
    return Qwen2AudioConfig.from_dict(
        {
            "text_config": {"vocab_size": 156032, "intermediate_size": 11008, "max_position_embeddings": 8192},
            "torch_dtype": "bfloat16",
        }
    )


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setattr(placement.fused, "kernels", lambda: None)


def test_the_official_checkpoint_is_counted_without_being_made(official):
    sizes = sizes_of(official)
    assert sizes.parameters == 8_397_094_912  # as published
    assert (sizes.encoder, sizes.projector) == (636_968_960, 5_246_976)
    assert sizes.kv_values * 2 == 512 * 1024  # bytes in bf16


def test_a_tiny_one_is_counted_as_it_is_made(tiny_checkpoint):
    config = Qwen2AudioConfig.from_pretrained(tiny_checkpoint)
    model = Qwen2AudioForConditionalGeneration(config)
    assert sizes_of(config).parameters == sum(p.numel() for p in model.parameters())


def choice(monkeypatch, config, gigabytes):
    monkeypatch.setattr(placement, "available_bytes", lambda: None if gigabytes is None else int(gigabytes * 1e9))
    return choose_placement(config, "cpu")


def test_float32_where_it_has_room(monkeypatch, official):
    chosen = choice(monkeypatch, official, 60)
    assert chosen.dtype is torch.float32
    assert chosen.reason == (
        "float32 on the CPU, exact: 8.4 B parameters and a full context of 8192 positions take 42.2 GB of 60 GB "
        "available."
    )


def test_else_int8(monkeypatch, official):
    chosen = choice(monkeypatch, official, 24)
    assert (chosen.dtype, chosen.quantize) == (torch.float32, "int8")
    assert chosen.reason == (
        "int8 on the CPU, quantised while loading: 8.4 B parameters and a full context of 8192 positions take 42.2 GB "
        "in float32, too much; in int8 the weights take 8.93 GB, and 8192 positions of context fit beside them in "
        "24 GB available."
    )
    assert "in int8 the weights take 8.93 GB, and 1972 positions of context" in choice(monkeypatch, official, 11).reason


def test_else_int4(monkeypatch, official):
    chosen = choice(monkeypatch, official, 8)
    assert (chosen.dtype, chosen.quantize) == (torch.float32, "int4")
    assert chosen.reason.startswith("int4 on the CPU, quantised while loading: 8.4 B parameters")
    assert "in int4 the weights take 5.49 GB, and 2392 positions of context fit" in chosen.reason
    monkeypatch.setattr(placement.fused, "kernels", lambda: "there")  # which keep the cache in float16
    assert "5.49 GB, and 4784 positions of context fit" in choice(monkeypatch, official, 8).reason


def test_else_a_refusal_with_the_arithmetic(monkeypatch, official):
    with pytest.raises(CapacityError) as caught:
        choice(monkeypatch, official, 5)
    assert str(caught.value) == (
        "The model does not fit in memory: 8.4 B parameters and a full context of 8192 positions take 42.2 GB in "
        "float32, the weights alone 8.93 GB in int8 and 5.49 GB in int4, and 5 GB are available. Free memory, use a "
        "larger machine, or pass dtype='bfloat16' to try nevertheless."
    )


def test_a_scheme_that_is_asked_for(monkeypatch, official):
    monkeypatch.setattr(placement, "available_bytes", lambda: int(60e9))
    chosen = choose_placement(official, "cpu", quantize="int4")
    assert (chosen.dtype, chosen.quantize) == (torch.float32, "int4")
    assert chosen.reason == "int4 on cpu, as asked: 5.49 GB of weights, and 1.05 MB for every position of context."
    monkeypatch.setattr(placement, "available_bytes", lambda: int(5e9))
    with pytest.raises(
        CapacityError, match=r"in int4 it takes 5\.49 GB and 1024 positions of context 1\.07 GB, and 5 GB"
    ):
        choose_placement(official, "cpu", quantize="int4")
    assert choose_placement(official, "cpu", "float32", "int4").quantize == "int4"  # asked for, not weighed
    with pytest.raises(ConfigError, match=r"dtype is bfloat16 for a model quantised to int4, which computes in"):
        choose_placement(official, "cpu", "bfloat16", "int4")
    with pytest.raises(ConfigError, match=r"quantize is 'int3'; expected None, 'int4' or 'int8'"):
        choose_placement(official, "cpu", quantize="int3")


def test_a_quantised_checkpoint_takes_what_its_files_take(monkeypatch, tiny_checkpoint, tmp_path):
    model = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint, quantize="int8")
    model.save_pretrained(tmp_path)
    config = Qwen2AudioConfig.from_pretrained(tmp_path)
    chosen = choose_placement(config, "cpu")
    assert (chosen.dtype, chosen.quantize) == (torch.float32, "int8")
    held = sum(t.nbytes for t in load_file(tmp_path / "model.safetensors").values())
    assert chosen.reason == (
        f"int8 on cpu, as the checkpoint is stored: {memory.format_bytes(held)} of weights, and 256 bytes for every "
        "position of context."
    )
    with pytest.raises(ConfigError, match=r"small is quantised to int8 already and cannot become int4; leave quantize"):
        choose_placement(config, "cpu", quantize="int4", where="small")


def test_a_system_that_does_not_say_gets_float32(monkeypatch, official):
    assert "how much memory is free could not be found out" in choice(monkeypatch, official, None).reason
    assert choice(monkeypatch, official, None).quantize is None


def test_what_is_asked_for_is_not_weighed(monkeypatch, official):
    monkeypatch.setattr(placement, "available_bytes", lambda: 1)
    assert choose_placement(official, "cpu", "bf16").reason == "bfloat16 on cpu, as asked."


def test_a_gpu_gets_the_16_bit_format_it_is_fast_in(monkeypatch, official):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "G")
    for capability, dtype in (((9, 0), torch.bfloat16), ((7, 5), torch.float16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        chosen = choose_placement(official, "auto")
        assert (chosen.device.type, chosen.dtype) == ("cuda", dtype)
        assert "(G)" in chosen.reason


@pytest.mark.parametrize(
    ("device", "dtype", "sentence"),
    [
        ("tpu", "auto", r"device is 'tpu'; expected None, 'auto', 'cpu', 'cuda'"),
        ("cuda:99", "auto", r"device asks for cuda:99, but \d+ CUDA devices are visible; use 'cpu' or 'auto'\."),
        ("cpu", "int8", r"dtype is 'int8'; expected 'auto', 'float32', 'float16' or 'bfloat16'\."),
    ],
)
def test_what_is_not_there_is_refused(official, device, dtype, sentence):
    with pytest.raises(ConfigError, match=sentence):
        choose_placement(official, device, dtype)


def test_a_file_that_names_no_dtype_is_float32():
    assert stored_dtype(Qwen2AudioConfig()) is torch.float32
