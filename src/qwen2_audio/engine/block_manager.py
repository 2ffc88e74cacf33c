"""Blocks of the KV cache: shared by content, reference-counted, evicted least recently used first.

    system  <clip>  question a      blocks 4, 0, 7       a trie of blocks: each is found by what stands in it and by
    system  <clip>  question b      blocks 4, 0, 2       everything before it

Plain ints. A block is in use (by sequences, or as the source of a copy that is not made yet), or idle (its content can
be looked up, nobody uses it), or empty. Content is compared key by key, so nothing is shared by mistake; and each
adapter has a trie of its own (`space`), since under another one the same keys have other content. Every call costs
O(blocks it touches).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Sequence as Keys
from dataclasses import dataclass, field

from .request import Sequence


@dataclass(frozen=True)
class BlockCopy:
    """Copy the content of block `source` into block `target`."""

    source: int
    target: int


@dataclass(eq=False)
class _Node:
    """A published block: its keys (fewer than fit, if its sequence ended in it), which follow its parents' keys."""

    block: int
    keys: tuple[int, ...]
    parent: _Node | None
    depth: int  # blocks down to this one
    children: dict[tuple[int, ...], _Node] = field(default_factory=dict)
    sorted: list[tuple[int, ...]] = field(default_factory=list)  # the children's keys
    lost: bool = False  # no longer published, nor anything that follows it

    def nearest(self, keys: tuple[int, ...]) -> tuple[_Node, int] | None:
        """The child with the longest common prefix with `keys`, and its length; None where no child shares a key."""
        at = bisect_left(self.sorted, keys)  # in sorted order, the longest common prefix is next to it
        neighbours = self.sorted[max(at - 1, 0) : at + 1]
        best = max(neighbours, key=lambda child_keys: common_prefix(child_keys, keys), default=())
        length = common_prefix(best, keys)
        return (self.children[best], length) if length else None


