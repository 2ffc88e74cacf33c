"""An engine that records what each of its steps did and how long the model took of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch

from qwen2_audio.engine.engine import Engine, EngineSettings
from qwen2_audio.text.tokenizer import Tokenizer

from .id_tokenizer import IdTokenizer


class ModelClock:
    """Seconds that a module's forward has taken. On a GPU it is not `active`: CUDA graphs call no forward."""

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        self.seconds = 0.0
        self.active = device.type != "cuda"
        if self.active:
            self._forward = module.forward
            module.forward = self._timed  # not by hooks: calling them takes long enough to be seen

    def _timed(self, *arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return self._forward(*arguments, **options)
        finally:
            self.seconds += time.perf_counter() - started


@dataclass(frozen=True)
class Step:
    """One step of the engine."""

    seconds: float
    model_seconds: float  # of it, in the language model; on a GPU until the step's token ids are known
    encoder_seconds: float
    prefill: int  # positions
    decode: int  # positions
    running: int


class TimedEngine(Engine):
    """`steps`: every step so far."""

    def __init__(
        self, model: Any, clock: ModelClock, settings: EngineSettings, tokenizer: Any = None, draft: Any = None
    ) -> None:
        super().__init__(model, cast(Tokenizer, tokenizer or IdTokenizer()), settings, draft)
        self.steps: list[Step] = []
        self._clock = clock

    def step(self) -> None:
        stats = self.stats
        prefill_before, decode_before = stats.prefill_tokens, stats.decode_tokens
        model_before, encoder_before = self._clock_seconds(), stats.seconds_encoder
        start = time.perf_counter()
        super().step()
        seconds = time.perf_counter() - start
        self.steps.append(
            Step(
                seconds,
                self._clock_seconds() - model_before,
                stats.seconds_encoder - encoder_before,
                stats.prefill_tokens - prefill_before,
                stats.decode_tokens - decode_before,
                stats.running,
            )
        )

    def _clock_seconds(self) -> float:
        return self._clock.seconds if self._clock.active else self.stats.seconds_prefill + self.stats.seconds_decode


def decode_rate(steps: Sequence[Step], running: int) -> float | None:
    """Tokens a second of the steps that did nothing but decode for `running` sequences; None without such a step."""
    seconds = [step.seconds for step in steps if step.decode == running and not step.prefill]
    return running / statistics.median(seconds) if seconds else None


@contextmanager
def scripted(module: torch.nn.Module, prompt_length: int, answer: Sequence[int]) -> Iterator[None]:
    """Make the language model answer `answer` after `prompt_length` positions. It computes what it always computes.

    One sequence at a time.
    """

    def raise_logits(_: torch.nn.Module, arguments: Any, options: dict[str, Any], out: Any) -> None:
        positions, keep = options["position_ids"][0], options["logits_to_keep"]
        if isinstance(keep, torch.Tensor):  # else it is 0: all of them
            positions = positions[keep[0]]
        logits = out.logits.view(-1, out.logits.shape[-1])  # [kept positions of the one row, V]
        for row, position in enumerate(positions.tolist()):
            number = position - prompt_length + 1  # of the answer's token that these logits choose
            if 0 <= number < len(answer):
                logits[row, answer[number]] = 1e4

    hook = module.register_forward_hook(cast(Callable[..., None], raise_logits), with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
