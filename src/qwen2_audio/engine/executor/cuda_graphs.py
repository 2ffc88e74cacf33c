"""Decode steps of fixed shape, which a CUDA graph replays: on a GPU, launching a step's kernels one by one can take
longer than running them.

    tokens, places, tables --one copy--> inputs [S, 2 + n] --step--> logits [S, V], chosen [S, 2] --one copy--> ints

S and n, the blocks of a sequence, are rounded up to a bucket each, and every pair of buckets has a graph of its own.
Rows that stand for nobody write to the scratch block. `step` is ordinary torch code; only `Capture` needs a GPU.

S sequences with one new position each, n blocks of a sequence, V vocabulary.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from ...distributed.tensor_parallel import tensor_parallel_group
from ...model.paged import DecodeBatch, PagedStorage
from ...quantize.linear import QuantizedLayer
from .forward_batch import Packed

SMALL_BATCHES = (1, 2, 4, 8)
BATCH = 8  # larger ones are multiples of it
LEAST_BLOCKS = 4  # of a sequence: 128 positions
GRAPHS = 48  # kept; the least recently used one goes first
WARM_UPS = 2  # runs before a capture: libraries make their workspaces, caches of constants fill

Run = Callable[[], object]

logger = logging.getLogger(__name__)


def batch_bucket(count: int) -> int:
    """Rows of a step for `count` sequences: 1, 2, 4, 8, 16, 24, 32, ..."""
    small = next((size for size in SMALL_BATCHES if size >= count), None)
    return small or -(-count // BATCH) * BATCH


def context_bucket(blocks: int) -> int:
    """Blocks of each sequence in a step: 4, 6, 8, 12, 16, 24, 32, 48, ... so that at most a third are read in vain."""
    size = LEAST_BLOCKS
    while size < blocks:
        if size * 3 // 2 >= blocks:
            return size * 3 // 2
        size *= 2
    return size


def obstacle(model: Any, storage: PagedStorage) -> str | None:
    """Why no step of `model` over `storage` can have a fixed shape; None: nothing speaks against it."""
    text = model.language_model
    if type(storage) is not PagedStorage or storage.key_scales:
        return "the KV cache is one that native kernels read"
    if tensor_parallel_group(model) is not None:
        return "several processes share the model"
    if any(isinstance(module, QuantizedLayer) for module in text.modules()):
        return "weights are quantised, and unpacked in every step"
    if text.training:
        return "the model is in training mode"
    return None


def has_fixed_shape(packed: Packed) -> bool:
    """Every sequence has one new position, and wants to know what comes behind it: no prompts, no guesses."""
    return all(count == 1 for count in packed.counts) and all(count == 1 for count in packed.wanted)


@dataclass(frozen=True, eq=False)
class Buffers:
    """What a step reads and writes, in tensors that stay where they are."""

    host: torch.Tensor  # int64 [S, 2 + n] on the CPU, pinned where there is a GPU
    inputs: torch.Tensor  # the same on the device: a row is token, place, blocks
    logits: torch.Tensor  # float32 [S, V]
    chosen: torch.Tensor  # int64 [S, 2]: the likeliest token, and whether its logit is a finite number


def step(model: Any, storage: PagedStorage, buffers: Buffers) -> None:
    """The pass over `inputs`. It looks at no value, makes no shape depend on one, and copies nothing from the CPU."""
    tokens, places, tables = buffers.inputs[:, 0], buffers.inputs[:, 1], buffers.inputs[:, 2:]
    out = model.language_model(
        input_ids=tokens[:, None],
        position_ids=places[:, None],
        past_key_values=DecodeBatch(storage, places, tables),
    )
    buffers.logits.copy_(out.logits[:, 0])  # to float32 on the way
    best, token = buffers.logits.max(-1)
    buffers.chosen[:, 0] = token
    buffers.chosen[:, 1] = best.isfinite()


@dataclass(frozen=True, eq=False)
class Decoded:
    """What a step found for each of its sequences; `logits` only until the next step."""

    logits: torch.Tensor  # float32 [S, V]
    greedy: list[tuple[int, bool]]  # the likeliest token, and whether its logit is a finite number

    @classmethod
    def of(cls, logits: torch.Tensor) -> Self:
        """From float32 [W, V]."""
        if not len(logits):
            return cls(logits, [])
        if logits.device.type == "cpu":  # NumPy's argmax takes a tenth of the time of torch's, and finds NaN as well
            rows = logits.numpy()
            tokens: list[int] = rows.argmax(-1).tolist()
            best = [rows.item(row, token) for row, token in enumerate(tokens)]
        else:
            best, tokens = (found.tolist() for found in logits.max(-1))
        return cls(logits, list(zip(tokens, map(math.isfinite, best), strict=True)))


class Decoder:
    """Runs the steps that can have a fixed shape."""

    def __init__(self, model: Any, storage: PagedStorage, prepare: Callable[[Run], Run] = lambda run: run) -> None:
        """`prepare`: makes of a step what does the same at each call."""
        self._model, self._storage, self._prepare = model, storage, prepare
        self._made: OrderedDict[tuple[int, int], tuple[Buffers, Run]] = OrderedDict()
        self._logits: dict[int, torch.Tensor] = {}  # by S: shared, as nobody reads those of an earlier step
        self.forget()

    @classmethod
    def of(cls, model: Any, storage: PagedStorage) -> Self | None:
        """None where it gains nothing: off the GPU."""
        return cls(model, storage, Capture(model.device)) if model.device.type == "cuda" else None

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(S, n) of the steps that are ready."""
        return list(self._made)

    def forget(self) -> None:
        """What was made for weights that are no longer the model's: a graph has their addresses."""
        self._made.clear()
        self._modules = list(self._model.language_model.modules())
        self.obstacle = obstacle(self._model, self._storage)

    def run(self, packed: Packed, tokens: Sequence[int]) -> Decoded | None:
        """The pass over `tokens` [S], none of them a clip's; None where it has to be run the ordinary way."""
        if self.obstacle is not None or not has_fixed_shape(packed) or _heard(self._modules):
            return None
        count = len(tokens)
        needed = max(packed.pasts) // self._storage.block + 1
        shape = (batch_bucket(count), context_bucket(needed))
        made = self._made.get(shape) or self._make(shape, packed, tokens)
        if made is None:
            return None
        self._made.move_to_end(shape)
        buffers, run = made
        self._fill(buffers, packed, tokens)
        run()
        chosen = buffers.chosen[:count].tolist()  # waits for the device: `host` may be written to again
        return Decoded(buffers.logits[:count], [(token, bool(finite)) for token, finite in chosen])

    def _make(self, shape: tuple[int, int], packed: Packed, tokens: Sequence[int]) -> tuple[Buffers, Run] | None:
        buffers = self._buffers(*shape)
        self._fill(buffers, packed, tokens)  # what is prepared may be run: on what will be written anyway
        try:
            made = buffers, self._prepare(lambda: step(self._model, self._storage, buffers))
        except RuntimeError as error:  # of CUDA: answers come without graphs too, only later
            logger.warning("CUDA graphs are off, since a decode step could not be captured: %s", error)
            self.obstacle = f"a step could not be captured ({error})"
            self._made.clear()
            return None
        self._made[shape] = made
        while len(self._made) > GRAPHS:
            self._made.popitem(last=False)
        return made

    def _buffers(self, rows: int, blocks: int) -> Buffers:
        device = self._model.device
        host = torch.zeros(rows, 2 + blocks, dtype=torch.int64, pin_memory=device.type == "cuda")
        if rows not in self._logits:
            self._logits[rows] = torch.zeros(rows, self._model.config.text_config.vocab_size, device=device)
        chosen = torch.zeros(rows, 2, dtype=torch.int64, device=device)
        return Buffers(host, torch.zeros_like(host, device=device, pin_memory=False), self._logits[rows], chosen)

    def _fill(self, buffers: Buffers, packed: Packed, tokens: Sequence[int]) -> None:
        rows, width = buffers.host.shape
        scratch, most = self._storage.scratch, width - 2
        made = []
        for token, past, table in zip(tokens, packed.pasts, packed.tables, strict=True):
            made.append([token, past, *table[:most], *[table[-1]] * (most - len(table))])
        made += [[0, 0, *[scratch] * most]] * (rows - len(made))
        buffers.host.copy_(torch.tensor(made))
        buffers.inputs.copy_(buffers.host, non_blocking=True)


class Capture:
    """Makes CUDA graphs of steps. Has never run on a GPU.

    All of them take their memory from one pool: they run one after another, and what is kept lies in `Buffers`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def __call__(self, run: Run) -> Run:
        with torch.cuda.device(self._device):
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for _ in range(WARM_UPS):
                    run()
            here.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # What other threads do meanwhile (they make log-mels) is their own affair.
            with torch.cuda.graph(graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"):
                run()
        return graph.replay


def _heard(modules: Iterable[nn.Module]) -> bool:
    """Whether somebody listens through hooks, which a graph would not call."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)
