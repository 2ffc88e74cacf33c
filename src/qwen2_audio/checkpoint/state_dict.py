"""A state_dict in place of a folder's files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from .weights import KINDS, Checkpoint, canonical


class StateDict(Checkpoint):
    """The tensors of a mapping, by any of the names that files may have."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__(Path("the state_dict"), {canonical(name): ("", name) for name in tensors})
        self._tensors = tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.read(name).shape)

    def kind(self, name: str) -> str:
        dtype = self.read(name).dtype
        return next((kind for kind, known in KINDS.items() if known == dtype), str(dtype))

    def read(self, name: str) -> torch.Tensor:
        return self._tensors[self.stored[name][1]].detach()
