"""Which sequences run, and what the next step computes. Plain ints and lists.

    waiting (in order) --admitted--> running: prefill ... decode --removed--> gone
                       <--preempted--     (no block is free, and another sequence goes first)

A running sequence has blocks for all of its known tokens; each decode step needs one more position.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import BusyError, CapacityError
from .block_manager import BlockCopy, BlockManager, common_prefix
from .request import Request, Sequence

LOOK_AHEAD = 4  # sequences without room that are asked whether they are ready, so that their clips are encoded by then
EVEN_SHARE = 4  # a quarter of the prefill budget is divided evenly
PREFILL_SHARE = 8  # prefill gets at least an eighth of a step, however many sequences decode
LOGITS_ROWS = 128  # of prompts' log-probabilities in a step, all sequences together: 80 MB of 156,032 logits each
FEWEST_POSITIONS, MOST_POSITIONS = 32, 1024  # of a step whose size is learnt


@dataclass(frozen=True)
class Limits:
    """What a step and the engine may take on."""

    max_num_batched_tokens: int = 512  # new positions a step: all decodes, the rest is prefill, at least an eighth
    max_num_seqs: int = 32  # running at a time
    max_waiting: int = 1024


@dataclass(slots=True)
class ScheduledSequence:
    """Compute positions start .. start + count - 1 of a sequence, draft tokens behind its known ones included."""

    sequence: Sequence
    start: int
    count: int

    @property
    def last(self) -> bool:
        """The known tokens end here, so that the next token is sampled. Valid until the sequence has taken it."""
        return self.start + self.count >= len(self.sequence.prefix_keys)


@dataclass(frozen=True)
class SchedulerOutput:
    """One step."""

    decodes: list[ScheduledSequence] = field(default_factory=list)
    prefills: list[ScheduledSequence] = field(default_factory=list)
    copies: list[BlockCopy] = field(default_factory=list)  # to be made before anything is computed
    preempted: list[Sequence] = field(default_factory=list)

    @property
    def scheduled(self) -> list[ScheduledSequence]:
        return [*self.decodes, *self.prefills]


class StepSizeController:
    """Learns how many positions a pass of about `seconds` computes on this machine.

    Attribute `tokens`: that number, or always `fixed` where it is given.
    """

    def __init__(self, seconds: float, fixed: int | None = None) -> None:
        self.tokens = fixed or 128
        self._seconds, self._learns = seconds, fixed is None

    def learn(self, positions: int, seconds: float) -> None:
        """A pass of `positions` positions took `seconds`. Small passes are ignored: their cost is mostly overhead."""
        if self._learns and positions >= FEWEST_POSITIONS:
            wanted = positions * self._seconds / seconds
            self.tokens = round(min(max(0.5 * (self.tokens + wanted), FEWEST_POSITIONS), MOST_POSITIONS))


class Scheduler:
    """Schedules steps over a BlockManager, in the order of `Sequence.order`.

    Starvation-free: the first sequence is never preempted; a waiting sequence is overtaken (within its own priority)
    only while its clips are being encoded; each running sequence gets at least one position a step, of those in prefill
    the first `max_num_batched_tokens` / 8.
    """

    def __init__(
        self, block_manager: BlockManager, limits: Limits, ready: Callable[[Sequence], bool] = lambda sequence: True
    ) -> None:
        """`ready`: whether a waiting sequence can be computed yet. In a step, at most `limits.max_num_seqs` sequences
        with clips that are not ready are asked; sequences without clips behind them are not held up."""
        self.block_manager, self.limits, self._ready = block_manager, limits, ready
        self._waiting: list[Sequence] = []  # in order
        self._running: list[Sequence] = []  # in order
        self._firsts: dict[Request, Sequence] = {}  # answer 0 of each request, while it waits or runs

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    def check_capacity(self, request: Request) -> None:
        """Raises CapacityError where the request can never fit, BusyError where too many are here already.

        A new request waits for the next step, so waiting and running ones together may be as many as both limits allow.
        """
        positions, answers = self.block_manager.blocks * self.block_manager.size, request.params.n
        if len(request.prefix_keys) + request.max_new_tokens > positions:
            raise CapacityError(
                f"The request takes {len(request.prefix_keys)} positions and up to {request.max_new_tokens} new ones, "
                f"and the KV cache holds {positions}; shorten it, ask for fewer tokens, or give the engine more memory "
                "(kv_tokens)."
            )
        limit = self.limits.max_waiting + self.limits.max_num_seqs
        present = len(self._waiting) + len(self._running)
        if answers > limit:
            raise CapacityError(f"The request wants n={answers} answers, and {limit} may be under way; ask for fewer.")
        if present + answers > limit:
            raise BusyError(
                f"{present} answers are running or waiting already, {limit} may, and the request wants {answers}; try "
                "again later."
            )

    def add(self, sequence: Sequence) -> None:
        """Put a sequence in line."""
        insort(self._waiting, sequence, key=_order)
        if sequence.index == 0:
            self._firsts[sequence.request] = sequence

    def remove(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Remove a finished sequence and release its blocks (`keep`: their content can be looked up)."""
        for line in (self._running, self._waiting):
            if sequence in line:
                line.remove(sequence)
        if self._firsts.get(sequence.request) is sequence:
            del self._firsts[sequence.request]
        self.block_manager.release(sequence, keep=keep)

    def preempt(self, sequence: Sequence) -> None:
        """Put a running sequence back in line. It will be computed again, except for what is still cached."""
        self._running.remove(sequence)
        self.block_manager.release(sequence)
        sequence.draft_token_ids = []
        insort(self._waiting, sequence, key=_order)

    def schedule(self) -> SchedulerOutput:
        """The next step. Its sequences have the blocks they need."""
        preempted = self._preempt_for_decodes()
        decodes = self._schedule_decodes()
        max_tokens = self.limits.max_num_batched_tokens
        decode_tokens = sum(scheduled.count for scheduled in decodes)
        budget = max(max_tokens - decode_tokens, max_tokens // PREFILL_SHARE, 1)
        in_prefill = len(self._running) - len(decodes)
        copies = [] if preempted else self._admit(budget - in_prefill)  # each needs at least one position
        return SchedulerOutput(decodes, self._schedule_prefills(budget, decodes), copies, preempted)

    def mark_computed(self, output: SchedulerOutput) -> None:
        """The passes of `output` are done: known tokens count as computed, full blocks are published."""
        for scheduled in output.scheduled:
            sequence, request = scheduled.sequence, scheduled.sequence.request
            if not sequence.blocks:  # it was removed meanwhile
                continue
            sequence.begun = True
            sequence.computed = min(scheduled.start + scheduled.count, len(sequence.prefix_keys))
            at_prompt_end = sequence.computed == len(request.prefix_keys)
            self.block_manager.publish(sequence, partly=at_prompt_end and sequence.index == 0)

    def accept_drafts(self, sequence: Sequence, num_accepted: int) -> None:
        """`num_accepted` draft tokens were right: they are known and computed; one more known token follows them."""
        if sequence.blocks:
            sequence.computed += num_accepted
            self.block_manager.trim(sequence, len(sequence.prefix_keys))

    def _preempt_for_decodes(self) -> list[Sequence]:
        """Give a block to each decode that needs one; the last running sequences are preempted for it. Returns them."""
        preempted: list[Sequence] = []
        index = 0
        while index < len(self._running):
            sequence = self._running[index]
            full = len(sequence.prefix_keys) > len(sequence.blocks) * self.block_manager.size
            if full and sequence.decoding and not self.block_manager.extend(sequence, len(sequence.prefix_keys)):
                preempted.append(self._running[-1])
                self.preempt(preempted[-1])  # itself, if it is the last: then the loop ends
            else:
                index += 1
        return preempted

    def _schedule_decodes(self) -> list[ScheduledSequence]:
        """All decoding sequences, with as many of their draft tokens as the step and the free blocks allow."""
        decoding = [sequence for sequence in self._running if sequence.decoding]
        spare = max(self.limits.max_num_batched_tokens - len(decoding), 0)
        for sequence in decoding:
            if not sequence.draft_token_ids:
                continue
            known = len(sequence.prefix_keys)
            del sequence.draft_token_ids[spare:]
            if not self.block_manager.extend(sequence, known + len(sequence.draft_token_ids)):
                del sequence.draft_token_ids[len(sequence.blocks) * self.block_manager.size - known :]
            spare -= len(sequence.draft_token_ids)
        return [
            ScheduledSequence(sequence, sequence.computed, 1 + len(sequence.draft_token_ids)) for sequence in decoding
        ]

    def _admit(self, budget: int) -> list[BlockCopy]:
        """Start waiting sequences in order while there is room. A sequence that is not ready is passed over; one that
        does not fit ends the search."""
        copies: list[BlockCopy] = []
        has_room, unready, look_ahead = True, 0, LOOK_AHEAD
        for sequence in self._waiting.copy():
            has_clips = bool(sequence.request.prompt.clips)
            if (has_clips and unready >= self.limits.max_num_seqs) or not self._may_start(sequence):
                continue
            has_room = has_room and budget > 0 and len(self._running) < self.limits.max_num_seqs
            look_ahead -= not has_room
            if not self._ready(sequence):
                unready += 1
            elif self._prefix_is_coming(sequence):
                pass  # it needs no encoder, and is no reason to ask fewer of those behind it
            elif has_room and self._fits(sequence):
                copies += self._start(sequence)
                budget -= 1
            else:
                has_room = False
            if not look_ahead:
                break
        return copies

    def _prefix_is_coming(self, sequence: Sequence) -> bool:
        """A running prefill is about to compute positions that this sequence shares and that are not computed yet.

        Waiting for them costs no step: the same positions would be computed twice otherwise.
        """
        size, keys, space = self.block_manager.size, sequence.prefix_keys, sequence.request.space
        for other in self._running:
            prompt_end = len(other.request.prefix_keys)
            if other.computed >= prompt_end or other.prefix_keys[:size] != keys[:size]:
                continue
            if other.request.space != space:
                continue
            shared = min(common_prefix(other.prefix_keys, keys), sequence.cacheable)
            shared_end = min(
                -(-shared // size) * size, prompt_end
            )  # its block is published when it is full, or at the end
            if other.computed < shared_end and self.block_manager.lookup(keys[: sequence.cacheable], space) < shared:
                return True
        return False

    def _may_start(self, sequence: Sequence) -> bool:
        """Later answers of a request wait until the first has computed the prompt, which they then share."""
        first = self._firsts.get(sequence.request)
        return sequence is first or first is None or first.computed >= len(sequence.request.prefix_keys)

    def _fits(self, sequence: Sequence) -> bool:
        """There are blocks for all of its keys, and then one for each running sequence, which it will need next."""
        keys, space = sequence.prefix_keys, sequence.request.space
        more = self.block_manager.num_new_blocks(keys, sequence.cacheable, space)
        return more + len(self._running) <= self.block_manager.free

    def _start(self, sequence: Sequence) -> list[BlockCopy]:
        copy = self.block_manager.allocate(sequence)
        fits = self.block_manager.extend(sequence, len(sequence.prefix_keys))
        assert fits, "_fits was true"
        self._waiting.remove(sequence)
        insort(self._running, sequence, key=_order)
        return [] if copy is None else [copy]

    def _schedule_prefills(self, budget: int, decodes: list[ScheduledSequence]) -> list[ScheduledSequence]:
        """Running sequences that are not decoding, including preempted ones with one token left to recompute.

        Within a priority, the sequence with the fewest uncomputed tokens goes first: a short prompt does not wait for a
        long one.
        """
        if len(decodes) == len(self._running):
            return []
        decoding = {scheduled.sequence for scheduled in decodes}
        prefilling = [sequence for sequence in self._running if sequence not in decoding][:budget]
        prefilling.sort(key=lambda sequence: (sequence.request.priority, sequence.num_uncomputed))
        shares = share_out(budget, _most_positions(prefilling))
        return [
            ScheduledSequence(sequence, sequence.computed, share)
            for sequence, share in zip(prefilling, shares, strict=True)
        ]


def share_out(budget: int, needs: list[int]) -> list[int]:
    """Divide `budget` (at least one for each of `needs`): a quarter evenly, at least 1 each; the rest to the first need
    as far as it goes, then to the second, and so on."""
    shares = [min(need, max(budget // (EVEN_SHARE * len(needs)), 1)) for need in needs]
    rest = budget - sum(shares)
    for index, need in enumerate(needs):
        more = min(need - shares[index], rest)
        shares[index] += more
        rest -= more
    return shares


def _most_positions(sequences: list[Sequence]) -> list[int]:
    """Of the uncomputed positions of each, how many a step may compute: all of them, unless they need more rows of
    logits than there is memory for. Positions before the first such row are free."""
    wanted = [_num_rows(sequence) for sequence in sequences]
    asking = [rows for rows in wanted if rows]
    shares = iter(share_out(max(LOGITS_ROWS, len(asking)), asking))
    return [
        sequence.num_uncomputed - rows + (next(shares) if rows else 0)
        for sequence, rows in zip(sequences, wanted, strict=True)
    ]


def _num_rows(sequence: Sequence) -> int:
    """Rows of logits that are wanted of the prompt's positions which are not computed yet."""
    output = sequence.prompt_output
    if output is None or not output.with_logits:
        return 0
    return output.num_logits(sequence.computed, len(sequence.prefix_keys))


def _order(sequence: Sequence) -> tuple[int, int, int]:
    return sequence.order
