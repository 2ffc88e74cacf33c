"""One step's forward pass: new positions of all running sequences, packed as one row.

N new positions together, H width, V vocabulary.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import Self

import torch

from ...model.paged import PagedStorage
from ...native.paged import storage_for
from ..block_manager import BlockCopy
from ..encoder_cache import EncoderCache
from ..model_interface import EngineModel
from ..scheduler import ScheduledSequence
from ..settings import EngineSettings
from .adapter_rows import of_language_model
from .cuda_graphs import GraphRunner
from .forward_batch import ForwardBatch, ForwardOutput
from .tp_worker import TPDriver


class ModelRunner:
    """Runs the model over the blocks of `storage`; with a `driver`, other processes run along."""

    def __init__(
        self,
        model: EngineModel,
        storage: PagedStorage,
        encoder_cache: EncoderCache,
        driver: TPDriver | None = None,
        *,
        adapts: bool = True,
    ) -> None:
        """`adapts`: the requests' adapters are `model`'s; else it computes without them."""
        self.storage, self._adapts = storage, adapts
        self._model, self._encoder_cache, self._driver = model, encoder_cache, driver
        self._graph_runner = GraphRunner.of(model, storage)
        self._audio_id = int(model.config.audio_token_index)
        self._device, self._embed = model.device, model.get_input_embeddings()
        self._weights_version = weights_version(model)

    @classmethod
    def for_engine(
        cls, model: EngineModel, draft: EngineModel | None, settings: EngineSettings, encoder_cache: EncoderCache
    ) -> Self:
        """With as many blocks as `settings` allow for `model`, and for `draft` beside it."""
        driver = TPDriver.of(model)
        block_bytes = storage_for(model.language_model, 1).nbytes * (driver.processes_per_memory if driver else 1)
        if draft is not None:
            block_bytes += storage_for(draft.language_model, 1).nbytes
        storage = storage_for(model.language_model, settings.num_blocks(block_bytes, model.device))
        if driver is not None:
            driver.init(storage.blocks)
        return cls(model, storage, encoder_cache, driver)

    def weights_changed(self) -> bool:
        """Whether weights were written to or replaced since the last call; graphs of the old ones are dropped."""
        version = weights_version(self._model)
        if version == self._weights_version:
            return False
        self._weights_version = version
        self._embed = self._model.get_input_embeddings()
        if self._graph_runner is not None:
            self._graph_runner.clear()
        return True

    def copy(self, copies: Iterable[BlockCopy]) -> None:
        """Fill blocks that share a beginning with others."""
        for copy in copies:
            self.storage.copy_block(copy.source, copy.target)
            if self._driver is not None:
                self._driver.copy(copy.source, copy.target)

    def zero(self, blocks: Sequence[int]) -> None:
        """Write zeros to `blocks`."""
        self.storage.clear(blocks)
        if self._driver is not None:
            self._driver.zero(blocks)

    def encoder_ready(self, scheduled: ScheduledSequence) -> bool:
        """The embeddings of the audio positions among those scheduled are there."""
        request = scheduled.sequence.request
        first, end = _audio_of(scheduled)
        return first == end or self._encoder_cache.has_all(request)

    def run(self, scheduled: list[ScheduledSequence]) -> tuple[ForwardOutput, tuple[int, ...]]:
        """Compute the scheduled positions.

        Returns the output at the L positions that need logits, sequence after sequence, and how many each sequence
        has: its last known token and its draft tokens, or none while its prompt is not at its end; and those that it
        wants of its prompt.
        """
        ids = list(chain.from_iterable(_token_ids(item, self._audio_id) for item in scheduled))
        has_audio = self._audio_id in ids
        batch = ForwardBatch(
            [item.sequence.blocks for item in scheduled],
            [item.start for item in scheduled],
            [item.count for item in scheduled],
            [num_logits_of(item) for item in scheduled],
        )
        output = None
        adapters = [item.sequence.request.adapter if self._adapts else None for item in scheduled]
        if self._graph_runner is not None and not has_audio and not any(adapters):
            output = self._graph_runner.run(batch, ids)
        layers = [taken.layer for item in scheduled if (taken := item.sequence.prompt_output) and not taken.with_logits]
        with_audio = scheduled if has_audio else []
        if output is None:
            counts = batch.query_lens, batch.num_logits
            with of_language_model(self._model, adapters, *counts) if any(adapters) else nullcontext():
                output = self._run_packed(with_audio, batch, ids, layers)
        return output, tuple(batch.num_logits)

    def _run_packed(
        self, with_audio: list[ScheduledSequence], batch: ForwardBatch, ids: list[int], layers: list[int]
    ) -> ForwardOutput:
        """`layers`: those whose hidden states are wanted."""
        tokens = torch.frombuffer(array("q", ids), dtype=torch.int64).view(1, -1).to(self._device)
        states: list[torch.Tensor] = []
        every_layer = any(layer != -1 for layer in layers)
        run = partial(batch.run, self._model, self.storage, states=states if layers else None, every_layer=every_layer)
        if self._driver is None and not with_audio:
            return ForwardOutput.of(run(ids=tokens).float(), states)
        embeds = self._embed(tokens)
        self._insert_audio(with_audio, embeds)
        with nullcontext() if self._driver is None else self._driver.running(batch, embeds):
            logits = run(embeds)
        return ForwardOutput.of(logits.float(), states)

    def _insert_audio(self, scheduled: list[ScheduledSequence], embeds: torch.Tensor) -> None:
        """Replace the embeddings [1, N, H] of audio positions by the encoder's."""
        offset = 0
        positions: list[int] = []
        audio = []
        for item in scheduled:
            request = item.sequence.request
            first, end = _audio_of(item)
            if first < end:
                shift = offset - item.start
                positions += [position + shift for position in request.audio_positions[first:end]]
                audio.append(self._encoder_cache.embeddings(request)[first:end])
            offset += item.count
        if audio:
            embeds[0].index_copy_(0, torch.tensor(positions, device=embeds.device), torch.cat(audio).to(embeds))


