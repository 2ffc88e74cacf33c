"""The cache of 16 and 8 bits: what it promises of its errors, and that it behaves as the ordinary one."""

import pytest
import torch

from qwen2_audio.checkpoint.config import Qwen2Config
from qwen2_audio.errors import ConfigError
from qwen2_audio.model.cache import KVCache
from qwen2_audio.native import fused
from qwen2_audio.native.cache import STORED, NativeKVCache
from qwen2_audio.native.structs import KVStruct

CONFIG = Qwen2Config(hidden_size=160, num_attention_heads=4, num_key_value_heads=2, head_dim=40, num_hidden_layers=3)
every_dtype = pytest.mark.parametrize("kv_dtype", STORED)


def filled(kv_dtype, batch=2, length=30, capacity=0):
    cache = NativeKVCache(CONFIG, batch, kv_dtype=kv_dtype, capacity=capacity)
    torch.manual_seed(0)
    for layer in range(3):
        cache.update(layer, *torch.randn(2, batch, 2, length, 40))
    return cache


def read(cache, layer=1):
    """Keys and values as stored."""
    nothing = torch.zeros(cache.batch, 2, 0, 40)
    return torch.stack(cache.update(layer, nothing, nothing))


@every_dtype
def test_error_of_each_format(kv_dtype):
    x = torch.randn(2, 1, 2, 500, 40) * torch.logspace(-2, 2, 500)[:, None]
    stored = torch.stack(NativeKVCache(CONFIG, 1, kv_dtype=kv_dtype).update(0, *x))
    error, largest = (stored - x).abs(), x.abs().amax(-1, keepdim=True)
    relative = float((error.pow(2).sum() / x.pow(2).sum()).sqrt())
    if kv_dtype == "float32":
        assert torch.equal(stored, x)
    elif kv_dtype == "float16":
        assert bool((error <= x.abs() * 2**-11 + 2**-25).all())
        assert relative < 3e-4
    else:
        assert bool((error <= largest / 253.9).all())
        assert relative < 0.01
    assert stored.dtype == torch.float32


@every_dtype
def test_zeros_stay_zeros(kv_dtype):
    cache = NativeKVCache(CONFIG, 1, kv_dtype=kv_dtype)
    keys, values = cache.update(0, torch.zeros(1, 2, 3, 40), torch.full((1, 2, 3, 40), 1e-38))
    assert torch.equal(keys, torch.zeros(1, 2, 3, 40)) and float(values.abs().max()) <= 1e-38


@every_dtype
def test_native_code_writes_the_same_bits(each_isa, kv_dtype):
    """Written by native code and by torch: what is stored does not tell which it was."""
    torch.manual_seed(1)
    k, v = torch.randn(2, 2, 3, 2 * 40) * 5
    k[0, 0] = 0
    rope = tuple(torch.zeros(2, 1, 1, 3, 40))
    ours, theirs = filled(kv_dtype), filled(kv_dtype)
    ours.reserve(33)
    fused.write_kv(fused.Step(CONFIG, (2, 3, 30), rope, kv_dtype=kv_dtype), ours.address(1), k, v)
    ours.advance(1, 3)
    theirs.update(1, *(t.view(2, 3, 2, 40).transpose(1, 2) for t in (k, v)))
    assert ours.get_seq_length(1) == 33 and ours.get_seq_length(0) == 30
    if each_isa == "portable" or kv_dtype != "int8":
        assert torch.equal(read(ours), read(theirs))
    else:
        assert torch.allclose(read(ours), read(theirs), rtol=1e-6, atol=0)


