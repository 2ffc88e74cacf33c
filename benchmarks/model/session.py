"""The stopwatch of the model benchmark, the same for both sides: a measurement for each order.

`check` in a reply is what the other side must have got as well: token ids, or a sample of the output's values.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from qwen2_audio.audio.mel import num_audio_tokens
from qwen2_audio.bench.clips import clip
from qwen2_audio.bench.machine import peak_gb
from qwen2_audio.checkpoint.config import Qwen2AudioConfig

from ..harness.prompt_ids import question_ids_for, random_ids
from ..harness.worker_loop import timed
from .implementation import Features, Implementation

COMPARED_VALUES = 500  # of an output, by which the two sides are compared

Measured = dict[str, Any]


class TokenTimes:
    """A streamer that records when each call came: first the prompt, then each token."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


class Session:
    """The orders a worker knows: one method each."""

    def __init__(self, make: Callable[[], Implementation]) -> None:
        """`make` imports the side's library, which is timed."""
        with timed() as timer:
            self._implementation = make()
        self._import_seconds = timer.seconds
        self._config = Qwen2AudioConfig()

    def library(self) -> Measured:
        """Importing the side's model classes, torch being there already."""
        return {"value": self._import_seconds, "check": []}

    def load(self, folder: str) -> Measured:
        with timed() as timer:
            self._implementation.load(Path(folder))
        self._config = Qwen2AudioConfig.from_pretrained(folder)
        gc.collect()
        gc.freeze()  # what is there stays: later collections need not walk through it
        return {"value": timer.seconds, "check": []}

    def memory(self) -> Measured:
        """GB that the process held at most; pages of mapped files count."""
        return {"value": peak_gb(), "check": []}

    def log_mel(self, seconds: float) -> Measured:
        waveform = clip(seconds)
        with timed() as timer:
            features = self._implementation.log_mel(waveform)
        valid = features.log_mel[..., : int(features.mask.sum())]
        return {"value": timer.seconds, "check": sample(valid)}

    def encode(self, seconds: float) -> Measured:
        features = self._implementation.log_mel(clip(seconds))
        with timed() as timer:
            hidden = self._implementation.encode(features)
        valid = hidden.flatten(0, -2)[: self._audio_tokens(features)]
        return {"value": timer.seconds, "check": sample(valid)}

    def first_token(self, seconds: float) -> Measured:
        """From the waveform to the first id of the answer."""
        waveform = clip(seconds)
        ids = self._prompt(self._implementation.log_mel(waveform))
        with timed() as timer:
            features = self._implementation.log_mel(waveform)
            answer = self._implementation.generate(ids, features, 1, TokenTimes())
        return {"value": timer.seconds, "check": answer[0, ids.shape[1] :].tolist()}

    def decode(self, context: int, new_tokens: int) -> Measured:
        """Tokens per second after the first one, with `context` positions before it."""
        vocab_size, audio_id = self._config.text_config.vocab_size, self._config.audio_token_index
        ids = torch.tensor([random_ids(context, vocab_size=vocab_size, audio_id=audio_id)])
        token_times = TokenTimes()
        with timed():
            answer = self._implementation.generate_after_past(ids, new_tokens, token_times)
        times = token_times.times[1:]  # the first one is the prompt's
        rate = (len(times) - 1) / (times[-1] - times[0])
        return {"value": rate, "check": answer[0, ids.shape[1] :].tolist()}

    def _audio_tokens(self, features: Features) -> int:
        return num_audio_tokens(int(features.mask.sum()))

    def _prompt(self, features: Features, question: int = 0) -> torch.Tensor:
        return torch.tensor([question_ids_for(self._config, self._audio_tokens(features), question)])


def sample(values: torch.Tensor) -> list[float]:
    """Some hundred values, evenly spread: enough to see whether two outputs are the same."""
    flat = values.flatten()
    step = max(1, flat.numel() // COMPARED_VALUES) | 1  # odd, so that it does not stay in one column
    return flat[::step].tolist()
