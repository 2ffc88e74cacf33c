"""Where a training step multiplies in bfloat16, and who is warned that it will be slow."""

import warnings

import pytest
import torch

from qwen2_audio.train.precision import autocast_wanted, fast_bfloat16

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def machine(monkeypatch):
    def make(gpu=False, **cpu):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: gpu)

    return make


def test_a_cpu_is_asked_for_its_instructions(machine):
    for flags, fast in (
        ({"avx2": True}, False),
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": True}, True),
        ({}, False),
    ):
        machine(**flags)
        assert fast_bfloat16() is fast and fast_bfloat16(CPU) is fast


def test_auto_is_bfloat16_on_a_gpu_that_can(machine):
    machine(gpu=True, amx_bf16=True)
    assert autocast_wanted("auto", CUDA) and not autocast_wanted("auto", CPU) and not autocast_wanted("float32", CUDA)
    machine(gpu=False)
    assert not autocast_wanted("auto", CUDA) and autocast_wanted("bfloat16", CUDA)


def test_bfloat16_on_a_cpu_without_it_is_done_with_a_warning(machine):
    machine(avx2=True)
    with pytest.warns(UserWarning, match=r"no instructions for it .* slower than 'float32'"):
        assert autocast_wanted("bfloat16", CPU)
    machine(amx_bf16=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert autocast_wanted("bfloat16", CPU) and not autocast_wanted("float32", CPU)