class BlockManager:
    """`blocks` blocks of `size` positions."""

    def __init__(self, blocks: int, size: int) -> None:
        self.blocks, self.size = blocks, size
        self._empty = list(range(blocks - 1, -1, -1))
        self._users = [0] * blocks
        self._node: dict[int, _Node] = {}  # of published blocks
        self._roots: dict[int, _Node] = {}  # by space
        self._tips: dict[Sequence, _Node] = {}  # of each sequence with blocks: its last full published block
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently used first, no parent before its children
        self._poisoned: set[int] = set()  # to be zeroed once nobody uses them
        self._blocks_to_zero: list[int] = []

    @property
    def free(self) -> int:
        """Blocks that can be allocated now."""
        return len(self._empty) + len(self._idle)

    @property
    def used(self) -> int:
        """Blocks in use: `blocks` less `free`."""
        return self.blocks - self.free

    @property
    def cached(self) -> int:
        """Idle blocks: not in use, their content can be looked up."""
        return len(self._idle)

    def lookup(self, keys: Keys[int], space: int = 0) -> int:
        """Positions of `keys` that are cached now, for a sequence with one more key; they become most recently used."""
        chain, part = self._find(keys, len(keys) + 1, space)
        for node in ([part[0]] if part else []) + chain[::-1]:
            if node.block in self._idle:
                self._idle.move_to_end(node.block)
        return len(chain) * self.size + (part[1] if part else 0)

    def num_new_blocks(self, keys: Keys[int], cacheable: int | None = None, space: int = 0) -> int:
        """How much `free` falls once a sequence with these keys is allocated and extended to all of them.

        `cacheable`: how many of them may be cached ones; None: all but the last.
        """
        shared = keys[: len(keys) - 1 if cacheable is None else cacheable]
        in_use = sum(self._users[node.block] > 0 for node in self._chain(shared, space))
        return self._count(len(keys)) - in_use

    def allocate(self, sequence: Sequence) -> BlockCopy | None:
        """Give a sequence without blocks the cached blocks of its longest prefix, up to `cacheable` positions. One
        position at least stays uncomputed.

        Sets `computed`, and `cached` if it never ran. If a cached block matches only in part, a new block is taken and
        returned as the copy's target: the caller copies before the next pass and then calls `copied`; until then the
        source stays in use. That happens only if all keys of the sequence still fit, so that `extend` to them succeeds
        whenever it would have without the copy.
        """
        assert not sequence.blocks and sequence not in self._tips
        space = sequence.request.space
        chain, part = self._find(sequence.prefix_keys[: sequence.cacheable], len(sequence.prefix_keys), space)
        for node in chain:
            self._acquire(node.block)
        sequence.blocks = [node.block for node in chain]
        sequence.computed = len(chain) * self.size
        self._tips[sequence] = chain[-1] if chain else self._root(space)
        copy = None
        if part is not None:
            source, length = part
            self._acquire(source.block)  # first, or `_take` might evict it
            copy = BlockCopy(source.block, self._take())
            sequence.blocks.append(copy.target)
            sequence.computed += length
        if not sequence.begun:
            sequence.cached = sequence.computed
        return copy

    def copied(self, copy: BlockCopy) -> None:
        """The caller has filled the target. Call it once for each copy."""
        self._release_block(copy.source)

    def extend(self, sequence: Sequence, positions: int) -> bool:
        """Make room for `positions` positions in all. False, and nothing done, where too few blocks are free."""
        more = self._count(positions) - len(sequence.blocks)
        if more <= 0:
            return True
        if more > self.free:
            return False
        for _ in range(more):
            sequence.blocks.append(self._take())
        return True

    def trim(self, sequence: Sequence, positions: int) -> None:
        """Release the blocks that lie wholly behind the first `positions` (at least `computed`)."""
        assert positions >= sequence.computed
        keep = self._count(positions)
        while len(sequence.blocks) > keep:
            self._release_block(sequence.blocks.pop())

    def publish(self, sequence: Sequence, *, partly: bool = False) -> None:
        """Let others look up the blocks that are full up to `computed`; with `partly`, also the one that is not full.

        If a full block's content is published already, the sequence gets that block in place of its own.
        """
        tip, size = self._tips[sequence], self.size
        if not partly and sequence.computed < (tip.depth + 1) * size:
            return  # as after most decode steps
        while not tip.lost and (tip.depth + 1) * size <= sequence.computed:
            index = tip.depth
            own = sequence.blocks[index]
            if own in self._node:  # published when it held less
                self._unpublish(self._node[own])
            keys = tuple(sequence.prefix_keys[index * size : (index + 1) * size])
            known = tip.children.get(keys)
            if known is not None:
                self._acquire(known.block)
                sequence.blocks[index] = known.block
                self._release_block(own)
            tip = self._tips[sequence] = known or self._add(tip, own, keys)
        rest = tuple(sequence.prefix_keys[tip.depth * size : sequence.computed]) if partly and not tip.lost else ()
        near = tip.nearest(rest)
        if rest and (near is None or near[1] < len(rest)):
            own = sequence.blocks[tip.depth]
            if own in self._node:
                self._unpublish(self._node[own])
            self._add(tip, own, rest)

    def release(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Release all blocks of a sequence; `computed` becomes 0. What was computed can be looked up until eviction.

        keep=False (its logits were NaN, say): its blocks, and what was computed from them, are never looked up again,
        whoever uses them; they come up in `take_blocks_to_zero` as soon as nobody does.
        """
        tip = self._tips.get(sequence)
        if tip is None:
            return
        if keep and not tip.lost:
            self.publish(sequence, partly=True)
        else:
            self._poison(sequence)
        for block in reversed(sequence.blocks):  # so that the first block is evicted last
            self._release_block(block)
        del self._tips[sequence]
        sequence.blocks, sequence.computed = [], 0

    def take_blocks_to_zero(self) -> list[int]:
        """Blocks that may hold NaN; the caller zeroes them before the next copy or pass. Each is returned once."""
        blocks, self._blocks_to_zero = self._blocks_to_zero, []
        return blocks

    # -- inside

    def _count(self, positions: int) -> int:
        return -(-positions // self.size)

    def _root(self, space: int) -> _Node:
        """Where the trie of a space begins."""
        root = self._roots.get(space)
        if root is None:
            root = self._roots[space] = _Node(-1, (), None, 0)
        return root

    def _chain(self, keys: Keys[int], space: int) -> list[_Node]:
        """The full published blocks that `keys` start with."""
        chain, node = [], self._root(space)
        for at in range(0, len(keys) - self.size + 1, self.size):
            child = node.children.get(tuple(keys[at : at + self.size]))
            if child is None:
                break
            chain.append(child)
            node = child
        return chain

    def _find(self, keys: Keys[int], total: int, space: int) -> tuple[list[_Node], tuple[_Node, int] | None]:
        """The full published blocks that `keys` start with; a block that continues as the rest does, and how far.

        The latter only if its copy, itself and all other blocks of `total` positions fit.
        """
        chain = self._chain(keys, space)
        at = len(chain) * self.size
        part = (chain[-1] if chain else self._root(space)).nearest(tuple(keys[at : at + self.size]))
        if part is not None:
            idle = sum(node.block in self._idle for node in (*chain, part[0]))
            if self._count(total) - len(chain) > self.free - idle:
                part = None
        return chain, part

    def _add(self, parent: _Node, block: int, keys: tuple[int, ...]) -> _Node:
        node = self._node[block] = parent.children[keys] = _Node(block, keys, parent, parent.depth + 1)
        insort(parent.sorted, keys)
        return node

    def _unpublish(self, node: _Node) -> list[int]:
        """Unpublish a block and all that follow it; returns them. Those that are not in use become empty."""
        parent = node.parent
        assert parent is not None
        del parent.children[node.keys], parent.sorted[bisect_left(parent.sorted, node.keys)]
        pending, blocks = [node], []
        while pending:
            lost = pending.pop()
            pending += lost.children.values()
            lost.lost = True
            del self._node[lost.block]
            blocks.append(lost.block)
            if lost.block in self._idle:
                del self._idle[lost.block]
                self._empty.append(lost.block)
        return blocks

    def _poison(self, sequence: Sequence) -> None:
        """Unpublish all blocks of `sequence`, and have them zeroed before their next use."""
        bad = set(sequence.blocks)
        for block in sequence.blocks:  # the first takes the others along, except one published in part
            if block in self._node:
                bad.update(self._unpublish(self._node[block]))
        for block in bad:
            if self._users[block]:
                self._poisoned.add(block)
            else:
                self._blocks_to_zero.append(block)

    def _take(self) -> int:
        """An empty block, in use once; the caller knows that there is one."""
        if not self._empty:
            self._unpublish(self._node[next(iter(self._idle))])
        block = self._empty.pop()
        self._users[block] = 1
        return block

    def _acquire(self, block: int) -> None:
        self._users[block] += 1
        self._idle.pop(block, None)

    def _release_block(self, block: int) -> None:
        self._users[block] -= 1
        if self._users[block]:
            return
        if block in self._node:
            self._idle[block] = None
            return
        self._empty.append(block)
        if block in self._poisoned:
            self._poisoned.remove(block)
            self._blocks_to_zero.append(block)


def common_prefix(first: Keys[int], second: Keys[int]) -> int:
    """Length of the common prefix of two lists."""
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))
