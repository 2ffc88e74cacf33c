"""How likely each 32 ms of a sound are speech: Silero's 16 kHz network, computed here for many frames at once.

The weights are those of the package `silero-vad` (MIT). It is never imported: its import sets torch to one thread for
the whole process. A frame is 512 samples with the 64 before them.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

FRAME = 512  # samples a probability stands for, 32 ms at 16 kHz
_CONTEXT = 64  # samples before the frame that the network sees too
_BASIS, _HOP, _BINS = 256, 128, 129  # the STFT's window and step in samples, its frequencies
_STRIDES = (1, 2, 2, 1)  # of the four convolutions over the STFT's four columns: one is left
_WIDTH = 128  # of the LSTM
_AT_ONCE = 2048  # frames computed together, 65 s: about 30 MB
_PREFIX = "_model."  # of the 16 kHz network; the 8 kHz one is `_model_8k.`


class _Network:
    """Silero's network for 16 kHz."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        """Raises KeyError or RuntimeError where `weights` are those of another network."""
        import torch

        self._basis = weights["stft.forward_basis_buffer"][:, 0]  # [258, 256]: cosines, then sines
        names = [f"encoder.{index}.reparam_conv" for index in range(len(_STRIDES))]
        self._convolutions = [(weights[f"{name}.weight"].flatten(1), weights[f"{name}.bias"]) for name in names]
        self._lstm = torch.nn.LSTM(_WIDTH, _WIDTH).eval().requires_grad_(False)
        self._lstm.load_state_dict(
            {f"{key}_l0": weights[f"decoder.rnn.{key}"] for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        )
        self._out = weights["decoder.decoder.2.weight"][:, :, 0], weights["decoder.decoder.2.bias"]  # [1, 128], [1]
        if self._basis.shape != (2 * _BINS, _BASIS) or self._out[0].shape != (1, _WIDTH):
            raise RuntimeError("the shapes are those of another network")

    def __call__(self, frames: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """float32 [n, 64 + 512] -> speech probabilities [n], and the LSTM's state behind the last frame."""
        from torch.nn import functional as F

        padded = F.pad(frames[:, None], (0, _CONTEXT), mode="reflect")[:, 0]  # [n, 640]
        waves = padded.unfold(1, _BASIS, _HOP) @ self._basis.T  # [n, 4, 258]
        x = (waves[..., :_BINS] ** 2 + waves[..., _BINS:] ** 2).sqrt()
        for (weight, bias), stride in zip(self._convolutions, _STRIDES, strict=True):
            # Convolutions of width 3 as products: conv1d takes a shortcut (Winograd's) that costs three digits.
            columns = F.pad(x, (0, 0, 1, 1)).unfold(1, 3, stride)  # [n, times, channels, 3]
            x = F.relu(F.linear(columns.flatten(2), weight, bias))
        hidden, state = self._lstm(x, state)  # [n, 1, 128]: time, batch, width
        return F.linear(F.relu(hidden[:, 0]), *self._out).sigmoid()[:, 0], state


class SpeechDetector:
    """Speech probabilities of one sound that arrives in blocks; how it is cut into blocks changes nothing."""

    def __init__(self, network: _Network) -> None:
        """`speech_detector()` makes one."""
        self._network = network
        self._rest: np.ndarray = np.zeros(_CONTEXT, np.float32)  # the context, then what is no whole frame yet
        self._state: Any = None

    def push(self, samples: np.ndarray) -> np.ndarray:
        """float32 [S] at 16 kHz -> the probabilities of the frames that are whole now, float32 [n]."""
        self._rest = np.concatenate([self._rest, samples])
        count = (len(self._rest) - _CONTEXT) // FRAME
        if count < 1:
            return np.zeros(0, np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(self._rest, _CONTEXT + FRAME)[::FRAME][:count]
        self._rest = self._rest[count * FRAME :]
        return np.concatenate([self._compute(frames[i : i + _AT_ONCE]) for i in range(0, count, _AT_ONCE)])

    def finish(self) -> np.ndarray:
        """The probability of the last frame, filled with silence: float32 [1], or [0] where no samples are left."""
        missing = -(len(self._rest) - _CONTEXT) % FRAME
        return self.push(np.zeros(missing, np.float32))

    def _compute(self, frames: np.ndarray) -> np.ndarray:
        import torch

        from ..native.openmp import one_thread

        with torch.inference_mode(), one_thread():  # while the engine's threads compute
            probabilities, self._state = self._network(torch.from_numpy(frames.copy()), self._state)
        result: np.ndarray = probabilities.numpy()
        return result


def speech_detector() -> SpeechDetector | None:
    """A detector for one sound; None where the package `silero-vad` is missing: `missing_reason` says why."""
    network = _load()
    return SpeechDetector(network) if isinstance(network, _Network) else None


def missing_reason() -> str | None:
    """One sentence on why there is no `speech_detector`, and what follows; None where there is one."""
    network = _load()
    return None if isinstance(network, _Network) else network


@cache
def _load() -> _Network | str:
    """The network, or why there is none. Read once a process."""
    follows = "so windows are cut where the sound is quietest, and silence is not told from speech."
    spec = importlib.util.find_spec("silero_vad")  # finds the package's folder, and runs none of its code
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        return f"The package silero-vad is not installed, {follows}"
    path = Path(folders[0]) / "data" / "silero_vad.jit"
    try:
        return _Network(_weights(path))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        return f"{path} is not Silero's network as this version knows it ({reason[:100]}), {follows}"


def _weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of the 16 kHz network in a TorchScript file."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.load is deprecated, and the file is of its kind
        state = torch.jit.load(str(path), map_location="cpu").state_dict()
    ours = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if name.startswith(_PREFIX)}
    return {name: tensor.detach().clone() for name, tensor in ours.items()}
