"""What the rows of `python -m benchmarks structured` share: how much is measured, and the checkpoint, loaded once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import torch

from qwen2_audio.checkpoint.locate import nano_path
from qwen2_audio.checkpoint.memory import require_memory
from qwen2_audio.engine.structured.grammar import Grammars
from qwen2_audio.evaluate import random_checkpoint
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.text.tokenizer import Tokenizer

from ..harness.timed_engine import ModelClock
from .vocabulary import WordTokenizer


@dataclass
class Session:
    """One run. `given`: a checkpoint's folder; None: the random 1 B one in int4, with `quick` nano."""

    given: Path | None
    repeats: int
    quick: bool  # few steps, few schemas, short clips
    threads: int
    progress: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        torch.set_num_threads(self.threads)

    @cached_property
    def folder(self) -> Path:
        if self.given is not None:
            return self.given
        if self.quick:
            return nano_path()
        base = random_checkpoint.ensure(random_checkpoint.Shape(), progress=self.progress)
        return random_checkpoint.quantized(base, "int4", self.progress)

    @cached_property
    def model(self) -> Qwen2AudioForConditionalGeneration:
        """Raises CapacityError where memory has no room."""
        require_memory(random_checkpoint.nbytes(self.folder), "Loading the checkpoint to measure")
        return Qwen2AudioForConditionalGeneration.from_pretrained(self.folder, dtype=torch.float32)

    @cached_property
    def tokenizer(self) -> WordTokenizer:
        """A made-up one, of whose end the model's answers end, too."""
        made = WordTokenizer(self.model.config.text_config.vocab_size)
        self.model.generation_config.eos_token_id = made.end
        return made

    @cached_property
    def clock(self) -> ModelClock:
        return ModelClock(self.model.language_model, self.model.device)

    @cached_property
    def grammars(self) -> tuple[Grammars, float]:
        """Set up, and the seconds that this took."""
        return set_up(self.tokenizer)


def set_up(tokenizer: WordTokenizer) -> tuple[Grammars, float]:
    """Grammars for a tokenizer, ready, and the seconds that this took. Raises ConfigError without llguidance."""
    grammars = Grammars(cast(Tokenizer, tokenizer), tokenizer.size)
    started = time.perf_counter()
    grammars.set_up(frozenset([tokenizer.end]))
    return grammars, time.perf_counter() - started
