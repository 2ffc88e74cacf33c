"""Random histories of a Scheduler over a BlockManager, played against a cache that remembers what was written where.

In place of keys and values a position holds the number of everything up to it: two positions have equal ones only if
all keys from the start are equal. So a block that is shared, copied, kept or given away wrongly shows in the next pass.

Run as a script: `python histories.py FIRST_MESSAGE LAST` plays the histories of these seeds.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from itertools import pairwise

from qwen2_audio.engine.adapters import LoadedAdapter
from qwen2_audio.engine.block_manager import BlockManager
from qwen2_audio.engine.request import Request, RequestHandle, Sequence
from qwen2_audio.engine.scheduler import (
    EVEN_SHARE,
    PREFILL_SHARE,
    Limits,
    ScheduledSequence,
    Scheduler,
    SchedulerOutput,
)
from qwen2_audio.errors import CapacityError
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.types import SamplingParams


def request(number, keys, most=8, *, n=1, priority=0, clips=0, space=0):
    """A request for a scheduler: its clips are none that anybody could hear. `space`: its adapter's number."""
    prompt = Prompt(list(keys), [None] * clips, [0] * clips, ())
    handle = RequestHandle(n, lambda handle: None)
    made = Request(number, prompt, list(keys), SamplingParams(n=n), handle, most, "length", priority=priority)
    if space:
        made.adapter = LoadedAdapter(f"adapter {space}", space, {}, {}, ())
    return made


def sequences(asked):
    return [Sequence(asked, index, list(asked.prefix_keys)) for index in range(asked.params.n)]


