"""Decode steps of fixed shape, which a CUDA graph replays: on a GPU, launching a step's kernels one by one can take
longer than running them.

    tokens, positions, tables --one copy--> inputs [S, 2 + n] --step--> logits [S, V], chosen [S, 2] --one copy--> ints

S and n, the blocks of a sequence, are each rounded up to a bucket, and every pair of buckets has a graph of its own.
Padding rows write to the scratch block. `step` is ordinary torch code; only `Capture` needs a GPU.

S sequences with one new position each, n blocks of a sequence, V vocabulary.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from ...distributed.tensor_parallel import tensor_parallel_group
from ...model.paged import DecodeBatch, PagedStorage
from ...quantize.linear import QuantizedLayer
from ..model_interface import EngineModel
from .forward_batch import ForwardBatch, ForwardOutput

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


def reason_against_graphs(model: EngineModel, storage: PagedStorage) -> str | None:
    """Why no step of `model` over `storage` can have a fixed shape, or None where it can."""
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


def has_fixed_shape(batch: ForwardBatch) -> bool:
    """Every sequence has one new position whose logits are needed: no prefill, no draft tokens."""
    return all(count == 1 for count in batch.query_lens) and all(count == 1 for count in batch.num_logits)


@dataclass(frozen=True, eq=False)
class Buffers:
    """What a step reads and writes: tensors whose addresses do not change."""

    host: torch.Tensor  # int64 [S, 2 + n] on the CPU, pinned where there is a GPU
    inputs: torch.Tensor  # the same on the device: a row is token, position, blocks
    logits: torch.Tensor  # float32 [S, V]
    chosen: torch.Tensor  # int64 [S, 2]: the likeliest token, and whether its logit is a finite number


def step(model: EngineModel, storage: PagedStorage, buffers: Buffers) -> None:
    """The pass over `inputs`. No shape depends on a value, no value is read back, nothing is copied from the CPU."""
    tokens, positions, tables = buffers.inputs[:, 0], buffers.inputs[:, 1], buffers.inputs[:, 2:]
    out = model.language_model(
        input_ids=tokens[:, None],
        position_ids=positions[:, None],
        past_key_values=DecodeBatch(storage, positions, tables),
    )
    buffers.logits.copy_(out.logits[:, 0])  # to float32 on the way
    best, token = buffers.logits.max(-1)
    buffers.chosen[:, 0] = token
    buffers.chosen[:, 1] = best.isfinite()


class GraphRunner:
    """Runs the steps that can have a fixed shape."""

    def __init__(
        self, model: EngineModel, storage: PagedStorage, prepare: Callable[[Run], Run] = lambda run: run
    ) -> None:
        """`prepare`: turns a step into a callable that repeats it."""
        self._model, self._storage, self._prepare = model, storage, prepare
        self._graphs: OrderedDict[tuple[int, int], tuple[Buffers, Run]] = OrderedDict()
        self._logits: dict[int, torch.Tensor] = {}  # by S: shared, because logits are only valid until the next step
        self.clear()

    @classmethod
    def of(cls, model: EngineModel, storage: PagedStorage) -> Self | None:
        """None off the GPU, where graphs gain nothing."""
        return cls(model, storage, Capture(model.device)) if model.device.type == "cuda" else None

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(S, n) of the steps that are ready."""
        return list(self._graphs)

    def clear(self) -> None:
        """Drop the graphs, because the weights have changed: a graph holds their addresses."""
        self._graphs.clear()
        self._modules = list(self._model.language_model.modules())
        self.disabled_because = reason_against_graphs(self._model, self._storage)

    def run(self, batch: ForwardBatch, tokens: Sequence[int]) -> ForwardOutput | None:
        """The pass over `tokens` [S], none of them an audio position; None where it must run without a graph."""
        if self.disabled_because is not None or not has_fixed_shape(batch) or _has_hooks(self._modules):
            return None
        count = len(tokens)
        needed = max(batch.num_computed) // self._storage.block + 1
        shape = (batch_bucket(count), context_bucket(needed))
        graph = self._graphs.get(shape) or self._make(shape, batch, tokens)
        if graph is None:
            return None
        self._graphs.move_to_end(shape)
        buffers, run = graph
        self._fill(buffers, batch, tokens)
        run()
        chosen = buffers.chosen[:count].tolist()  # waits for the device: `host` may be written to again
        return ForwardOutput(buffers.logits[:count], [(token, bool(finite)) for token, finite in chosen])

    def _make(self, shape: tuple[int, int], batch: ForwardBatch, tokens: Sequence[int]) -> tuple[Buffers, Run] | None:
        buffers = self._buffers(*shape)
        self._fill(buffers, batch, tokens)  # preparing may run the step: then it writes what this step writes anyway
        try:
            graph = buffers, self._prepare(lambda: step(self._model, self._storage, buffers))
        except RuntimeError as error:  # of CUDA: answers come without graphs too, only slower
            logger.warning("CUDA graphs are off, since a decode step could not be captured: %s", error)
            self.disabled_because = f"a step could not be captured ({error})"
            self._graphs.clear()
            return None
        self._graphs[shape] = graph
        while len(self._graphs) > GRAPHS:
            self._graphs.popitem(last=False)
        return graph

    def _buffers(self, rows: int, blocks: int) -> Buffers:
        device = self._model.device
        host = torch.zeros(rows, 2 + blocks, dtype=torch.int64, pin_memory=device.type == "cuda")
        if rows not in self._logits:
            self._logits[rows] = torch.zeros(rows, self._model.config.text_config.vocab_size, device=device)
        chosen = torch.zeros(rows, 2, dtype=torch.int64, device=device)
        return Buffers(host, torch.zeros_like(host, device=device, pin_memory=False), self._logits[rows], chosen)

    def _fill(self, buffers: Buffers, batch: ForwardBatch, tokens: Sequence[int]) -> None:
        size, columns = buffers.host.shape
        scratch, width = self._storage.scratch, columns - 2
        rows = []
        for token, position, table in zip(tokens, batch.num_computed, batch.block_tables, strict=True):
            rows.append([token, position, *table[:width], *[table[-1]] * (width - len(table))])
        rows += [[0, 0, *[scratch] * width]] * (size - len(rows))
        buffers.host.copy_(torch.tensor(rows))
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


def _has_hooks(modules: Iterable[nn.Module]) -> bool:
    """Whether a module has hooks, which a graph would not call."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)
