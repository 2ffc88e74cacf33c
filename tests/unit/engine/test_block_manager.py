import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.histories import Memory, request, sequences
from qwen2_audio.engine.block_manager import BlockCopy, BlockManager

SIZE = 4


def sequence(keys):
    (made,) = sequences(request(0, keys))
    return made


def computed(pool, keys, upto=None):
    """A sequence that began, got its blocks and was computed, and noted."""
    one = sequence(keys)
    copy = pool.allocate(one)
    if copy is not None:
        pool.copied(copy)
    assert pool.extend(one, len(keys))
    one.computed = len(keys) if upto is None else upto
    pool.publish(one)
    return one


def kept(pool, keys):
    """Computed and released: in the cache, held by nobody."""
    pool.release(computed(pool, keys))


def test_a_new_sequence_gets_empty_blocks_and_gives_them_back():
    pool = BlockManager(5, SIZE)
    one = sequence(range(9))
    assert pool.allocate(one) is None and (one.blocks, one.computed, one.cached) == ([], 0, 0)
    assert pool.extend(one, 9) and len(set(one.blocks)) == 3
    assert pool.extend(one, 9) and pool.extend(one, 2) and len(one.blocks) == 3, "it has them already"
    assert (pool.used, pool.free, pool.cached) == (3, 2, 0)
    pool.release(one)
    assert (pool.used, pool.free, pool.cached, one.blocks) == (0, 5, 0, [])
    pool.release(one)  # for the second time: nothing
    assert pool.free == 5


def test_too_few_blocks_change_nothing():
    pool = BlockManager(2, SIZE)
    one = sequence(range(12))
    pool.allocate(one)
    assert not pool.extend(one, 9) and one.blocks == [] and pool.free == 2
    assert pool.extend(one, 8) and pool.free == 0


def test_crop_gives_back_what_lies_wholly_behind():
    pool = BlockManager(4, SIZE)
    one = computed(pool, range(6))
    assert pool.extend(one, 16) and pool.free == 0
    pool.trim(one, 9)
    assert len(one.blocks) == 3
    pool.trim(one, 8)
    assert len(one.blocks) == 2 and pool.free == 2
    with pytest.raises(AssertionError):
        pool.trim(one, 5)


def test_whole_blocks_are_shared_while_both_run():
    pool = BlockManager(8, SIZE)
    first = computed(pool, [*range(8), 50, 51])
    second = sequence([*range(8), 60])
    assert pool.lookup(second.prefix_keys[:-1]) == 8
    assert pool.allocate(second) is None
    assert second.blocks == first.blocks[:2] and (second.computed, second.cached) == (8, 8)
    assert pool.used == 3, "counted once"
    pool.release(first)
    assert pool.used == 2
    pool.release(second)
    assert pool.used == 0


def test_one_position_is_left_to_compute():
    pool = BlockManager(8, SIZE)
    kept(pool, range(8))
    again = sequence(range(8))
    copy = pool.allocate(again)
    assert again.computed == 7 and copy is not None and copy.target == again.blocks[1] != copy.source


def test_a_block_that_ends_otherwise_is_copied_and_its_source_stays_until_then():
    pool = BlockManager(4, SIZE)
    kept(pool, range(8))
    one = sequence([0, 1, 2, 3, 4, 5, 99])
    copy = pool.allocate(one)
    assert copy == BlockCopy(source=copy.source, target=one.blocks[1]) and one.computed == 6
    assert pool.free == 1, "two blocks, and the source"
    assert pool.extend(one, 12) and copy.source not in one.blocks and not pool.extend(one, 13)
    pool.copied(copy)
    assert pool.extend(one, 13)


def test_the_end_of_a_released_sequence_is_found_though_its_block_is_not_full():
    pool = BlockManager(8, SIZE)
    kept(pool, [0, 1, 2, 3, 4, 5])
    assert pool.lookup([0, 1, 2, 3, 4, 5, 6, 7]) == 6
    assert pool.lookup([0, 1, 2, 3, 4, 9]) == 5
    assert pool.lookup([0, 1, 9]) == 2
    assert pool.lookup([9, 1, 2]) == 0 == pool.lookup([])
    # What was not computed is not found.
    pool.release(computed(pool, [7, 7, 7, 7, 7, 7], upto=5))
    assert pool.lookup([7] * 6) == 5


def test_what_was_computed_with_an_adapter_is_found_by_requests_with_it_only():
    pool, keys = BlockManager(16, SIZE), [0, 1, 2, 3, 4, 5]
    (adapted,) = sequences(request(0, keys, space=7))
    assert pool.allocate(adapted) is None and pool.extend(adapted, len(keys))
    adapted.computed = len(keys)
    pool.release(adapted)
    assert [pool.lookup([*keys, 6], space) for space in (7, 0, 8)] == [6, 0, 0]
    assert [pool.num_new_blocks(keys, None, space) for space in (7, 0)] == [2, 2], "idle ones count"
    one, (other,) = sequence(keys), sequences(request(1, keys, space=7))
    assert pool.allocate(one) is None and one.computed == 0
    assert pool.allocate(other) is not None and other.computed == 5


