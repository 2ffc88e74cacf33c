"""Who runs, and what the next step computes. Plain ints and lists.

    waiting (by order) --admitted--> running: prefill ... decode --removed--> gone
                       <--sent back--        (no block is left, and somebody else goes first)

A running sequence holds blocks for all of its known tokens; each decode asks for one more position.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import BusyError, CapacityError
from .block_manager import BlockPool, Copy
from .request import Request, Sequence

AHEAD = 4  # sequences that are asked for being ready though there is no room, so that their sounds are encoded by then
EVEN = 4  # one part in this many of what prefill gets is divided evenly
PREFILL = 8  # the share of a step that prefill gets however many decode: one part in this many


@dataclass(frozen=True)
class Limits:
    """What a step and the engine may take on."""

    step_tokens: int = 512  # new positions a step. Decodes all go; prefill gets what they leave, an eighth at least
    sequences: int = 32  # running at a time
    waiting: int = 1024


@dataclass(slots=True)
class Part:
    """Compute positions start .. start + count - 1 of a sequence, guesses behind its known ones included."""

    sequence: Sequence
    start: int
    count: int

    @property
    def last(self) -> bool:
        """The known tokens end here: a token is to be drawn. Until the sequence has taken it."""
        return self.start + self.count >= len(self.sequence.keys)


@dataclass(frozen=True)
class Plan:
    """One step."""

    decodes: list[Part] = field(default_factory=list)
    prefills: list[Part] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)  # to be made before anything is computed
    preempted: list[Sequence] = field(default_factory=list)


class Scheduler:
    """Plans steps over a BlockPool.

    Who goes first is `Sequence.order`. Nobody starves: the first in order is never sent back for another, who waits is
    overtaken (by its own priority) only while it is not ready, and each that runs gets at least a position a step, the
    first `step_tokens` / 8 of those in prefill.
    """

    def __init__(
        self, pool: BlockPool, limits: Limits, ready: Callable[[Sequence], bool] = lambda sequence: True
    ) -> None:
        """`ready`: whether a waiting sequence can be computed yet. At most `limits.sequences` that hear something and
        are not ready are asked a step; those without clips behind them are not held up."""
        self.pool, self.limits, self._ready = pool, limits, ready
        self._waiting: list[Sequence] = []  # by order
        self._running: list[Sequence] = []  # by order
        self._firsts: dict[Request, Sequence] = {}  # answer 0 of each request, while it is here

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def check(self, request: Request) -> None:
        """Raises CapacityError: there will never be room for this request; BusyError: too many are here.

        Too many: more answers than may run and wait together, as who has just come waits for the next step.
        """
        room, answers = self.pool.blocks * self.pool.size, request.params.n
        if len(request.keys) + request.most > room:
            raise CapacityError(
                f"The request takes {len(request.keys)} positions and up to {request.most} new ones, and the KV cache "
                f"holds {room}; shorten it, ask for fewer tokens, or give the engine more memory (kv_tokens)."
            )
        most, here = self.limits.waiting + self.limits.sequences, len(self._waiting) + len(self._running)
        if answers > most:
            raise CapacityError(f"The request wants n={answers} answers, and {most} may be under way; ask for fewer.")
        if here + answers > most:
            raise BusyError(
                f"{here} answers are running or waiting already, {most} may, and the request wants {answers}; try "
                "again later."
            )

    def add(self, sequence: Sequence) -> None:
        """Put a sequence in line."""
        insort(self._waiting, sequence, key=_order)
        if sequence.index == 0:
            self._firsts[sequence.request] = sequence

    def remove(self, sequence: Sequence, *, keep: bool = True) -> None:
        """It is finished: out of every line, its blocks given back (`keep`: findable by content)."""
        for line in (self._running, self._waiting):
            if sequence in line:
                line.remove(sequence)
        if self._firsts.get(sequence.request) is sequence:
            del self._firsts[sequence.request]
        self.pool.release(sequence, keep=keep)

    def send_back(self, sequence: Sequence) -> None:
        """Out of the running and in line again; it will be computed anew, but for what the cache still has."""
        self._running.remove(sequence)
        self.pool.release(sequence)
        sequence.guesses = []
        insort(self._waiting, sequence, key=_order)

    def plan(self) -> Plan:
        """The next step. Sequences in it have the blocks it needs."""
        preempted = self._make_room()
        decodes = self._decodes()
        most = self.limits.step_tokens
        budget = max(most - sum(part.count for part in decodes), most // PREFILL, 1)
        behind = len(self._running) - len(decodes)
        copies = [] if preempted else self._admit(budget - behind)  # a position at least for each
        return Plan(decodes, self._prefills(budget, decodes), copies, preempted)

    def ran(self, plan: Plan) -> None:
        """A plan's passes are done: known tokens count as computed, full blocks become findable."""
        for part in (*plan.decodes, *plan.prefills):
            sequence, request = part.sequence, part.sequence.request
            if not sequence.blocks:  # it has left meanwhile
                continue
            sequence.begun = True
            sequence.computed = min(part.start + part.count, len(sequence.keys))
            prompt = sequence.computed == len(request.keys)
            self.pool.note(sequence, partly=prompt and sequence.index == 0 and request.params.n > 1)

    def accepted(self, sequence: Sequence, guesses: int) -> None:
        """So many of the guesses that were computed were right, and are known tokens now, with one more behind them."""
        if sequence.blocks:
            sequence.computed += guesses
            self.pool.crop(sequence, len(sequence.keys))

    def _make_room(self) -> list[Sequence]:
        """A block for each decode that needs one, taken from those that run last: whom it was taken from."""
        preempted: list[Sequence] = []
        place = 0
        while place < len(self._running):
            sequence = self._running[place]
            full = len(sequence.keys) > len(sequence.blocks) * self.pool.size
            if full and sequence.decoding and not self.pool.extend(sequence, len(sequence.keys)):
                preempted.append(self._running[-1])
                self.send_back(preempted[-1])  # itself, where it is the last: then the loop ends
            else:
                place += 1
        return preempted

    def _decodes(self) -> list[Part]:
        """All that decode, with as many of their guesses as fit the step and the blocks that are left."""
        decoding = [one for one in self._running if one.decoding]
        spare = max(self.limits.step_tokens - len(decoding), 0)
        for sequence in decoding:
            if not sequence.guesses:
                continue
            known = len(sequence.keys)
            del sequence.guesses[spare:]
            if not self.pool.extend(sequence, known + len(sequence.guesses)):
                del sequence.guesses[len(sequence.blocks) * self.pool.size - known :]
            spare -= len(sequence.guesses)
        return [Part(one, one.computed, 1 + len(one.guesses)) for one in decoding]

    def _admit(self, most: int) -> list[Copy]:
        """Those in line, in order, while there is room. Who is not ready is passed over; who does not fit ends it."""
        copies: list[Copy] = []
        room, unready, ahead = True, 0, AHEAD
        for sequence in self._waiting.copy():
            hears = bool(sequence.request.prompt.clips)
            if (hears and unready >= self.limits.sequences) or not self._may_begin(sequence):
                continue
            room = room and most > 0 and len(self._running) < self.limits.sequences
            ahead -= not room
            if not self._ready(sequence):
                unready += 1
            elif room and self._fits(sequence):
                copies += self._start(sequence)
                most -= 1
            else:
                room = False
            if not ahead:
                break
        return copies

    def _may_begin(self, sequence: Sequence) -> bool:
        """Later answers of a request wait until the first has its prompt computed, which they then share."""
        first = self._firsts.get(sequence.request)
        return sequence is first or first is None or first.computed >= len(sequence.request.keys)

    def _fits(self, sequence: Sequence) -> bool:
        """Blocks for all of its keys, and then one for each that runs, which it will ask for next."""
        return self.pool.needs(sequence.keys) + len(self._running) <= self.pool.free

    def _start(self, sequence: Sequence) -> list[Copy]:
        copy = self.pool.begin(sequence)
        fits = self.pool.extend(sequence, len(sequence.keys))
        assert fits, "_fits said so"
        self._waiting.remove(sequence)
        insort(self._running, sequence, key=_order)
        return [] if copy is None else [copy]

    def _prefills(self, budget: int, decodes: list[Part]) -> list[Part]:
        """Whoever else runs; also who came back and has but one position left. Of the same priority, who is nearest to
        its first token goes before the others: who asks briefly does not wait for who asks at length."""
        if len(decodes) == len(self._running):
            return []
        planned = {part.sequence for part in decodes}
        behind = [one for one in self._running if one not in planned][:budget]
        behind.sort(key=lambda one: (one.request.priority, one.left))
        shares = share_out(budget, [one.left for one in behind])
        return [Part(one, one.computed, share) for one, share in zip(behind, shares, strict=True)]


def share_out(budget: int, needs: list[int]) -> list[int]:
    """Shares of `budget`, for each of `needs` no more than it is: a part in `EVEN` goes to all alike, at least 1 to
    each (`budget` is no less than they are); the rest to the first, then to the second, and so on."""
    shares = [min(need, max(budget // (EVEN * len(needs)), 1)) for need in needs]
    rest = budget - sum(shares)
    for place, need in enumerate(needs):
        more = min(need - shares[place], rest)
        shares[place] += more
        rest -= more
    return shares


def _order(sequence: Sequence) -> tuple[int, int, int]:
    return sequence.order
