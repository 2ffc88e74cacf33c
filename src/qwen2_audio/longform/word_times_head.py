"""An aligner's file, `aligner.safetensors` in a checkpoint's folder: a linear CTC head on a layer of its encoder.

It holds a fingerprint of the encoder too: the layer's states for a fixed sound. Those of another encoder differ, while
those of the same one in another dtype, or with weights of 8 bits, are nearly the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..audio.mel import MEL_HOP, SAMPLE_RATE, log_mel, num_frames
from ..checkpoint.json_file import replacing
from ..errors import ConfigError
from .word_times_letters import SYMBOLS

if TYPE_CHECKING:
    from collections.abc import Collection

    import torch

    from ..model.encoder import Qwen2AudioEncoder

RATE = 50  # encoder frames a second
SHIFT = 0.045  # s that CTC's peaks come after a letter's beginning, where nothing else was measured
_VERSION = "1"
_TOLERANCE = 0.1  # of the fingerprint's norm; nano with weights of 8 bits differs by 1.2 %, in bfloat16 by 1.0 %
_PROBE_STEP = 5  # frames between those that are stored


@dataclass(frozen=True, eq=False)
class AlignerHead:
    """A head: `weight` float32 [C, d], `bias` float32 [C]; class 0 is the blank, the others are those of `symbols`."""

    weight: np.ndarray
    bias: np.ndarray
    layer: int  # of the encoder: 0 is its convolutions' output
    fingerprint: np.ndarray  # float32 [n, d]
    shift: float = SHIFT  # s
    symbols: str = SYMBOLS
    about: str = ""  # what it was trained on

    def save(self, path: Path) -> Path:
        """Write the file, whole or not at all."""
        from safetensors.numpy import save_file

        arrays = {"weight": self.weight, "bias": self.bias, "fingerprint": self.fingerprint}
        halves = {name: np.ascontiguousarray(array, np.float16) for name, array in arrays.items()}
        texts = {"layer": str(self.layer), "shift": repr(self.shift), "symbols": self.symbols, "about": self.about}
        with replacing(path) as temporary:
            save_file(halves, temporary, metadata={"aligner": _VERSION, **texts})
            temporary.chmod(0o644)  # the library makes it readable by its owner alone
        return path

    @classmethod
    def read(cls, path: Path) -> AlignerHead:
        """Raises ConfigError for a file that is missing, or no aligner that this version knows."""
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise ConfigError(f"There is no aligner {path}; `qwen2-audio train aligner` makes one.")
        try:
            with safe_open(path, framework="np") as file:
                about = file.metadata() or {}
                arrays = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{path} is no aligner, or a damaged one ({error}); make it again.") from error
        try:
            if about["aligner"] != _VERSION:
                raise ConfigError(f"{path} is an aligner of version {about['aligner']}; expected {_VERSION}.")
            weight, bias, fingerprint = arrays["weight"], arrays["bias"], arrays["fingerprint"]
            head = cls(
                weight, bias, int(about["layer"]), fingerprint, float(about["shift"]), about["symbols"], about["about"]
            )
        except (KeyError, ValueError) as error:
            raise ConfigError(f"{path} is no aligner: {error} is missing or wrong; make it again.") from error
        classes, width = len(head.symbols) + 1, fingerprint.shape[-1]
        if weight.shape != (classes, width) or bias.shape != (classes,) or fingerprint.ndim != 2:
            raise ConfigError(f"{path} is no aligner: weight {weight.shape} for {classes} classes; make it again.")
        return head

    def check_fits(self, encoder: Qwen2AudioEncoder, name: str) -> None:
        """Raises ConfigError, which calls the aligner `name`, for an encoder that it was not made for."""
        layers, width = len(encoder.layers), encoder.config.d_model
        if self.layer > layers or self.weight.shape[1] != width:
            found = f"{layers} layers of {width}"
            raise ConfigError(f"{name} was made for an encoder with layer {self.layer} of {self.weight.shape[1]}, and "
                              f"this one has {found}; make one with `qwen2-audio train aligner`.")  # fmt: skip
        distance = np.linalg.norm(fingerprint(encoder, self.layer) - self.fingerprint)
        share = float(distance / np.linalg.norm(self.fingerprint))
        if not share <= _TOLERANCE:
            raise ConfigError(
                f"{name} was made for another encoder: its states for a known sound differ by {100 * share:.0f} %, and "
                f"at most {100 * _TOLERANCE:.0f} % is expected; make one with `qwen2-audio train aligner`."
            )


def encoder_states(encoder: Qwen2AudioEncoder, samples: np.ndarray, layers: Collection[int]) -> dict[int, torch.Tensor]:
    """float32 [S] at 16 kHz, at most 30 s -> of each of `layers` float32 [E, d], E = ceil(S / 320), each frame
    normalised to mean 0 and variance 1."""
    import torch
    from torch.nn import functional as F

    weight = encoder.conv1.weight
    mel = torch.from_numpy(log_mel(samples, num_mel_bins=encoder.config.num_mel_bins))[None].to(weight.device)
    with torch.no_grad():
        states = encoder.states(mel, num_frames(len(samples)), layers)
        return {layer: F.layer_norm(x.float(), x.shape[-1:]) for layer, x in states.items()}


def fingerprint(encoder: Qwen2AudioEncoder, layer: int) -> np.ndarray:
    """The layer's states for a second of sound, every fifth: float32 [10, d]."""
    sound = _probe()[: encoder.window * MEL_HOP]
    states = encoder_states(encoder, sound, [layer])[layer][::_PROBE_STEP]
    result: np.ndarray = states.cpu().numpy()
    return result


def _probe() -> np.ndarray:
    """A second of three rising tones that come and go: float32 [16000], the same everywhere."""
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tones = sum(np.sin(2 * np.pi * (low * time + low * time**2)) / (1 + n) for n, low in enumerate((150, 700, 2100)))
    result: np.ndarray = (0.1 * tones * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * time))).astype(np.float32)
    return result
