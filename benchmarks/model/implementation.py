"""What a side must be able to do to be measured. The stopwatch is in `session`, the same for both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True)
class Features:
    """A clip as its side's processor hands it to the model."""

    log_mel: torch.Tensor  # [1, mel bins, F]
    mask: torch.Tensor  # 0/1 [1, F]: which mel frames are sound


class TokenStreamer(Protocol):
    """A streamer: `put` gets the prompt's ids first, then each new id as it is known."""

    def put(self, value: torch.Tensor) -> None: ...

    def end(self) -> None: ...


class Implementation(Protocol):
    """One side, on the CPU. Making one imports its library."""

    def load(self, folder: Path) -> None:
        """Read the checkpoint, so that the model is ready to run; a plain one in fp32."""

    def log_mel(self, waveform: npt.NDArray[np.float32]) -> Features:
        """From float32 [S] at 16 kHz."""

    def encode(self, features: Features) -> torch.Tensor:
        """Encoder and projector: at least the valid audio positions first, [.., width of the language model]."""

    def generate(self, ids: torch.Tensor, features: Features, new_tokens: int, streamer: TokenStreamer) -> torch.Tensor:
        """Greedy, exactly `new_tokens` after the int64 prompt [1, T] -> [1, T + new_tokens]."""

    def generate_after_past(self, ids: torch.Tensor, new_tokens: int, streamer: TokenStreamer) -> torch.Tensor:
        """As `generate`, behind what `random_past` gives for all ids of the int64 prompt [1, T] but the last one."""
