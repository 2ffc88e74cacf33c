"""Packed steps over a paged cache against the same sequences, each alone over an ordinary cache: bit for bit."""

from itertools import pairwise

import pytest
import torch

from qwen2_audio.checkpoint.config import Qwen2Config
from qwen2_audio.model.attention import AttentionMask, attend, causal_mask
from qwen2_audio.model.paged import PagedAttentionBatch, PagedStorage
from qwen2_audio.native import fused
from qwen2_audio.native.cache import STORED, NativeKVCache
from qwen2_audio.native.cache_slot import CacheSlot
from qwen2_audio.native.paged import NativePagedStorage

RAGGED = {"decode": [(300, 1), (0, 1), (17, 1), (255, 1), (256, 1)], "mixed": [(37, 5), (0, 270), (511, 1), (250, 20)]}
every_dtype = pytest.mark.parametrize("kv_dtype", STORED)


class Case:
    """Sequences of (positions cached, new positions) with random contents, over one paged cache and one by one."""

    def __init__(self, sequences, kv_dtype="float16", heads=4, kv_heads=2, dim=40, block=32):
        torch.manual_seed(0)
        self.config = Qwen2Config(
            hidden_size=heads * dim,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=dim,
            num_hidden_layers=2,
        )
        self.sequences, self.kv_dtype = sequences, kv_dtype
        needed = [-(-(past + count) // block) for past, count in sequences]
        self.storage = NativePagedStorage(self.config, sum(needed) + 3, block=block, kv_dtype=kv_dtype)
        for buffer in self.storage.buffers:  # what nobody may read
            buffer.fill_(127 if buffer.dtype == torch.int8 else float("nan"))
        order = (torch.randperm(sum(needed)) + 3).tolist()
        self.tables = [[order.pop() for _ in range(n)] for n in needed]
        lengths = [past + count for past, count in sequences]
        self.q = [torch.randn(1, n, heads * dim) * 2 for n in lengths]
        self.k, self.v = ([torch.randn(1, n, kv_heads * dim) * 2 for n in lengths] for _ in range(2))
        angles = torch.randn(max(lengths), dim)
        self.rope = angles.cos(), angles.sin()
        cached = [(i, self.tables[i], 0, past) for i, (past, _) in enumerate(sequences) if past]
        if cached:
            self._pass(cached, attend=False)

    def _pass(self, parts, attend=True):
        """Positions start .. start + count of some sequences through the cache: parts (index, table, start, count).
        Without `attend` they are only written to it."""
        step = PagedAttentionBatch(
            self.storage, *zip(*((table, start, count) for _, table, start, count in parts), strict=True)
        )
        rope = tuple(side[step.positions[0]][None, None] for side in self.rope)
        slot = CacheSlot.reserve(self.config, step, 1, (1, sum(step.query_lens)), rope, AttentionMask())
        packed = [
            torch.cat([side[i][:, start : start + count] for i, _, start, count in parts], 1)
            for side in (self.q, self.k, self.v)
        ]
        self._write(slot, *packed)
        return fused.attention(slot.step, slot.address, packed[0]).split(step.query_lens, 1) if attend else None

    @staticmethod
    def _write(slot, q, k, v):
        """Rotate queries and keys in place; keys and values go to the cache."""
        fused.rotate_(slot.step, q)
        fused.rotate_(slot.step, k)
        fused.write_kv(slot.step, slot.address, k, v)
        slot.advance()

    def together(self):
        """The new positions of all in one pass: out [1, count, heads * D] of each sequence."""
        starts = zip(self.tables, self.sequences, strict=True)
        return self._pass([(i, table, past, count) for i, (table, (past, count)) in enumerate(starts)])

    def alone(self, index):
        """The same of one sequence over an ordinary cache, which holds more than it needs."""
        past, count = self.sequences[index]
        cache = NativeKVCache(self.config, 1, kv_dtype=self.kv_dtype, capacity=past + count + 77)
        for start, n in ((0, past), (past, count)):
            if n:
                rope = tuple(side[None, None, start : start + n] for side in self.rope)
                slot = CacheSlot.reserve(self.config, cache, 1, (1, n), rope, AttentionMask())
                q, k, v = (side[index][:, start : start + n].clone() for side in (self.q, self.k, self.v))
                self._write(slot, q, k, v)
        return fused.attention(slot.step, slot.address, q)

    def check(self):
        for index, found in enumerate(self.together()):
            assert torch.equal(found, self.alone(index)), f"sequence {index}"


@every_dtype
@pytest.mark.parametrize("block", [16, 32, 256])
@pytest.mark.parametrize("sequences", RAGGED.values(), ids=RAGGED)
def test_paged_equals_unpaged(each_isa, kv_dtype, block, sequences):
    Case(sequences, kv_dtype, block=block).check()


@every_dtype
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(2, 2, 128), (7, 1, 80), (3, 3, 6), (70, 1, 16)])
def test_heads(kernels, kv_dtype, heads, kv_heads, dim):
    Case(RAGGED["mixed"], kv_dtype, heads, kv_heads, dim).check()