def test_the_nearest_of_many_is_found():
    pool = BlockManager(64, SIZE)
    for first in range(1, 6):
        for second in range(1, 6):
            kept(pool, [first, second, -second, 3])
    for first in range(1, 6):
        assert pool.lookup([first, 3, -3, 9]) == 3
        assert pool.lookup([first, 9, 9, 9]) == 1
    assert pool.lookup([6, 1, 1, 1]) == 0


def test_no_copy_is_made_that_would_leave_too_little_room():
    """The source is held as long as the copy is not made; the sequence's own blocks go first."""
    pool = BlockManager(3, SIZE)
    kept(pool, [0, 1, 2, 3, 4, 5])
    one = sequence([0, 1, 2, 3, 4, 5, 6, 7, 8])  # takes all three blocks
    assert pool.lookup(one.prefix_keys[:-1]) == 4, "what `begin` will give"
    assert pool.allocate(one) is None and one.computed == 4
    assert pool.extend(one, 9)


def test_of_two_that_computed_the_same_the_second_gets_the_firsts_block():
    pool = BlockManager(8, SIZE)
    first, second = sequence(range(6)), sequence(range(6))
    for one in (first, second):
        assert pool.allocate(one) is None and pool.extend(one, 6)
    for one in (first, second):
        one.computed = 6
        pool.publish(one)
    assert first.blocks[0] == second.blocks[0] and first.blocks[1] != second.blocks[1]
    assert pool.used == 3
    pool.release(first)
    pool.release(second)
    assert pool.used == 0 and pool.free == 8 and pool.cached == 2


def test_a_prompt_is_found_to_its_end_where_it_is_noted_partly():
    pool = BlockManager(8, SIZE)
    first = computed(pool, range(6))
    assert pool.lookup(range(6)) == 4
    pool.publish(first, partly=True)
    assert pool.lookup(range(6)) == 6
    first.prefix_keys += [6, 7, 8]
    assert pool.extend(first, 9)
    first.computed = 9
    pool.publish(first)
    assert pool.lookup(range(9)) == 8, "the block is full by now"
    pool.release(first)
    assert pool.lookup(range(9)) == 9 and pool.used == 0


def test_the_least_recently_used_goes_first_and_no_beginning_before_its_end():
    pool = BlockManager(6, SIZE)
    old, new = list(range(8)), list(range(100, 108))
    kept(pool, old)
    kept(pool, new)
    assert pool.lookup(old) == 8  # and thereby used
    one = sequence([-1] * 12)
    pool.allocate(one)
    assert pool.extend(one, 12)  # two were empty: one of `new`, its end
    assert pool.lookup(new) == 4 and pool.lookup(old) == 8
    assert pool.extend(one, 20)
    assert pool.lookup(new) == 0 and pool.lookup(old) == 4
    assert pool.extend(one, 24) and not pool.extend(one, 25)
    assert pool.lookup(old) == 0, "nothing is left"


def test_what_is_held_is_never_given_away():
    pool = BlockManager(4, SIZE)
    kept(pool, range(8))
    holder = sequence([*range(8), 9])
    pool.allocate(holder)
    other = sequence([5] * 12)
    pool.allocate(other)
    assert not pool.extend(other, 12) and pool.extend(other, 8)
    assert not set(holder.blocks) & set(other.blocks)
    assert pool.lookup(range(8)) == 8


def test_needs_is_what_free_falls_by():
    pool = BlockManager(12, SIZE)
    kept(pool, range(8))
    for keys in ([*range(8), 1], [*range(8), 2, 2, 2, 2, 2], [*range(4), 7, 7], [9] * 3):
        free, one = pool.free, sequence(keys)
        needed = pool.num_new_blocks(keys)
        copy = pool.allocate(one)
        assert pool.extend(one, len(keys))
        if copy is not None:
            pool.copied(copy)
        assert free - pool.free == needed


def test_nothing_of_a_failed_sequence_is_found_again():
    pool = BlockManager(8, SIZE)
    kept(pool, [*range(4), 50, 50, 50, 50])
    failed = computed(pool, range(10))
    blocks = list(failed.blocks)
    pool.release(failed, keep=False)
    assert pool.lookup(range(10)) == 0 and pool.lookup([*range(4), 50]) == 0, "nor what was computed behind it"
    assert pool.cached == 0 and pool.free == 8
    assert set(pool.take_blocks_to_zero()) > set(blocks) and pool.take_blocks_to_zero() == []


def test_what_a_failed_sequence_shared_is_cleared_once_the_others_are_gone():
    pool = BlockManager(8, SIZE)
    failed = computed(pool, range(9))
    other = sequence([*range(8), 77])
    pool.allocate(other)
    pool.extend(other, 9)
    shared, own = other.blocks[:2], failed.blocks[2]
    pool.release(failed, keep=False)
    assert pool.take_blocks_to_zero() == [own], "the others are in use"
    other.computed = 9
    pool.publish(other)
    assert pool.lookup([*range(8), 77]) == 0, "what follows suspect blocks is suspect"
    last = other.blocks[2]
    pool.release(other)
    assert sorted(pool.take_blocks_to_zero()) == sorted([*shared, last])
    assert pool.lookup([*range(8), 77]) == 0 and pool.free == 8


