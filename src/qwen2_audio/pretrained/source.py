"""Where a model's config and weights come from: a folder, the hub, or the caller's own tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoint import hub, weights
from ..checkpoint.config import CONFIG_FILE
from ..checkpoint.state_dict import StateDict
from ..errors import ConfigError
from ..generate.config import GENERATION_CONFIG_FILE


@dataclass(frozen=True)
class Source:
    """A checkpoint's folder, and the tensors that stand in for its files, if any do."""

    folder: Path | None
    tensors: Mapping[str, torch.Tensor] | None = None  # by any of the names that files may have; empty: initial weights

    @classmethod
    def find(
        cls,
        name: str | Path | None,
        tensors: Mapping[str, torch.Tensor] | None,
        has_config: bool,
        where: dict[str, Any],
    ) -> Source:
        """`where` holds the options of `hub.resolve`. Raises ConfigError where config or weights would be missing."""
        if name is not None:
            patterns = weights.PATTERNS if tensors is None else (CONFIG_FILE, GENERATION_CONFIG_FILE)
            return cls(hub.resolve(name, patterns, **where), tensors)
        if tensors is None or not has_config:
            raise ConfigError(
                "from_pretrained() got no folder and no name; pass one, or both config and state_dict in its place."
            )
        return cls(None, tensors)

    @property
    def initial(self) -> bool:
        """The model keeps its initial, random weights."""
        return self.tensors is not None and not self.tensors

    @property
    def title(self) -> str | Path:
        """What messages call it."""
        return "The state_dict" if self.folder is None else self.folder

    def open(self) -> weights.Checkpoint:
        """Raises WeightsError for no weights, a missing shard or an invalid index."""
        if self.tensors is not None:
            return StateDict(self.tensors)
        assert self.folder is not None
        return weights.Checkpoint.open(self.folder)

    def loading_info(self, model: nn.Module) -> dict[str, Any]:
        """The reference's report. Nothing but an empty state_dict leaves keys missing: other misfits are errors."""
        missing = {name for name, _ in model.named_parameters()} if self.initial else set()
        return {"missing_keys": missing, "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}