def test_halves_in_plain_code_are_the_hardware_s(kernels):
    """Every kind of number: subnormal, halfway between two, largest, beyond, none."""
    around = torch.arange(0, 2**16, 7).to(torch.int32).to(torch.uint16).view(torch.float16).float()
    x = torch.cat((around, around * (1 + 2**-11), around * (1 - 2**-12), torch.tensor([65519.0, 65520, 1e30, -1e-9])))
    x = torch.nn.functional.pad(x.nan_to_num(0, posinf=torch.inf, neginf=-torch.inf), (0, -len(x) % 80))
    rows = x.view(1, -1, 80)
    before = kernels.qwa_selected()
    cache = NativeKVCache(CONFIG, 1, kv_dtype="float16", capacity=rows.shape[1])
    step = fused.Step(CONFIG, (1, rows.shape[1], 0), tuple(torch.zeros(2, 1, 1, rows.shape[1], 40)), kv_dtype="float16")
    try:
        kernels.qwa_select(b"portable")
        fused.write_kv(step, cache.address(0), rows, rows)
    finally:
        kernels.qwa_select(before)
    expected = rows.half().view(-1, 2, 40).transpose(0, 1)
    assert torch.equal(cache._keys[0][0].view(torch.int16), expected.contiguous().view(torch.int16))


@every_dtype
def test_pieces_equal_the_whole(kv_dtype):
    k, v = torch.randn(2, 2, 2, 300, 40)
    whole, pieces = (NativeKVCache(CONFIG, 2, kv_dtype=kv_dtype) for _ in range(2))
    expected = whole.update(0, k, v)
    for part in (slice(0, 1), slice(1, 255), slice(255, 300)):
        found = pieces.update(0, k[:, :, part], v[:, :, part])
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


@every_dtype
def test_grows_by_blocks_and_keeps_what_it_holds(kv_dtype):
    cache = filled(kv_dtype, length=30)
    before, address = read(cache), cache.address(1)
    assert cache.capacity == 256
    cache.reserve(256)
    assert cache.address(1) == address
    cache.reserve(257)
    assert cache.capacity == 512 and torch.equal(read(cache), before)
    struct = KVStruct.from_address(cache.address(1))
    assert struct.capacity == 512 and struct.keys == cache._keys[1].data_ptr()
    if kv_dtype == "int8":
        assert struct.value_scales == cache._value_scales[1].data_ptr()


@every_dtype
@pytest.mark.parametrize("rows", [[1, 0], [1, 1, 0], [0], [0, 1]])
def test_reorder(kv_dtype, rows):
    cache = filled(kv_dtype)
    before = read(cache)
    cache.address()
    cache.reorder(torch.tensor(rows))
    assert cache.batch == len(rows) and torch.equal(read(cache), before[:, rows])
    assert KVStruct.from_address(cache.address(2)).keys == cache._keys[2].data_ptr()


@every_dtype
def test_crop_and_go_on(kv_dtype):
    cache = filled(kv_dtype)
    before = read(cache)
    cache.crop(11)
    assert cache.length == cache.get_seq_length() == 11 and torch.equal(read(cache), before[:, :, :, :11])


@every_dtype
def test_copy_stands_for_itself(kv_dtype):
    cache = filled(kv_dtype)
    before = read(cache)
    cache.address()
    other = cache.copy(20, 50)
    assert type(other) is NativeKVCache and other.capacity == 50 and other.length == 20
    assert torch.equal(read(other), before[:, :, :, :20])
    other.update(1, *torch.ones(2, 2, 2, 5, 40))
    assert torch.equal(read(cache), before) and other.address() != cache.address()


def test_bytes():
    numbers = 3 * 2 * 2 * 2 * 256 * 40  # layers, sides, rows, heads, positions, width
    assert filled("float32").nbytes == 4 * numbers == filled_ordinary().nbytes
    assert filled("float16").nbytes == 2 * numbers
    assert filled("int8").nbytes == numbers + 4 * numbers // 40


def filled_ordinary():
    cache = KVCache(CONFIG, 2, dtype=torch.float32)
    for layer in range(3):
        cache.update(layer, *torch.randn(2, 2, 2, 30, 40))
    return cache


def test_advance_stays_within_the_room_that_was_reserved():
    cache = filled("float16")
    with pytest.raises(AssertionError):
        cache.advance(0, 227)


def test_unknown_format_is_refused():
    with pytest.raises(ConfigError, match=r"^kv_cache is 'fp8'; expected one of float16, float32, int8\.$"):
        NativeKVCache(CONFIG, 1, kv_dtype="fp8")
