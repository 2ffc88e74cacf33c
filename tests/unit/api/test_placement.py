from pathlib import Path

import pytest
import torch

from qwen2_audio import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration
from qwen2_audio.api import placement
from qwen2_audio.api.placement import place, sizes_of, stored_dtype
from qwen2_audio.errors import CapacityError, ConfigError


@pytest.fixture
def official():
    return Qwen2AudioConfig.from_dict(
        {
            "text_config": {"vocab_size": 156032, "intermediate_size": 11008, "max_position_embeddings": 8192},
            "torch_dtype": "bfloat16",
        }
    )


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
    return place(config, "cpu")


def test_float32_where_it_has_room(monkeypatch, official):
    chosen = choice(monkeypatch, official, 60)
    assert chosen.dtype is torch.float32
    assert chosen.reason == (
        "float32 on the CPU, its fastest: 8.4 B parameters and a full context of 8192 positions take 42.2 GB of 60 GB "
        "available."
    )


def test_else_the_files_dtype(monkeypatch, official):
    chosen = choice(monkeypatch, official, 24)
    assert chosen.dtype is torch.bfloat16
    assert chosen.reason.startswith("bfloat16 on the CPU, slow without 16-bit arithmetic")
    assert "42.2 GB in float32, too much, and 21.1 GB in bfloat16, of 24 GB available" in chosen.reason
    official.torch_dtype = "float16"
    assert choice(monkeypatch, official, 24).dtype is torch.float16


def test_else_a_refusal_with_the_arithmetic(monkeypatch, official):
    with pytest.raises(CapacityError, match=r"take 42.2 GB in float32 and 21.1 GB in bfloat16, and 8 GB are available"):
        choice(monkeypatch, official, 8)


def test_a_system_that_does_not_say_gets_float32(monkeypatch, official):
    assert "how much memory is free could not be found out" in choice(monkeypatch, official, None).reason


def test_what_is_asked_for_is_not_weighed(monkeypatch, official):
    monkeypatch.setattr(placement, "available_bytes", lambda: 1)
    assert place(official, "cpu", "bf16").reason == "bfloat16 on cpu, as asked."


def test_a_gpu_gets_the_16_bit_format_it_is_fast_in(monkeypatch, official):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "G")
    for capability, dtype in (((9, 0), torch.bfloat16), ((7, 5), torch.float16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        chosen = place(official, "auto")
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
        place(official, device, dtype)


def test_a_file_that_names_no_dtype_is_float32():
    assert stored_dtype(Qwen2AudioConfig()) is torch.float32


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  100 kB\nMemAvailable:    50 kB\n")
    monkeypatch.setattr(placement, "MEMINFO", meminfo)
    monkeypatch.setattr(placement, "CGROUP", tmp_path)
    assert placement.available_bytes() == 51_200
    (tmp_path / "memory.max").write_text("30000\n")
    (tmp_path / "memory.current").write_text("20000\n")
    (tmp_path / "memory.stat").write_text("anon 3\ninactive_file 5000\n")
    assert placement.available_bytes() == 15_000
    (tmp_path / "memory.max").write_text("max\n")
    assert placement.available_bytes() == 51_200


@pytest.mark.parametrize(
    ("number", "text"), [(12, "12 bytes"), (5_210_000, "5.21 MB"), (16_794_189_824, "16.8 GB"), (10**12, "1e+03 GB")]
)
def test_sizes_are_written_in_decimal_units(number, text):
    assert placement.size(number) == text


def test_amounts_have_no_unit_of_bytes():
    assert [placement.amount(n) for n in (7, 8_397_094_912)] == ["7", "8.4 B"]