def _audio_of(scheduled: ScheduledSequence) -> tuple[int, int]:
    """Which of its request's audio positions are among those scheduled: the first, and one behind the last."""
    request, start = scheduled.sequence.request, scheduled.start
    return request.audio_before(start), request.audio_before(start + scheduled.count)


def num_logits_of(scheduled: ScheduledSequence) -> int:
    """For how many of the scheduled positions, the last ones, logits are needed: a token is sampled from them, or the
    request wants them of its prompt."""
    sequence, end = scheduled.sequence, scheduled.start + scheduled.count
    num_drafts = end - len(sequence.prefix_keys)
    sampled = num_drafts + 1 if num_drafts >= 0 and sequence.request.max_new_tokens else 0
    output = sequence.prompt_output
    return sampled if output is None else max(sampled, output.num_logits(scheduled.start, end))


def weights_version(model: EngineModel) -> int:
    """Changes when a weight is written to or replaced, as attaching an adapter or a training step does."""
    tensors = (*model.parameters(), *model.buffers())
    return hash((model.training, model.encoder_mask, *((id(t), t._version) for t in tensors)))


def _token_ids(scheduled: ScheduledSequence, audio_id: int) -> list[int]:
    """The ids of the scheduled positions, draft tokens included; audio positions get the placeholder's id."""
    sequence, end = scheduled.sequence, scheduled.start + scheduled.count
    ids = sequence.prefix_keys[scheduled.start : end]
    if scheduled.start < len(sequence.request.prefix_keys):
        ids = [key if key >= 0 else audio_id for key in ids]
    return ids + sequence.draft_token_ids[: scheduled.count - len(ids)] if sequence.draft_token_ids else ids
