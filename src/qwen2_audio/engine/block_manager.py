"""Which block of the KV cache holds what: shared by content, counted, the least recently used given away first.

    system  <clip>  question a      blocks 4, 0, 7       a trie of blocks: each is found by what stands in it and by
    system  <clip>  question b      blocks 4, 0, 2       everything before it

Plain ints. A block is held (by sequences, or by a copy that is not made yet), or idle (findable, held by nobody), or
empty. Content is compared key by key, so nothing is ever shared by mistake. Every call costs O(blocks it touches).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Sequence as Keys
from dataclasses import dataclass, field

from .request import Sequence


@dataclass(frozen=True)
class Copy:
    """Fill block `target` with what block `source` holds."""

    source: int
    target: int


@dataclass(eq=False)
class _Node:
    """A findable block: its keys (fewer than fit, if its sequence ended in it), behind those of its parents."""

    block: int
    keys: tuple[int, ...]
    parent: _Node | None
    depth: int  # blocks down to this one
    children: dict[tuple[int, ...], _Node] = field(default_factory=dict)
    sorted: list[tuple[int, ...]] = field(default_factory=list)  # the children's keys
    lost: bool = False  # not findable any more, nor anything behind it

    def nearest(self, keys: tuple[int, ...]) -> tuple[_Node, int] | None:
        """The child that begins most as `keys` do, and for how many keys; None where none has even the first."""
        at = bisect_left(self.sorted, keys)  # in sorted order, what begins most alike stands next to it
        found = max(self.sorted[max(at - 1, 0) : at + 1], key=lambda one: _common(one, keys), default=())
        length = _common(found, keys)
        return (self.children[found], length) if length else None


class BlockPool:
    """`blocks` blocks of `size` positions."""

    def __init__(self, blocks: int, size: int) -> None:
        self.blocks, self.size = blocks, size
        self._empty = list(range(blocks - 1, -1, -1))
        self._holders = [0] * blocks
        self._node: dict[int, _Node] = {}  # of findable blocks
        self._root = _Node(-1, (), None, 0)
        self._tips: dict[Sequence, _Node] = {}  # of each sequence that began: its last full block that was noted
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently used first, no parent before its children
        self._suspect: set[int] = set()  # to be cleared once nobody holds them
        self._spoiled: list[int] = []  # to be cleared

    @property
    def free(self) -> int:
        """Blocks that can be had now."""
        return len(self._empty) + len(self._idle)

    @property
    def used(self) -> int:
        """Blocks that somebody holds: `blocks` less `free`."""
        return self.blocks - self.free

    @property
    def cached(self) -> int:
        """Blocks that nobody holds and whose content can be found."""
        return len(self._idle)

    def match(self, keys: Keys[int]) -> int:
        """Positions of `keys` that a sequence with one more key would find now; they count as used just now."""
        chain, part = self._find(keys)
        for node in ([part[0]] if part else []) + chain[::-1]:
            if node.block in self._idle:
                self._idle.move_to_end(node.block)
        return len(chain) * self.size + (part[1] if part else 0)

    def needs(self, keys: Keys[int]) -> int:
        """How much less `free` there is once a sequence with these keys has begun and has blocks for all of them."""
        held = sum(self._holders[node.block] > 0 for node in self._chain(keys[:-1]))
        return self._count(len(keys)) - held

    def begin(self, sequence: Sequence) -> Copy | None:
        """Give a sequence without blocks those that hold the longest beginning of its keys, one position left over.

        Sets `computed`, and `cached` where it never ran. Where a block holds only the beginning of what is needed, a
        new one is taken, and the caller must copy before the next pass and tell so by `copied`: until then the source
        stays. That is done only where all of the sequence's keys still fit; so `extend` to them works if it would have.
        """
        assert not sequence.blocks and sequence not in self._tips
        chain, part = self._find(sequence.keys[:-1])
        for node in chain:
            self._hold(node.block)
        sequence.blocks = [node.block for node in chain]
        sequence.computed = len(chain) * self.size
        self._tips[sequence] = chain[-1] if chain else self._root
        copy = None
        if part is not None:
            source, length = part
            self._hold(source.block)  # first, or it might be the one that is taken
            copy = Copy(source.block, self._take())
            sequence.blocks.append(copy.target)
            sequence.computed += length
        if not sequence.begun:
            sequence.cached = sequence.computed
        return copy

    def copied(self, copy: Copy) -> None:
        """The caller has filled the target; once for each Copy."""
        self._let_go(copy.source)

    def extend(self, sequence: Sequence, positions: int) -> bool:
        """Blocks for `positions` positions in all; False, and nothing done, where there are too few."""
        more = self._count(positions) - len(sequence.blocks)
        if more <= 0:
            return True
        if more > self.free:
            return False
        for _ in range(more):
            sequence.blocks.append(self._take())
        return True

    def crop(self, sequence: Sequence, positions: int) -> None:
        """Give back the blocks that lie wholly behind `positions`, which are the computed ones at least."""
        assert positions >= sequence.computed
        keep = self._count(positions)
        while len(sequence.blocks) > keep:
            self._let_go(sequence.blocks.pop())

    def note(self, sequence: Sequence, *, partly: bool = False) -> None:
        """Blocks that are full up to `computed` become findable; with `partly`, the one behind them as far as it is.

        Where a full one's content is known already, the sequence gets the known block in place of its own.
        """
        tip, size = self._tips[sequence], self.size
        if not partly and sequence.computed < (tip.depth + 1) * size:
            return  # as after most decode steps
        while not tip.lost and (tip.depth + 1) * size <= sequence.computed:
            place = tip.depth
            own = sequence.blocks[place]
            if own in self._node:  # it was noted when it held less
                self._forget(self._node[own])
            keys = tuple(sequence.keys[place * size : (place + 1) * size])
            known = tip.children.get(keys)
            if known is not None:
                self._hold(known.block)
                sequence.blocks[place] = known.block
                self._let_go(own)
            tip = self._tips[sequence] = known or self._add(tip, own, keys)
        rest = tuple(sequence.keys[tip.depth * size : sequence.computed]) if partly and not tip.lost else ()
        near = tip.nearest(rest)
        if rest and (near is None or near[1] < len(rest)):
            own = sequence.blocks[tip.depth]
            if own in self._node:
                self._forget(self._node[own])
            self._add(tip, own, rest)

    def release(self, sequence: Sequence, *, keep: bool = True) -> None:
        """All blocks of a sequence, `computed` 0. What was computed stays findable until it is given away.

        keep=False (it met NaN, say): nothing that it held, nor anything that was computed behind that, will be found
        again, by whomever it is held; such blocks come up in `take_spoiled` as soon as nobody holds them.
        """
        tip = self._tips.get(sequence)
        if tip is None:
            return
        if keep and not tip.lost:
            self.note(sequence, partly=True)
        else:
            self._spoil(sequence, tip)
        for block in reversed(sequence.blocks):  # the beginning is used last, so that it is given away last
            self._let_go(block)
        del self._tips[sequence]
        sequence.blocks, sequence.computed = [], 0

    def take_spoiled(self) -> list[int]:
        """Blocks that may hold NaN, to be filled with zeros before the next copy or pass. Each is told once."""
        spoiled, self._spoiled = self._spoiled, []
        return spoiled

    # -- inside

    def _count(self, positions: int) -> int:
        return -(-positions // self.size)

    def _chain(self, keys: Keys[int]) -> list[_Node]:
        """The full blocks that `keys` begin with."""
        chain, node = [], self._root
        for at in range(0, len(keys) - self.size + 1, self.size):
            child = node.children.get(tuple(keys[at : at + self.size]))
            if child is None:
                break
            chain.append(child)
            node = child
        return chain

    def _find(self, keys: Keys[int]) -> tuple[list[_Node], tuple[_Node, int] | None]:
        """The full blocks that `keys` begin with; one that goes on as the rest does, and for how many positions.

        The latter only if there is room for its copy, itself, and whatever else `keys` and one more need.
        """
        chain = self._chain(keys)
        at = len(chain) * self.size
        part = (chain[-1] if chain else self._root).nearest(tuple(keys[at : at + self.size]))
        if part is not None:
            idle = sum(node.block in self._idle for node in (*chain, part[0]))
            if self._count(len(keys) + 1) - len(chain) > self.free - idle:
                part = None
        return chain, part

    def _add(self, parent: _Node, block: int, keys: tuple[int, ...]) -> _Node:
        node = self._node[block] = parent.children[keys] = _Node(block, keys, parent, parent.depth + 1)
        insort(parent.sorted, keys)
        return node

    def _forget(self, node: _Node) -> list[int]:
        """It and all behind it are findable no more: their blocks. Those that nobody holds become empty."""
        parent = node.parent
        assert parent is not None
        del parent.children[node.keys], parent.sorted[bisect_left(parent.sorted, node.keys)]
        below, blocks = [node], []
        while below:
            one = below.pop()
            below += one.children.values()
            one.lost = True
            del self._node[one.block]
            blocks.append(one.block)
            if one.block in self._idle:
                del self._idle[one.block]
                self._empty.append(one.block)
        return blocks

    def _spoil(self, sequence: Sequence, tip: _Node) -> None:
        """Nothing that `sequence` holds may be found, or be used again as it is."""
        bad = set(sequence.blocks)
        for block in sequence.blocks:  # the first of them takes the others along, but for one noted partly
            if block in self._node:
                bad.update(self._forget(self._node[block]))
        for block in bad:
            if self._holders[block]:
                self._suspect.add(block)
            else:
                self._spoiled.append(block)

    def _take(self) -> int:
        """A block with nothing in it, held once; there is one."""
        if not self._empty:
            self._forget(self._node[next(iter(self._idle))])
        block = self._empty.pop()
        self._holders[block] = 1
        return block

    def _hold(self, block: int) -> None:
        self._holders[block] += 1
        self._idle.pop(block, None)

    def _let_go(self, block: int) -> None:
        self._holders[block] -= 1
        if self._holders[block]:
            return
        if block in self._node:
            self._idle[block] = None
            return
        self._empty.append(block)
        if block in self._suspect:
            self._suspect.remove(block)
            self._spoiled.append(block)


def _common(one: Keys[int], other: Keys[int]) -> int:
    """How many keys two lists begin with in common."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))