class Memory:
    """What a cache of `blocks` blocks of `size` positions would hold: 0 is nothing."""

    def __init__(self, blocks, size):
        self.size = size
        self.held = [[0] * size for _ in range(blocks)]
        self._numbers = {}

    def states(self, keys, space=0):
        """For each position the number that stands for the adapter and all keys up to it."""
        made, before = [], -space
        for key in keys:
            before = self._numbers.setdefault((before, key), len(self._numbers) + 1)
            made.append(before)
        return made

    def copy(self, copy):
        self.held[copy.target] = list(self.held[copy.source])

    def read(self, blocks, positions):
        return [self.held[blocks[at // self.size]][at % self.size] for at in range(positions)]

    def compute(self, sequence, start, count):
        """Write positions, having seen all before them."""
        states = self.states([*sequence.prefix_keys, *sequence.draft_token_ids], sequence.request.space)
        assert self.read(sequence.blocks, start) == states[:start], "another content than the sequence's"
        for at in range(start, start + count):
            self.held[sequence.blocks[at // self.size]][at % self.size] = states[at]


class History:
    """One seed's requests, cancellations, failures and guesses, until all are finished."""

    def __init__(self, seed):
        self.rng = rng = random.Random(seed)
        self.size = rng.choice((1, 2, 3, 4, 8))
        blocks = rng.randint(3, 24)
        self.limits = Limits(rng.choice((1, 2, 5, 16, 64)), rng.randint(1, 6), rng.randint(1, 12))
        self.pool, self.memory = BlockManager(blocks, self.size), Memory(blocks, self.size)
        self.unready = {}  # sequence -> steps until it is ready
        self.scheduler = Scheduler(self.pool, self.limits, lambda one: self.unready.get(one, 0) <= 0)
        self.here = []  # sequences under way
        self.answered = {}  # tokens of each
        self.beginnings = [self.keys(rng.randint(1, 3 * self.size)) for _ in range(3)]
        self.requests, self.happened = 0, Counter()

    def keys(self, count):
        return [self.rng.choice((1, 2, 3, -7)) for _ in range(count)]

    def play(self):
        """Returns how often what happened."""
        arrivals = self.rng.randint(1, 12)
        for _ in range(4000):
            if arrivals and (not self.here or self.rng.random() < 0.4):
                arrivals -= 1
                self.arrive()
            if not self.here and not arrivals:
                break
            self.leave()
            self.step()
            self.happened["steps"] += 1
        assert not self.here, f"{len(self.here)} sequences never finish"
        assert self.scheduler.num_waiting == self.scheduler.num_running == self.pool.used == 0
        return self.happened

    def arrive(self):
        rng = self.rng
        keys = [*rng.choice(self.beginnings), *self.keys(rng.randint(0, 3 * self.size))]
        asked = request(
            self.requests, keys, rng.randint(1, 12), n=rng.choice((1, 1, 1, 2, 3)), priority=rng.choice((0, 0, 0, 1)),
            clips=rng.randint(0, 1), space=rng.choice((0, 0, 1, 2)),
        )  # fmt: skip
        try:
            self.scheduler.check_capacity(asked)
        except CapacityError:
            self.happened["refused"] += 1
            return
        self.requests += 1
        self.beginnings.append(keys)
        late = rng.choice((0, 0, 2, 9)) if asked.prompt.clips else 0
        for one in sequences(asked):
            self.unready[one] = late
            self.here.append(one)
            self.answered[one] = 0
            self.scheduler.add(one)

    def leave(self):
        """Now and then somebody cancels, or fails."""
        if self.here and self.rng.random() < 0.03:
            self.end(self.rng.choice(self.here), keep=self.rng.random() < 0.7)

    def end(self, one, keep=True):
        self.here.remove(one)
        self.scheduler.remove(one, keep=keep)
        assert not one.blocks
        self.happened["kept" if keep else "failed"] += 1

    def step(self):
        for one in self.here:
            self.unready[one] -= 1
            if one.decoding and self.rng.random() < 0.3:
                one.draft_token_ids = self.keys(self.rng.randint(1, 4))
        before = set(self.running)
        plan = self.scheduler.schedule()
        self.check_plan(plan, before)
        for block in self.pool.take_blocks_to_zero():
            self.memory.held[block] = [0] * self.size
        for copy in plan.copies:
            self.memory.copy(copy)
            self.pool.copied(copy)
        self.check_blocks()
        parts = [*plan.decodes, *plan.prefills]
        for part in parts:
            self.memory.compute(part.sequence, part.start, part.count)
        self.scheduler.mark_computed(plan)
        self.check_blocks()
        for part in parts:
            if part.last:
                self.draw(part)
        self.happened["copied"] += len(plan.copies)
        self.happened["preempted"] += len(plan.preempted)

    def draw(self, part):
        """A token, and more where guesses were right."""
        one, guesses = part.sequence, part.sequence.draft_token_ids
        one.draft_token_ids = []
        right = self.rng.randint(0, min(len(guesses), one.request.max_new_tokens - self.answered[one] - 1))
        one.prefix_keys += [*guesses[:right], *self.keys(1)]
        self.answered[one] += right + 1
        self.scheduler.accept_drafts(one, right)
        self.happened["guessed right"] += right
        assert one.num_uncomputed == 1
        if self.answered[one] == one.request.max_new_tokens:
            self.end(one)

    @property
    def running(self):
        return [one for one in self.here if one.blocks]

    # -- what must hold

    def check_plan(self, plan, before):
        after = set(self.running)
        parts = [*plan.decodes, *plan.prefills]
        assert len({part.sequence for part in parts}) == len(parts), "a sequence is computed twice"
        assert {part.sequence for part in parts} <= after
        for part in parts:
            self.check_part(part)
        assert {part.sequence for part in plan.decodes} == {one for one in after & before if one.decoding}
        assert len(after) == self.scheduler.num_running <= self.limits.max_num_seqs
        assert len(self.here) == len(after) + self.scheduler.num_waiting
        assert all(one.computed == 0 and not one.draft_token_ids for one in self.here if one not in after)
        self.check_order(plan, before, after)
        self.check_shares(plan, after)
        assert parts or plan.preempted or not self.candidates(after), "a step for nothing"

    def check_part(self, part):
        one = part.sequence
        assert isinstance(part, ScheduledSequence) and part.count >= 1
        assert part.start == one.computed < len(one.prefix_keys)
        assert part.start + part.count <= len(one.prefix_keys) + (len(one.draft_token_ids) if one.decoding else 0)
        assert part.start + part.count <= len(one.blocks) * self.size
        assert len(one.blocks) * self.size >= len(one.prefix_keys), "a running sequence has room for all that is known"

    def check_order(self, plan: SchedulerOutput, before, after):
        for gone in plan.preempted:
            assert gone in before and gone not in after
            assert all(one.order < gone.order for one in after), "sent back for one behind it"
        admitted = after - before
        assert not (admitted and plan.preempted)
        assert all(self.may_begin(one) for one in admitted)
        may = self.candidates(after)
        if admitted and may:
            assert max(one.order for one in admitted) < min(one.order for one in may), "overtaken"

    def candidates(self, after):
        """Who waits and could begin, if there were room."""
        waiting = [one for one in self.here if one not in after and self.unready[one] <= 0]
        waiting = [one for one in waiting if self.may_begin(one) and not self.unasked(one, after)]
        return [one for one in waiting if not any(self.shares_prefill(one, other) for other in after)]

    def shares_prefill(self, one, other):
        """`other` is about to compute positions that `one` begins with, too: it may wait for them."""
        keys = other.request.prefix_keys
        if other.computed >= len(keys) or one.prefix_keys[: self.size] != other.prefix_keys[: self.size]:
            return False
        pairs = enumerate(zip(one.prefix_keys, other.prefix_keys, strict=False))
        shared = next((at for at, (mine, theirs) in pairs if mine != theirs), len(one.prefix_keys) - 1)
        return other.computed < min(-(-shared // self.size) * self.size, len(keys))

    def may_begin(self, one):
        """It is the first answer of its request, or that one's prompt is computed, or that one is gone."""
        first = next((other for other in self.here if other.request is one.request and not other.index), one)
        return first is one or first.computed >= len(one.request.prefix_keys)

    def unasked(self, one, after):
        """It hears something, and so many in front of it are not ready that it is not even asked."""
        unready = [other for other in self.here if other not in after and self.unready[other] > 0]
        return one.request.prompt.clips and sum(a.order < one.order for a in unready) >= self.limits.max_num_seqs

    def check_shares(self, plan, after):
        decoded = sum(part.count for part in plan.decodes)
        most = self.limits.max_num_batched_tokens
        budget = max(most - decoded, most // PREFILL_SHARE, 1)
        shares = sum(part.count for part in plan.prefills)
        behind = after - {part.sequence for part in plan.decodes}
        needed = sum(one.num_uncomputed for one in behind)
        assert shares == min(budget, needed), "room is left though somebody needs it, or more is done than may be"
        ranked = sorted(plan.prefills, key=lambda part: (part.sequence.request.priority, part.sequence.num_uncomputed))
        even = max(budget // (EVEN_SHARE * len(ranked)), 1) if ranked else 0
        assert all(part.count >= min(even, part.sequence.num_uncomputed) for part in ranked), "somebody gets too little"
        unfilled = next((i for i, part in enumerate(ranked) if part.count < part.sequence.num_uncomputed), len(ranked))
        assert all(part.count <= even for part in ranked[unfilled + 1 :]), "more, though one before is not done"
        in_order = sorted(behind, key=lambda one: one.order)
        assert {part.sequence for part in plan.prefills} == set(in_order[:budget])

    def check_blocks(self):
        holders = {}
        for one in self.running:
            assert len(set(one.blocks)) == len(one.blocks)
            for place, block in enumerate(one.blocks):
                holders.setdefault(block, []).append((place, one))
        assert self.pool.used == len(holders), "held by nobody and not free, or held and free"
        assert self.pool.used + self.pool.free == self.pool.blocks
        assert 0 <= self.pool.cached <= self.pool.free
        for shared in holders.values():
            for (place, one), (other_place, other) in pairwise(shared):
                end = (place + 1) * self.size
                assert place == other_place and one.prefix_keys[:end] == other.prefix_keys[:end], (
                    "shared, and not equal"
                )
                assert end <= min(one.computed, other.computed), "shared, and still written to"


def play(first, last):
    """The histories of seeds first .. last - 1. Returns how often what happened in all of them."""
    happened = Counter()
    for seed in range(first, last):
        try:
            happened += History(seed).play()
        except Exception as error:
            raise AssertionError(f"History {seed}: {error!r}") from error
    return happened


if __name__ == "__main__":
    print(dict(play(*map(int, sys.argv[1:]))))
