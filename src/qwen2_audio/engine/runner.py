"""One step's forward pass: new positions of all sequences that run, packed as one row.

N new positions together, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from ..model.paged import PagedPass, PagedStorage
from .blocks import Copy
from .request import Request
from .scheduler import Part
from .sounds import Sounds


class Runner:
    """Runs the model over the blocks of a paged cache."""

    def __init__(self, model: Any, storage: PagedStorage, sounds: Sounds) -> None:
        self._model, self._storage, self._sounds = model, storage, sounds
        self._audio_id = int(model.config.audio_token_index)

    def copy(self, copies: Iterable[Copy]) -> None:
        """Fill blocks that begin as others do."""
        for one in copies:
            self._storage.copy_block(one.source, one.target)

    def heard(self, part: Part) -> bool:
        """What the part needs of its request's sounds is encoded."""
        request = part.sequence.request
        return not audio_before(request, part.start + part.count, part.start) or self._sounds.held(request)

    def run(self, parts: list[Part]) -> list[torch.Tensor]:
        """Compute the parts. For each, the logits of the positions behind which a token is wanted, fp32 [w, V]: of its
        last known token and of its guesses, none while its prompt is not at its end."""
        ids = [token for part in parts for token in _tokens(part, self._audio_id)]
        device = self._model.device
        embeds = self._model.get_input_embeddings()(torch.tensor([ids], device=device))
        self._put_sounds(parts, embeds)
        step = PagedPass(
            self._storage,
            [part.sequence.blocks for part in parts],
            [part.start for part in parts],
            [part.count for part in parts],
        )
        wanted = [wanted_of(part) for part in parts]
        keep = torch.zeros(1, len(ids), dtype=torch.bool)
        for end, count in zip(np.cumsum([part.count for part in parts]).tolist(), wanted, strict=True):
            keep[0, end - count : end] = True
        out = self._model.language_model(
            inputs_embeds=embeds,
            position_ids=step.positions.to(device),
            past_key_values=step,
            logits_to_keep=keep.to(device),
        )
        return list(out.logits.to(torch.float32, copy=True).split(wanted))

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


def _tokens(part: Part, audio_id: int) -> Iterable[int]:
    """The ids of a part, its guesses included; a clip's positions get the placeholder's."""
    sequence, end = part.sequence, part.start + part.count
    known = sequence.keys[part.start : end]
    yield from (key if key >= 0 else audio_id for key in known)
    yield from sequence.guesses[: end - max(part.start, len(sequence.keys))] if end > len(sequence.keys) else ()
