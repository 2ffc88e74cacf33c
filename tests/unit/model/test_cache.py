import torch

from qwen2_audio.checkpoint.config import Qwen2Config
from qwen2_audio.model.cache import BLOCK, KVCache

CONFIG = Qwen2Config(
    hidden_size=16, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, intermediate_size=8, vocab_size=8
)


def step(n, batch=2):
    return torch.randn(batch, 2, n, 4), torch.randn(batch, 2, n, 4)


def test_update_returns_all_positions_in_order():
    cache = KVCache(CONFIG, 2, dtype=torch.float32, capacity=5)
    pieces = [step(3), step(1), step(4)]
    for key, value in pieces:
        for layer in range(2):
            keys, values = cache.update(layer, key, value)
    assert cache.length == 8
    assert torch.equal(keys, torch.cat([k for k, _ in pieces], 2))
    assert torch.equal(values, torch.cat([v for _, v in pieces], 2))


def test_room_is_used_before_anything_grows():
    cache = KVCache(CONFIG, 2, dtype=torch.float32, capacity=8)
    first, _ = cache.update(0, *step(3))
    second, _ = cache.update(0, *step(5))
    assert first.data_ptr() == second.data_ptr()
    cache.update(0, *step(1))
    assert cache.capacity == BLOCK


def test_reorder_picks_and_repeats_rows():
    cache = KVCache(CONFIG, 2, dtype=torch.float32)
    key, value = step(3)
    for layer in range(2):
        cache.update(layer, key, value)
    cache.reorder(torch.tensor([1, 1, 0]))
    assert cache.batch == 3
    keys, values = cache.update(1, *(new := step(1, batch=3)))
    assert torch.equal(keys, torch.cat([key[[1, 1, 0]], new[0]], 2))
    assert torch.equal(values, torch.cat([value[[1, 1, 0]], new[1]], 2))


def test_crop_forgets_the_tail():
    cache = KVCache(CONFIG, 2, dtype=torch.float32)
    key, value = step(6)
    for layer in range(2):
        cache.update(layer, key, value)
    cache.crop(4)
    assert cache.length == cache.get_seq_length() == 4
    keys, _ = cache.update(0, *(new := step(1)))
    assert torch.equal(keys, torch.cat([key[:, :, :4], new[0]], 2))


def test_bytes_are_those_of_the_buffers():
    cache = KVCache(CONFIG, 2, dtype=torch.float16, capacity=10)
    assert cache.nbytes == 2 * 2 * (2 * 2 * 10 * 4) * 2  # keys and values, layers, elements, two bytes each