def test_one_that_only_began_as_a_failed_one_does_is_not_affected():
    pool = BlockManager(8, SIZE)
    kept(pool, [9, 9, 9, 9, 9])
    pool.release(computed(pool, [9, 8, 7, 6, 5]), keep=False)
    assert pool.lookup([9, 9, 9, 9, 9]) == 5


OPERATIONS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1000)), max_size=80)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(OPERATIONS, st.integers(1, 4), st.integers(2, 12))
def test_whatever_happens_a_block_holds_what_it_is_found_by(operations, size, blocks):
    play = _Play(blocks, size)
    for kind, number in operations:
        (play.begin, play.begin, play.compute, play.compute, play.compute, play.extend, play.crop, play.match,
         play.keep, play.fail)[kind](number)  # fmt: skip
        play.check()
    while play.running:
        play.keep(0)
    play.check()
    assert play.pool.used == 0
    # All of the pool can still be had at once.
    one = sequence([-1] * (blocks * size))
    play.pool.allocate(one)
    assert play.pool.extend(one, blocks * size) and sorted(one.blocks) == list(range(blocks))


class _Play:
    """Operations on a pool, with a memory beside it. Keys are few, so that much is shared."""

    def __init__(self, blocks, size):
        self.pool, self.memory, self.size = BlockManager(blocks, size), Memory(blocks, size), size
        self.running = []

    def one(self, number):
        return self.running[number % len(self.running)] if self.running else None

    def clear(self):
        for block in self.pool.take_blocks_to_zero():
            self.memory.held[block] = [0] * self.size

    def begin(self, number):
        keys = [number >> bit & 1 for bit in range(1 + number % 11)]
        one, needed = sequence(keys), self.pool.num_new_blocks(keys)
        if needed > self.pool.free:
            return
        promised, free = self.pool.lookup(keys[:-1]), self.pool.free
        copy = self.pool.allocate(one)
        assert one.computed == promised < len(keys)
        assert self.pool.extend(one, len(keys))
        self.clear()
        if copy is not None:
            self.memory.copy(copy)
            self.pool.copied(copy)
        assert free - self.pool.free == needed
        self.running.append(one)

    def compute(self, number):
        one = self.one(number)
        if one is None or not self.pool.extend(one, len(one.prefix_keys)):
            return
        self.clear()
        count = 1 + number % one.num_uncomputed
        self.memory.compute(one, one.computed, count)
        one.computed += count
        self.pool.publish(one, partly=number % 3 == 0)
        if one.num_uncomputed == 0:
            one.prefix_keys.append(number % 2)

    def extend(self, number):
        one = self.one(number)
        if one is not None:
            before, free = list(one.blocks), self.pool.free
            wanted = len(one.prefix_keys) + number % 7
            more = max(-(-wanted // self.size) - len(before), 0)
            assert self.pool.extend(one, wanted) == (more <= free)
            assert one.blocks[: len(before)] == before
            assert len(one.blocks) == len(before) + (more if more <= free else 0)

    def crop(self, number):
        one = self.one(number)
        if one is not None:
            self.pool.trim(one, len(one.prefix_keys))
            assert len(one.blocks) <= -(-len(one.prefix_keys) // self.size)

    def match(self, number):
        self.pool.lookup([number >> bit & 1 for bit in range(number % 11)])

    def keep(self, number):
        one = self.one(number)
        if one is not None:
            self.running.remove(one)
            self.pool.release(one)

    def fail(self, number):
        one = self.one(number)
        if one is not None:
            self.running.remove(one)
            keys = one.prefix_keys[: max(one.computed, 1)]
            self.pool.release(one, keep=False)
            whole = len(keys) // self.size * self.size
            assert self.pool.lookup(keys) < max(whole, 1) or not whole

    def check(self):
        pool = self.pool
        assert pool.used + pool.free == pool.blocks and pool.cached <= pool.free
        assert pool.used == len({block for one in self.running for block in one.blocks})
        for one in self.running:
            states = self.memory.states(one.prefix_keys)[: one.computed]
            assert self.memory.read(one.blocks, one.computed) == states
            assert len(set(one.blocks)) == len(one.blocks)


def test_many_beginnings_alike_are_found_quickly():
    """The time for a look-up does not grow with what begins alike: 2,000 sequences that differ in their second key."""
    pool = BlockManager(4000, SIZE)
    for number in range(2000):
        kept(pool, [1, number, 1, 1])
    started = time.perf_counter()
    for number in range(1000):
        assert pool.lookup([1, 2 * number, 1, 2]) == 3
    assert time.perf_counter() - started < 0.5  # 0.01 s measured; a look at each would take seconds
