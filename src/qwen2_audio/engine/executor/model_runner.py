"""One step's forward pass: new positions of all sequences that run, packed as one row.

N new positions together, H width, V vocabulary.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any

import torch

from ...model.paged import PagedStorage
from ..block_manager import Copy
from ..encoder_cache import Sounds
from ..request import Request
from ..scheduler import Part
from .cuda_graphs import Decoded, Decoder
from .forward_batch import Packed
from .tp_worker import Lead


class Runner:
    """Runs the model over the blocks of a paged cache; with a `lead`, other processes along with it."""

    def __init__(self, model: Any, storage: PagedStorage, sounds: Sounds, lead: Lead | None = None) -> None:
        self._model, self._storage, self._sounds, self._lead = model, storage, sounds, lead
        self._decoder = Decoder.of(model, storage)
        self._audio_id = int(model.config.audio_token_index)
        self._device = model.device

    def forget(self) -> None:
        """Drop what was made for the old weights, as they have changed."""
        if self._decoder is not None:
            self._decoder.forget()

    def copy(self, copies: Iterable[Copy]) -> None:
        """Fill blocks that begin as others do."""
        for one in copies:
            self._storage.copy_block(one.source, one.target)
            if self._lead is not None:
                self._lead.copy(one.source, one.target)

    def clear(self, blocks: Sequence[int]) -> None:
        """Zeros in `blocks`."""
        self._storage.clear(blocks)
        if self._lead is not None:
            self._lead.clear(blocks)

    def heard(self, part: Part) -> bool:
        """What the part needs of its request's sounds is encoded."""
        request = part.sequence.request
        return not audio_before(request, part.start + part.count, part.start) or self._sounds.held(request)

    def run(self, parts: list[Part]) -> tuple[Decoded, tuple[int, ...]]:
        """Compute the parts. What was found at the W positions behind which a token is wanted, part after part, and how
        many each part has: its last known token and its guesses, none while its prompt is not at its end."""
        ids = list(chain.from_iterable(_tokens(part, self._audio_id) for part in parts))
        heard = self._audio_id in ids
        packed = Packed(
            [part.sequence.blocks for part in parts],
            [part.start for part in parts],
            [part.count for part in parts],
            [wanted_of(part) for part in parts],
        )
        decoded = None
        if self._decoder is not None and not heard:
            decoded = self._decoder.run(packed, ids)
        return decoded or self._run_packed(parts if heard else [], packed, ids), tuple(packed.wanted)

    def _run_packed(self, hearing: list[Part], packed: Packed, ids: list[int]) -> Decoded:
        tokens = torch.frombuffer(array("q", ids), dtype=torch.int64).view(1, -1).to(self._device)
        if self._lead is None and not hearing:
            return Decoded.of(packed.run(self._model, self._storage, ids=tokens).float())
        embeds = self._model.get_input_embeddings()(tokens)
        self._put_sounds(hearing, embeds)
        with nullcontext() if self._lead is None else self._lead.passing(packed, embeds):
            logits = packed.run(self._model, self._storage, embeds)
        return Decoded.of(logits.float())

    def _put_sounds(self, parts: list[Part], embeds: torch.Tensor) -> None:
        """Replace the embeddings [1, N, H] of audio positions by what was heard."""
        at = 0
        for part in parts:
            request, end = part.sequence.request, min(part.start + part.count, len(part.sequence.request.prompt.ids))
            count = audio_before(request, end, part.start)
            if count:
                first = audio_before(request, part.start)
                sounds = self._sounds.of(request)[first : first + count]
                ids = request.prompt.ids[part.start : end]
                places = [at + i for i, token in enumerate(ids) if token == self._audio_id]
                embeds[0, places] = sounds.to(embeds)
            at += part.count


def audio_before(request: Request, end: int, start: int = 0) -> int:
    """Audio positions of the prompt between `start` and `end`."""
    keys = request.keys[start:end]
    return sum(key < 0 for key in keys)


def wanted_of(part: Part) -> int:
    """How many of a part's positions, the last ones, a token is drawn behind."""
    sequence = part.sequence
    behind = part.start + part.count - len(sequence.keys)  # guesses in it
    return behind + 1 if behind >= 0 else 0


def _tokens(part: Part, audio_id: int) -> list[int]:
    """The ids of a part, its guesses included; a clip's positions get the placeholder's."""
    sequence, end = part.sequence, part.start + part.count
    ids = sequence.keys[part.start : end]
    if part.start < len(sequence.request.keys):
        ids = [key if key >= 0 else audio_id for key in ids]
    return ids + sequence.guesses[: part.count - len(ids)] if sequence.guesses else ids
