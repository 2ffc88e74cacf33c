"""A whole language model over a paged cache: each sequence gets the bits that it gets alone over an ordinary cache."""

import copy

import pytest
import torch

from qwen2_audio.model.paged import PagedAttentionBatch, PagedStorage
from qwen2_audio.native import fused
from qwen2_audio.native.cache_slot import CacheSlot
from qwen2_audio.native.install import accelerate
from qwen2_audio.native.paged import NativePagedStorage
from qwen2_audio.quantize.packing import Format

FORMS = {
    "int4": Format(4, 32),
    "int8": Format(8, 64),
    "float16": Format(16),
    "mixed": lambda path: Format(*(((4, 64), (8, 32), (16,))[len(path) % 3])),
}
LENGTHS = [90, 3, 41, 70]
every_form = pytest.mark.parametrize("form", FORMS)
every_cache = pytest.mark.parametrize("kv_cache", ["float32", "float16", "int8"])


@pytest.fixture
def native(tiny, kernels):
    def make(form, kv_cache="float16"):
        model = tiny(FORMS[form])
        assert accelerate(model, kv_cache) == 5
        return model

    return make


def ids_of(index, length):
    return torch.randint(0, 94, (length,), generator=torch.Generator().manual_seed(index))


def alone(model, index, length):
    """Logits [length, V] of a sequence, whole, over an ordinary cache."""
    with torch.no_grad():
        return model.language_model(ids_of(index, length)[None], past_key_values=model.new_cache(1)).logits[0]


class Paged:
    """Sequences of LENGTHS over one storage, computed step by step."""

    def __init__(self, model, block=16):
        self.model, self.block = model, block
        blocks = [-(-n // block) for n in LENGTHS]
        language = model.language_model
        self.storage = NativePagedStorage(language.config, sum(blocks), block=block, kv_dtype=language.kv_cache_dtype)
        order = torch.randperm(sum(blocks), generator=torch.Generator().manual_seed(0)).tolist()
        self.tables = [[order.pop() for _ in range(n)] for n in blocks]
        self.logits = [torch.zeros(0, 96) for _ in LENGTHS]

    def step(self, counts):
        """`counts` new positions of each sequence; 0: it has no part."""
        parts = [(i, len(self.logits[i]), n) for i, n in enumerate(counts) if n]
        step = PagedAttentionBatch(
            self.storage, *zip(*((self.tables[i], past, n) for i, past, n in parts), strict=True)
        )
        ids = torch.cat([ids_of(i, LENGTHS[i])[past : past + n] for i, past, n in parts])[None]
        with torch.no_grad():
            out = self.model.language_model(ids, position_ids=step.positions, past_key_values=step).logits[0]
        for (i, _, _), new in zip(parts, out.split([n for _, _, n in parts]), strict=True):
            self.logits[i] = torch.cat((self.logits[i], new))
        return self


STEPS = {
    "all at once": [LENGTHS],
    "in chunks, decoding meanwhile": [[50, 1, 9, 0], [7, 1, 1, 1], [1, 1, 1, 40], [30, 0, 29, 1], [2, 0, 1, 28]],
    "one by one": [[LENGTHS[0], 0, 0, 0], [0, LENGTHS[1], 0, 0], [0, 0, LENGTHS[2], 0], [0, 0, 0, LENGTHS[3]]],
}


@every_form
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_each_sequence_gets_its_own_bits(each_isa, native, form, steps):
    model = native(form)
    paged = Paged(model)
    for counts in steps:
        paged.step(counts)
    for index, length in enumerate(LENGTHS):
        assert torch.equal(paged.logits[index][:length], alone(model, index, length)[: len(paged.logits[index])])


@every_cache
@pytest.mark.parametrize("block", [16, 32, 256])
def test_formats_of_the_cache_and_blocks(native, kv_cache, block):
    model = native("int4", kv_cache)
    paged = Paged(model, block)
    for counts in STEPS["in chunks, decoding meanwhile"]:
        paged.step(counts)
    for index, length in enumerate(LENGTHS):
        assert torch.equal(paged.logits[index], alone(model, index, length))


@every_form
@every_cache
def test_chunks_over_an_ordinary_cache_equal_the_whole(native, form, kv_cache):
    model = native(form, kv_cache)
    ids, whole = ids_of(0, 300)[None], alone(model, 0, 300)
    cache, past = model.new_cache(1), 0
    for count in (1, 31, 32, 33, 150, 53):
        with torch.no_grad():
            out = model.language_model(ids[:, past : past + count], past_key_values=cache).logits[0]
        assert torch.equal(out, whole[past : past + count]), f"positions {past} .. {past + count - 1}"
        past += count


def test_few_rows_are_one_call_and_more_are_none(native, monkeypatch):
    seen, layers_ = [], fused.layers_
    monkeypatch.setattr(fused, "layers_", lambda *args: seen.append(args[4].shape[1]) or layers_(*args))
    paged = Paged(native("int4"))
    for counts in ([29, 1, 1, 1], [1, 1, 1, 1], [30, 0, 2, 1], [0, 0, 1, 0]):
        paged.step(counts)
    assert seen == [32, 4, 1]


def test_near_the_readable_path(native):
    """Within 1e-5 of the largest with 16-bit weights and a float32 cache."""
    model = native("float16", "float32")
    ours, plain = Paged(model), Paged(model)
    plain.storage = PagedStorage(model.config.text_config, plain.storage.blocks, block=16)
    for counts in STEPS["in chunks, decoding meanwhile"]:
        ours.step(counts), plain.step(counts)
    for a, b in zip(ours.logits, plain.logits, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))
        assert not torch.equal(a, b), "the readable storage was read natively"


def test_training_takes_the_readable_path(native, monkeypatch):
    model = native("int4", "float32")
    calls, reserve = [], CacheSlot.reserve
    monkeypatch.setattr(CacheSlot, "reserve", lambda *args: calls.append(args) or reserve(*args))
    Paged(model.eval()).step([5, 1, 1, 0])
    assert calls, "native layers reserve a slot in the cache"
    calls.clear()
    Paged(model.train()).step([5, 1, 1, 0])
    assert not calls


def test_storage_of_a_model(native):
    for name, dtype in (("float32", torch.float32), ("float16", torch.float16), ("int8", torch.int8)):
        storage = native("int4", name).language_model.new_paged(5)
        assert type(storage) is NativePagedStorage and storage.dtype == dtype
        assert storage.blocks == 5 and storage.block == 32
    half = copy.deepcopy(native("int4"))
    half.language_model.bfloat16()
    storage = half.language_model.new_paged(2)
    assert type(storage) is PagedStorage and storage.dtype == torch.bfloat16 and storage.blocks == 2
