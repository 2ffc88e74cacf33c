"""An engine that writes down what each of its steps did and how long the model took of it."""

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


class IdSpelling:
    """In place of a tokenizer, which a random checkpoint has not: the text of a token is its number. Nothing ends."""

    all_special_tokens: tuple[str, ...] = ()
    eos_token = None

    def convert_tokens_to_ids(self, tokens: Sequence[str]) -> list[int]:
        return []

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return "".join(f"{token} " for token in ids)

    def token_bytes(self, token: int) -> bytes:
        return self.decode([token]).encode()


def ids_in(text: str) -> list[int]:
    """The tokens that IdSpelling spelled."""
    return [int(word) for word in text.split()]


class ModelClock:
    """Seconds that a module's forward has taken. On a GPU it does not listen: CUDA graphs call no forward."""

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        self.seconds = 0.0
        self.listens = device.type != "cuda"
        if self.listens:
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
    model_seconds: float  # of it, in the language model; on a GPU what leads to its ids being known
    encoder_seconds: float
    prefill: int  # positions
    decode: int  # positions
    running: int


class TimedEngine(Engine):
    """Attribute `steps`: every step so far."""

    def __init__(
        self, model: Any, clock: ModelClock, settings: EngineSettings, tokenizer: Any = None, draft: Any = None
    ) -> None:
        super().__init__(model, cast(Tokenizer, tokenizer or IdSpelling()), settings, draft)
        self.steps: list[Step] = []
        self._clock = clock

    def step(self) -> None:
        stats = self.stats
        prefill, decode = stats.prefill_tokens, stats.decode_tokens
        model, encoder = self._in_model(), stats.seconds_encoder
        started = time.perf_counter()
        super().step()
        seconds = time.perf_counter() - started
        one = Step(
            seconds,
            self._in_model() - model,
            stats.seconds_encoder - encoder,
            stats.prefill_tokens - prefill,
            stats.decode_tokens - decode,
            stats.running,
        )
        self.steps.append(one)

    def _in_model(self) -> float:
        return self._clock.seconds if self._clock.listens else self.stats.seconds_prefill + self.stats.seconds_decode


def decode_rate(steps: Sequence[Step], running: int) -> float | None:
    """Tokens a second of the steps that did nothing but decode for `running` sequences; None without such a step."""
    taken = [step.seconds for step in steps if step.decode == running and not step.prefill]
    return running / statistics.median(taken) if taken else None


@contextmanager
def scripted(module: torch.nn.Module, prompt: int, answer: Sequence[int]) -> Iterator[None]:
    """Have the language model say `answer` after `prompt` positions, whatever it computes: its work stays the same.

    One sequence at a time.
    """

    def say(_: torch.nn.Module, arguments: Any, options: dict[str, Any], out: Any) -> None:
        places, keep = options["position_ids"][0], options["logits_to_keep"]
        if isinstance(keep, torch.Tensor):  # else it is 0: all of them
            places = places[keep[0]]
        logits = out.logits.view(-1, out.logits.shape[-1])  # [w, V]: the kept positions of the one row
        for row, place in enumerate(places.tolist()):
            spoken = place - prompt + 1
            if 0 <= spoken < len(answer):
                logits[row, answer[spoken]] = 1e4

    hook = module.register_forward_hook(cast(Callable[..., None], say), with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
