"""Log-mels on the device that the model is on: what `audio.mel.log_mel` makes of each clip, for several at once.

The frames of all clips are transformed together, end to end, none of them padded. C frames computed, F frames returned.
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
    """Makes log-mels on `device`, from any thread. On a GPU they need not wait for what the model computes there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._constants: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # by mel bins

    @torch.no_grad()
    def __call__(self, waveforms: Sequence[np.ndarray], num_mel_bins: int = 128) -> list[np.ndarray]:
        """Waveforms, float [S_i] at 16 kHz, 30 s at most, to float32 [num_mel_bins, F_i] on the CPU.

        Raises AudioError for anything else.
        """
        clips = [mel.framed(waveform) for waveform in waveforms]
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            return [made.cpu().numpy() for made in self._compute(clips, num_mel_bins)]

    def _compute(self, clips: Sequence[mel.Framed], num_mel_bins: int) -> list[torch.Tensor]:
        if not clips:
            return []
        window, filters = self._constants_for(num_mel_bins)
        samples = [to_device(torch.from_numpy(clip.samples), self._device) for clip in clips]
        frames = torch.cat([one.unfold(0, mel.N_FFT, mel.MEL_HOP) for one in samples])  # [sum of C, 400]
        # In float64, as the work is small: 80 dB below the loudest value, what float32 transforms round away shows in
        # the fourth decimal; and a GPU may be told to round float32 products to TF32.
        power = torch.view_as_real(torch.fft.rfft((frames * window).double())).square().sum(-1)  # [sum of C, 201]
        heard = (power @ filters).float().clamp_min(mel.FLOOR).log10().clamp_min(math.log10(mel.FLOOR))
        parts = heard.T.split([clip.computed for clip in clips], dim=1)
        return [_finished(part, clip.frames) for part, clip in zip(parts, clips, strict=True)]

    def _constants_for(self, num_mel_bins: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Window float32 [400] and filters float64 [201, num_mel_bins]."""
        if num_mel_bins not in self._constants:
            window, filters = (np.array(one) for one in (mel.window(), mel.mel_filters(num_mel_bins)))
            on_device = torch.from_numpy(window).to(self._device), torch.from_numpy(filters).double().to(self._device)
            self._constants[num_mel_bins] = on_device
        return self._constants[num_mel_bins]


def _finished(heard: torch.Tensor, frames: int) -> torch.Tensor:
    """log10 of the power of the computed frames [mel bins, C], 80 dB kept, scaled: float32 [mel bins, frames]."""
    out = heard.new_full((heard.shape[0], frames), math.log10(mel.FLOOR))
    out[:, : heard.shape[1]] = heard
    return (torch.maximum(out, heard.max() - mel.RANGE) + 4) * 0.25
