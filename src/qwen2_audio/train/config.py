"""The config of a training run, a TOML file: unknown keys are refused, and values checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from ..checkpoint import toml_table
from ..checkpoint.toml_table import read_toml
from ..errors import ConfigError

Part = Literal["encoder", "projector", "language_model"]
PARTS: tuple[Part, ...] = ("encoder", "projector", "language_model")
# Keys under their names until version 0.2; they go in 0.3.
RENAMED_KEYS = {"data.augment.throat": "data.augment.vtlp"}
T = TypeVar("T")


@dataclass(frozen=True)
class AugmentConfig:
    """How clips are varied in training; by default nothing is. Evaluation uses the clips without changes.

    A chance, 0 to 1, is that of one clip in one epoch.
    """

    speed: tuple[float, float] = (1.0, 1.0)  # factor drawn from this range; pitch moves with it
    vtlp: tuple[float, float] = (
        1.0,
        1.0,
    )  # factor on formants drawn from this range; above 1: a shorter vocal tract
    gain_db: tuple[float, float] = (0.0, 0.0)  # drawn from this range
    noise: float = 0.0  # chance of added noise
    noise_snr_db: tuple[float, float] = (10.0, 30.0)
    reverb: float = 0.0  # chance of a synthetic room
    spec_augment: float = 0.0  # chance of SpecAugment
    time_masks: int = 2
    time_mask_frames: int = 40  # the longest one
    frequency_masks: int = 2
    frequency_mask_bins: int = 27  # the widest one


@dataclass(frozen=True)
class DataConfig:
    """Where the conversations are, how they are batched, and which turns are trained on."""

    train: str  # JSONL
    eval: str = ""  # JSONL; empty: no evaluation
    turns: Literal["all", "last"] = "all"  # the assistant's turns whose tokens are trained on
    batch_size: int = 0  # rows in a micro-batch, or
    batch_tokens: int = 0  # positions in a micro-batch, padding included; give one of the two (neither: 4 rows)
    workers: int = 0  # processes that read ahead; the result does not depend on it
    max_tokens: int = 0  # rows with more are left out and reported; 0: the model's context
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if self.batch_size and self.batch_tokens:
            raise ConfigError("data.batch_size and data.batch_tokens are two ways to say one thing; give one.")
        if not self.batch_size and not self.batch_tokens:
            object.__setattr__(self, "batch_size", 4)


@dataclass(frozen=True)
class LoraSection:
    """LoRA for the parts named in `parts`. A regular expression for the end of a Linear's path selects the Linears."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    encoder: str = "q_proj|k_proj|v_proj|out_proj|fc1|fc2"
    projector: str = "linear"
    language_model: str = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"lora.rank is {self.rank}; expected 1 or more.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora.dropout is {self.dropout}; expected 0 or more, below 1.")


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser and its schedule."""

    # 8 bit: the moments in 2 bytes a parameter instead of 8. muon: fewer steps, each a little slower.
    kind: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    learning_rate: float = 1e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = 0
    final_fraction: float = 0.0  # of learning_rate, at the last step
    weight_decay: float = 0.0  # on matrices only
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    clip_norm: float = 1.0  # 0: no clipping

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ConfigError(f"optim.learning_rate is {self.learning_rate}; expected more than 0.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optim.betas are {list(self.betas)}; expected two numbers of 0 or more, below 1.")
        if not 0 <= self.final_fraction <= 1:
            raise ConfigError(f"optim.final_fraction is {self.final_fraction}; expected 0 to 1.")


@dataclass(frozen=True)
class DpoConfig:
    """Direct preference optimisation; read by `train dpo` only."""

    beta: float = 0.1
    length_normalised: bool = False  # log-probabilities divided by their number of tokens
    nll_weight: float = 0.0  # the chosen answer's loss per token is added, times this

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ConfigError(f"dpo.beta is {self.beta}; expected more than 0.")
        if self.nll_weight < 0:
            raise ConfigError(f"dpo.nll_weight is {self.nll_weight}; expected 0 or more.")


@dataclass(frozen=True)
class TrainConfig:
    """One run. Paths in the file are relative to the folder the command runs in."""

    data: DataConfig
    output: str  # folder: checkpoints, metrics.jsonl, loss.png, the result in `final`
    model: str = "nano"
    method: Literal["lora", "full"] = "lora"
    quantize: Literal["", "int8", "int4"] = ""  # the frozen base under LoRA in fewer bits (QLoRA)
    parts: tuple[Part, ...] = ("language_model",)  # what is trained; the rest is frozen
    steps: int = 0  # optimiser steps, or
    epochs: float = 0.0  # times through the data; give one of the two (neither: 1 epoch)
    accumulate: int = 1  # micro-batches in a step
    eval_every: int = 0  # steps; 0: at the end only
    checkpoint_every: int = 100  # steps between checkpoints: at most these are lost in a crash
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 autocast on a GPU, float32 on a CPU
    gradient_checkpointing: bool = False  # layers are computed twice instead of kept: less memory, a third slower
    parallel: Literal["none", "ddp", "fsdp"] = "none"  # how the processes of torchrun share the work
    tensorboard: Literal["auto", "on", "off"] = "auto"  # auto: on where it is installed
    lora: LoraSection = field(default_factory=LoraSection)
    optim: OptimConfig = field(default_factory=OptimConfig)
    dpo: DpoConfig = field(default_factory=DpoConfig)

    def __post_init__(self) -> None:
        if self.steps and self.epochs:
            raise ConfigError("steps and epochs are two ways to say one thing; give one.")
        if not self.steps and not self.epochs:
            object.__setattr__(self, "epochs", 1.0)
        for name in ("accumulate", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more.")
        if self.parallel == "fsdp" and self.optim.kind == "adamw8bit":
            raise ConfigError(
                "optim.kind is 'adamw8bit' and parallel is 'fsdp', which divides the moments among the processes "
                "already; use 'adamw' with it, or parallel = 'ddp'."
            )
        if self.parallel == "fsdp" and self.optim.kind == "muon":
            raise ConfigError(
                "optim.kind is 'muon' and parallel is 'fsdp', but Muon needs each matrix whole and FSDP divides them; "
                "use 'adamw' with it, or parallel = 'ddp'."
            )
        if self.quantize:
            self._check_quantized()
        if not self.parts:
            raise ConfigError(f"parts is empty, so nothing would be trained; name some of {', '.join(PARTS)}.")

    def _check_quantized(self) -> None:
        if self.method == "full":
            raise ConfigError(
                f"quantize is {self.quantize!r} and method is 'full', but quantised weights cannot be trained; use "
                "method = 'lora', which trains an adapter beside them, or leave quantize out."
            )
        if self.parallel == "fsdp":
            raise ConfigError(
                f"quantize is {self.quantize!r} and parallel is 'fsdp', which divides plain weights only; use "
                "parallel = 'ddp': each process then has the small base whole."
            )

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read and check a TOML file. Raises ConfigError with the file's name."""
        table = read_toml(path)
        try:
            return from_table(cls, table)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None


def from_table(kind: type[T], table: dict[str, Any], where: str = "") -> T:
    """As `toml_table.from_table`, which also knows the names that keys of a run had before."""
    return toml_table.from_table(kind, table, where, RENAMED_KEYS)
