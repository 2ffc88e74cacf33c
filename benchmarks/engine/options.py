"""What `python -m benchmarks engine` can be asked, and how much of everything it measures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen2_audio.checkpoint.config import CONFIG_FILE
from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate import random_checkpoint
from qwen2_audio.evaluate.random_checkpoint import Shape
from qwen2_audio.model.paged import BLOCK

PEERS = ("transformers", "none")
FORMATS = ("fp32", "bf16", "int8", "int4")
DEVICES = ("cpu", "cuda")
DTYPES = {"bf16": "bfloat16"}  # of weights that are not quantised; the others compute in float32
SPARE_TOKENS = 64  # that the first answers may get while the last prompts are read


@dataclass(frozen=True)
class Options:
    """How to measure."""

    model: Path | None = None  # a checkpoint's folder; None: the random one of `shape`
    shape: Shape = field(default_factory=Shape)
    formats: tuple[str, ...] = ("int4",)  # one
    device: str = "cpu"
    peer: str | None = None  # "transformers" or "none"; None: transformers if it is installed and not `quick`
    repeats: int = 3  # of each; at most 2 of the runs of 16 requests, 1 of the peer's
    quick: bool = False  # short clips, few tokens, one turn
    threads: int | None = None  # of all sides; None: one a physical core

    def __post_init__(self) -> None:
        for name in ("repeats", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; expected at least 1.")
        for name, known in {"peer": PEERS, "device": DEVICES}.items():
            if getattr(self, name) not in (None, *known):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; bench engine expects one of {', '.join(known)}.")
        if len(self.formats) != 1 or self.formats[0] not in FORMATS:
            raise ConfigError(f"format is {','.join(self.formats)!r}; bench engine expects one of {','.join(FORMATS)}.")
        if self.model is not None and not (self.model / CONFIG_FILE).is_file():
            raise ConfigError(f"{self.model} has no {CONFIG_FILE}; expected the folder of a Qwen2-Audio checkpoint.")
        stored = "fp32" if self.model is None else random_checkpoint.scheme_of(self.model)
        if stored not in ("fp32", self.format):
            raise ConfigError(f"{self.model} is quantised to {stored}; expected --format {stored} for it.")

    @property
    def format(self) -> str:
        return self.formats[0]

    @property
    def load(self) -> dict[str, Any]:
        """What a worker needs to load a checkpoint, beside the folder."""
        return {"device": self.device, "dtype": DTYPES.get(self.format, "float32")}


@dataclass(frozen=True)
class Amounts:
    """How much of everything."""

    clips: list[float]  # seconds, of the requests that come together
    new_tokens: int
    turns: int  # of what takes long
    short_turns: int
    running: list[int]  # sequences that decode at once; largest first
    steps: int  # of decoding, for each of `running`
    long: float  # seconds of the clip that a short one arrives behind
    prompt: int  # positions of the prompt whose prefill is timed
    answer: int  # tokens at most of the answers that are drafted

    @classmethod
    def of(cls, options: Options) -> Amounts:
        """The amounts that `options` ask for."""
        if options.quick:
            return cls(clip_lengths(16, 1, 2), 16, 1, 1, [16, 1], 8, 10.0, 256, 32)
        turns = min(options.repeats, 2)
        return cls(clip_lengths(16, 2, 15), 64, turns, options.repeats, [32, 16, 4, 1], 24, 30.0, 512, 128)

    @property
    def contexts(self) -> list[int]:
        """Positions of text for each running sequence: as many as the clips have, mixed, so that any few of them
        have short and long ones."""
        lengths = [23 + round(25 * seconds) for seconds in self.clips]
        mixed = [lengths[number * 7 % len(lengths)] for number in range(len(lengths))]
        return [mixed[number % len(mixed)] for number in range(self.running[0])]

    @property
    def kv_tokens(self) -> int:
        """Positions of a KV cache that has room for all prompts and for what their answers have when they are
        cancelled."""
        answer = len(self.running) * (self.steps + 1) + SPARE_TOKENS
        return max(sum(self.contexts) + self.running[0] * (answer + 2 * BLOCK), 4096)


def clip_lengths(count: int, least: float, most: float) -> list[float]:
    """Seconds of `count` clips, evenly from `least` to `most`."""
    return [round(least + (most - least) * number / max(count - 1, 1), 2) for number in range(count)]
