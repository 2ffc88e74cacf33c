"""Which block of the KV cache holds what: shared by content, counted, the least recently used given away first.

    system  <clip>  question a      blocks 4, 0, 7       a trie of blocks: each is found by what stands in it and by
    system  <clip>  question b      blocks 4, 0, 2       everything before it

Plain ints. A block is held by sequences (counted), or findable and held by nobody, or empty.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
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
    children: dict[tuple[int, ...], _Node] = field(default_factory=dict)


class BlockPool:
    """`blocks` blocks of `size` positions."""

    def __init__(self, blocks: int, size: int) -> None:
        self.blocks, self.size = blocks, size
        self._empty = list(range(blocks - 1, -1, -1))
        self._held = [0] * blocks  # how many hold a block
        self._node: dict[int, _Node] = {}  # of findable blocks
        self._root = _Node(-1, (), None)
        self._chains: dict[
            Sequence, tuple[int, _Node]
        ] = {}  # a place in each, and the node before it: noted up to there
        self._idle: OrderedDict[int, None] = OrderedDict()  # findable, held by nobody; least recently used first

    @property
    def free(self) -> int:
        """Blocks that can be had now."""
        return len(self._empty) + len(self._idle)

    @property
    def used(self) -> int:
        """Blocks that somebody holds."""
        return self.blocks - self.free

    @property
    def cached(self) -> int:
        """Blocks that nobody holds and whose content can be found."""
        return len(self._idle)

    def match(self, keys: Keys[int]) -> int:
        """Positions of `keys`, from the first on, whose keys and values are held."""
        nodes, part = self._find(keys)
        return len(nodes) * self.size + (part[1] if part else 0)

    def begin(self, sequence: Sequence) -> Copy | None:
        """Give a sequence without blocks those that hold the longest beginning of its keys, one position left over.

        Sets `computed`. Where a block holds only the beginning of what is needed, a new one is taken, and the caller
        must copy (`copied` tells that it has): until then the source stays.
        """
        assert not sequence.blocks
        nodes, part = self._find(sequence.keys[:-1])
        for node in nodes:
            self._hold(node.block)
        sequence.blocks = [node.block for node in nodes]
        sequence.computed = len(nodes) * self.size
        if part is None or not self.free - (part[0].block in self._idle):
            return None
        source, length = part
        self._hold(source.block)  # before a block is taken, which could be this one
        copy = Copy(source.block, self._take())
        sequence.blocks.append(copy.target)
        sequence.computed += length
        return copy

    def copied(self, copy: Copy) -> None:
        """The caller has filled the target."""
        self._let_go(copy.source)

    def extend(self, sequence: Sequence, positions: int) -> bool:
        """Blocks for `positions` positions in all; False, and nothing done, where there are too few."""
        more = -(-positions // self.size) - len(sequence.blocks)
        if more > self.free:
            return False
        sequence.blocks += [self._take() for _ in range(more)]
        return True

    def crop(self, sequence: Sequence, positions: int) -> None:
        """Give back the blocks that lie wholly behind `positions`."""
        keep = -(-positions // self.size)
        for block in sequence.blocks[keep:]:
            self._let_go(block)
        del sequence.blocks[keep:]

    def note(self, sequence: Sequence, *, partly: bool = False) -> None:
        """What is computed becomes findable: full blocks, and with `partly` the one that is not.

        Where another block has the same content already, that one stays the findable one.
        """
        size = self.size
        first, parent = self._chains.get(sequence, (0, self._root))
        if parent is not self._root and self._node.get(parent.block) is not parent:
            first, parent = 0, self._root  # another's block, which has been given away since
        for place, block in enumerate(sequence.blocks[first:], first):
            keys = tuple(sequence.keys[place * size : min((place + 1) * size, sequence.computed)])
            if not keys or (len(keys) < size and not partly):
                return
            if len(keys) == size:
                self._chains[sequence] = (place, parent)
            node = self._node.get(block)
            if node is not None and node.parent is parent and node.keys == keys:
                parent = node
                continue
            known = parent.children.get(keys)
            if known is None:
                if node is not None:  # it held less when it was noted, or what stood in it is gone
                    self._forget(node)
                known = self._node[block] = parent.children[keys] = _Node(block, keys, parent)
            parent = known

    def release(self, sequence: Sequence, *, keep: bool = True) -> None:
        """All blocks of a sequence. What is computed stays findable; with `keep` false, not what it alone holds."""
        if keep:
            self.note(sequence, partly=True)
        for block in reversed(sequence.blocks):  # the beginning is used last, so that it is given away last
            if not keep and self._held[block] == 1 and block in self._node:
                self._forget(self._node[block])
            self._let_go(block)
        self._chains.pop(sequence, None)
        sequence.blocks, sequence.computed = [], 0

    def alone(self, sequence: Sequence) -> list[int]:
        """The blocks that nobody else holds."""
        return [block for block in sequence.blocks if self._held[block] == 1]

    # -- inside

    def _find(self, keys: Keys[int]) -> tuple[list[_Node], tuple[_Node, int] | None]:
        """The full blocks that `keys` begin with, and one that goes on like the rest for so many positions."""
        nodes: list[_Node] = []
        node, at = self._root, 0
        while (child := node.children.get(tuple(keys[at : at + self.size]))) is not None and len(
            child.keys
        ) == self.size:
            nodes.append(child)
            node, at = child, at + self.size
        rest = keys[at : at + self.size]
        begins = [child for child in node.children.values() if rest and child.keys[0] == rest[0]]
        best = max(begins, key=lambda child: _common(child.keys, rest), default=None)
        for found in nodes:
            if found.block in self._idle:
                self._idle.move_to_end(found.block)
        return nodes, None if best is None else (best, _common(best.keys, rest))

    def _take(self) -> int:
        """A block with nothing in it, held once; there is one."""
        if self._empty:
            block = self._empty.pop()
        else:
            block = next(iter(self._idle))
            self._forget(self._node[block])
            self._empty.remove(block)
        self._held[block] = 1
        return block

    def _hold(self, block: int) -> None:
        self._held[block] += 1
        self._idle.pop(block, None)

    def _let_go(self, block: int) -> None:
        self._held[block] -= 1
        if self._held[block]:
            return
        if block in self._node:
            self._idle[block] = None
        else:
            self._empty.append(block)

    def _forget(self, node: _Node) -> None:
        """Nobody will find a block any more, nor those behind it: they would have no beginning."""
        for one in [node, *_below(node)]:
            del self._node[one.block]
            if self._idle.pop(one.block, 0) is None:
                self._empty.append(one.block)
        assert node.parent is not None
        del node.parent.children[node.keys]


def _below(node: _Node) -> Iterable[_Node]:
    for child in node.children.values():
        yield child
        yield from _below(child)


def _common(one: Keys[int], other: Keys[int]) -> int:
    """How many keys two lists begin with in common."""
    length = min(len(one), len(other))
    return next((i for i in range(length) if one[i] != other[i]), length)