@every_dtype
def test_against_torch(each_isa, kv_dtype):
    """Within 5e-6 of the largest, on the numbers that are stored."""
    case = Case(RAGGED["mixed"], kv_dtype)
    for (past, count), table, q, found in zip(case.sequences, case.tables, case.q, case.together(), strict=True):
        used = torch.tensor([table])
        key, value = (side[:, :, : past + count] for side in case.storage.read(1, used, torch.float32))
        rope = tuple(side[None, None, past : past + count] for side in case.rope)
        rotated = fused.rotate_(fused.Step(case.config, (1, count, past), rope), q[:, past:].contiguous())
        query = rotated.view(1, count, -1, 40).transpose(1, 2)
        mask = causal_mask(count, past + count, q.device)
        expected = (
            attend("eager", query, key, value, AttentionMask(mask=mask), scale=40**-0.5)[0].transpose(1, 2).flatten(2)
        )
        assert torch.allclose(found, expected, rtol=0, atol=5e-6 * float(expected.abs().max()))


@every_dtype
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_threads_change_no_bit(each_isa, threads, kv_dtype, kv_heads):
    """With few heads of keys threads share the chunks of a long sequence; with more, each has tiles of its own."""
    for sequences in ([(900, 2)], [(900, 1), (3, 1)], RAGGED["mixed"]):
        results = []
        for count in (1, 2, 3):
            threads(count)
            results.append(torch.cat(Case(sequences, kv_dtype, kv_heads=kv_heads).together(), 1))
        assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@every_dtype
@pytest.mark.parametrize("cuts", [[1, 2, 3], [64, 128, 256], [7, 255, 256, 257, 299]])
def test_cut_into_passes_equals_the_whole(each_isa, kv_dtype, cuts):
    case = Case([(0, 300)], kv_dtype)
    (whole,) = case.together()
    case = Case([(0, 300)], kv_dtype)
    pieces = [case._pass([(0, case.tables[0], a, b - a)])[0] for a, b in pairwise([0, *cuts, 300])]
    assert torch.equal(torch.cat(pieces, 1), whole)


@every_dtype
def test_native_code_writes_what_torch_reads(each_isa, kv_dtype):
    """What one writes the other finds in the same place, with the scale that belongs to it."""
    case = Case([(0, 50)], kv_dtype)
    slots = torch.tensor(case.tables[0])[torch.arange(50) // 32] * 32 + torch.arange(50) % 32
    k, v = (side[0][0].view(50, 2, 40) for side in (case.k, case.v))
    case.storage.write(0, slots, k, v)
    step = PagedAttentionBatch(case.storage, case.tables, [0], [50])
    config, rope = case.config, tuple(torch.zeros(2, 1, 1, 50, 40))
    fused.write_kv(
        fused.PackedStep((config.num_attention_heads, config.num_key_value_heads, 40), step, rope, kv_dtype),
        case.storage.address(1),
        case.k[0],
        case.v[0],
    )
    theirs, ours = (case.storage.read(layer, torch.tensor(case.tables), torch.float32) for layer in (0, 1))
    for a, b in zip(ours, theirs, strict=True):
        exact = kv_dtype != "int8" or each_isa == "portable"
        assert torch.allclose(a[:, :, :50], b[:, :, :50], rtol=0 if exact else 1e-6, atol=0)


def test_no_slot_for_other_rows_or_in_a_readable_storage(kernels):
    case = Case([(0, 5)])
    step = PagedAttentionBatch(case.storage, case.tables, [0], [5])
    rope = tuple(torch.zeros(2, 1, 1, 5, 40))
    assert CacheSlot.reserve(case.config, step, 0, (1, 5), rope, AttentionMask()) is not None
    assert CacheSlot.reserve(case.config, step, 0, (1, 4), rope, AttentionMask()) is None
    assert CacheSlot.reserve(case.config, step, 0, (5, 1), rope, AttentionMask()) is None
    step.storage = PagedStorage(case.config, 3)
    assert CacheSlot.reserve(case.config, step, 0, (1, 5), rope, AttentionMask()) is None


def test_blocks_that_chunks_are_not_made_of_are_refused():
    for block in (8, 48, 512):
        with pytest.raises(AssertionError):
            NativePagedStorage(Qwen2Config(), 1, block=block)
