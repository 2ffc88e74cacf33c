"""Who runs, and what the next step computes. Plain ints and lists.

waiting (by order) --admitted--> running: prefill ... decode --removed--> gone
                   <--sent back--        (no block is left, and somebody else goes first)
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import CapacityError
from .blocks import BlockPool, Copy
from .request import Request, Sequence


@dataclass(frozen=True)
class Limits:
    """What a step and the engine may take on."""

    step_tokens: int = 512  # new positions a step, but for decodes, which all go
    sequences: int = 32  # running at a time
    waiting: int = 1024


@dataclass(frozen=True)
class Part:
    """Compute positions start .. start + count - 1 of a sequence, guesses behind its known ones included."""

    sequence: Sequence
    start: int
    count: int


@dataclass
class Plan:
    """One step."""

    decodes: list[Part] = field(default_factory=list)
    prefills: list[Part] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)  # to be made before anything is computed
    preempted: list[Sequence] = field(default_factory=list)


class Scheduler:
    """Plans steps over a BlockPool. `ready(sequence)`: whether it can be computed yet; others overtake it meanwhile."""

    def __init__(
        self, pool: BlockPool, limits: Limits, ready: Callable[[Sequence], bool] = lambda sequence: True
    ) -> None:
        self.pool, self.limits, self._ready = pool, limits, ready
        self._waiting: list[Sequence] = []  # by order
        self._running: list[Sequence] = []  # by order

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def check(self, request: Request) -> None:
        """Raises CapacityError: there will never be room for this request, or too many wait."""
        positions = len(request.keys) + request.most
        if -(-positions // self.pool.size) + 1 > self.pool.blocks:  # one more: a beginning found is copied into it
            raise CapacityError(
                f"The request takes {len(request.keys)} positions and up to {request.most} new ones, and the KV cache "
                f"holds {(self.pool.blocks - 1) * self.pool.size}; shorten it, ask for fewer tokens, or give the "
                "engine more memory (kv_tokens)."
            )
        if len(self._waiting) + request.params.n > self.limits.waiting:
            raise CapacityError(f"{len(self._waiting)} answers are waiting already, as many as may; try again later.")

    def add(self, sequence: Sequence) -> None:
        """Put a sequence in line."""
        insort(self._waiting, sequence, key=lambda one: one.order)

    def remove(self, sequence: Sequence, *, keep: bool = True) -> None:
        """It is finished: out of every line, its blocks given back (`keep`: findable by content)."""
        for line in (self._running, self._waiting):
            if sequence in line:
                line.remove(sequence)
        self.pool.release(sequence, keep=keep)

    def send_back(self, sequence: Sequence) -> None:
        """Out of the running and in line again; it will be computed anew, but for what the cache still has."""
        self._running.remove(sequence)
        self.pool.release(sequence)
        sequence.guesses = []
        self.add(sequence)

    def plan(self) -> Plan:
        """The next step. Sequences in it have the blocks it needs."""
        plan = Plan()
        self._plan_decodes(plan)
        self._admit(plan)
        self._plan_prefills(plan)
        return plan

    def ran(self, plan: Plan) -> None:
        """A plan's passes are done: known tokens count as computed, full blocks become findable."""
        for part in (*plan.decodes, *plan.prefills):
            sequence = part.sequence
            if sequence.blocks:
                sequence.computed = min(part.start + part.count, len(sequence.keys))
                self.pool.note(sequence, partly=sequence.request.params.n > 1)

    def accepted(self, sequence: Sequence, guesses: int) -> None:
        """So many of the guesses that were computed were right, and are known tokens now."""
        sequence.computed += guesses
        self.pool.crop(sequence, sequence.computed)

    def _plan_decodes(self, plan: Plan) -> None:
        for sequence in list(self._running):
            if sequence.left != 1 or sequence not in self._running:
                continue
            if self._room(sequence, len(sequence.keys), plan):
                wanted = len(sequence.keys) + len(sequence.guesses)
                if not self.pool.extend(sequence, wanted):
                    sequence.guesses = []
                plan.decodes.append(Part(sequence, sequence.computed, 1 + len(sequence.guesses)))
        plan.decodes = [part for part in plan.decodes if part.sequence in self._running]

    def _room(self, sequence: Sequence, positions: int, plan: Plan) -> bool:
        """Blocks for so many positions, taken from those last in order if need be; else the sequence goes back."""
        while not self.pool.extend(sequence, positions):
            last = self._running[-1]
            plan.preempted.append(last)
            self.send_back(last)
            if last is sequence:
                return False
        return True

    def _admit(self, plan: Plan) -> None:
        """Those in line, in order, while there is room. Who is not ready is passed over; who does not fit ends it."""
        if plan.preempted:
            return
        budget = self.limits.step_tokens
        for sequence in list(self._waiting):
            if len(self._running) >= self.limits.sequences or budget <= 0:
                return
            if not self._may_begin(sequence) or not self._ready(sequence):
                continue
            spare = len(self._running)  # a block for each that runs: what it will ask for next
            needed = -(-len(sequence.keys) // self.pool.size) + 1
            if needed + spare > self.pool.free and self._running:
                return
            copy = self.pool.begin(sequence)
            if copy is not None:
                plan.copies.append(copy)
            room = self.pool.extend(sequence, len(sequence.keys))
            assert room
            self._waiting.remove(sequence)
            insort(self._running, sequence, key=lambda one: one.order)
            if not sequence.begun:
                sequence.begun, sequence.cached = True, sequence.computed
            budget -= sequence.left

    def _may_begin(self, sequence: Sequence) -> bool:
        """Later answers of a request wait until the first has its prompt computed, which they then share."""
        request = sequence.request
        return sequence.index == 0 or all(
            one.request is not request or one.index or one.computed >= len(request.keys)
            for one in (*self._running, *self._waiting)
        )

    def _plan_prefills(self, plan: Plan) -> None:
        """What decodes leave of the step, in even shares: who needs less leaves the rest to the others."""
        decoding = {part.sequence for part in plan.decodes}
        behind = sorted(
            (one for one in self._running if one not in decoding and one.left), key=lambda one: (one.left, one.order)
        )
        budget = max(self.limits.step_tokens - len(decoding), 1)
        for place, sequence in enumerate(behind):
            count = min(sequence.left, max(budget // (len(behind) - place), 1))
            if budget <= 0:
                return
            plan.prefills.append(Part(sequence, sequence.computed, count))
            budget -= count
