"""`audio.mel.log_mel` in torch, for several clips at once on the model's device.

The frames of all clips are concatenated and transformed together, without padding. C frames computed, F returned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch

from ..audio import mel
from .collate import to_device


class LogMels:
    """Computes log-mels on `device`, from any thread; on a GPU in a stream of its own, beside the model's work."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._constants: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # by number of mel bins

    @torch.no_grad()
    def __call__(self, waveforms: Sequence[np.ndarray], num_mel_bins: int = 128) -> list[np.ndarray]:
        """Waveforms, float [S_i] at 16 kHz and at most 30 s, to float32 [num_mel_bins, F_i] on the CPU.

        Raises AudioError as `audio.mel.log_mel` does.
        """
        clips = [mel.framed(waveform) for waveform in waveforms]
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            return [log_mel.cpu().numpy() for log_mel in self._compute(clips, num_mel_bins)]

    def _compute(self, clips: Sequence[mel.Framed], num_mel_bins: int) -> list[torch.Tensor]:
        if not clips:
            return []
        window, filters = self._constants_for(num_mel_bins)
        samples = [to_device(torch.from_numpy(clip.samples), self._device) for clip in clips]
        frames = torch.cat([clip.unfold(0, mel.N_FFT, mel.MEL_HOP) for clip in samples])  # [sum of C, 400]
        # float64, because 80 dB below the loudest value the rounding of a float32 transform shows in the fourth
        # decimal, and because a GPU may be set to round float32 products to TF32. The work is small.
        power = torch.view_as_real(torch.fft.rfft((frames * window).double())).square().sum(-1)  # [sum of C, 201]
        logs = (power @ filters).float().clamp_min(mel.FLOOR).log10().clamp_min(math.log10(mel.FLOOR))
        parts = logs.T.split([clip.computed for clip in clips], dim=1)
        return [_scaled(part, clip.frames) for part, clip in zip(parts, clips, strict=True)]

    def _constants_for(self, num_mel_bins: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Window float32 [400] and filters float64 [201, num_mel_bins]."""
        if num_mel_bins not in self._constants:
            window, filters = np.array(mel.window()), np.array(mel.mel_filters(num_mel_bins))
            on_device = torch.from_numpy(window).to(self._device), torch.from_numpy(filters).double().to(self._device)
            self._constants[num_mel_bins] = on_device
        return self._constants[num_mel_bins]


def _scaled(logs: torch.Tensor, frames: int) -> torch.Tensor:
    """log10 of the power of the computed frames [mel bins, C] to the log-mel float32 [mel bins, frames].

    Pads with silence, keeps 80 dB below the maximum, and scales as Whisper does: (x + 4) / 4.
    """
    out = logs.new_full((logs.shape[0], frames), math.log10(mel.FLOOR))
    out[:, : logs.shape[1]] = logs
    return (torch.maximum(out, logs.max() - mel.RANGE) + 4) * 0.25
