"""Sets up a run: from a config to the model, its processor and its data, for SFT and DPO alike."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import lora
from ..checkpoint.json_file import replacing
from ..checkpoint.locate import find
from ..distributed.process_group import Processes, full_parameters, join
from ..errors import ConfigError, PromptError
from ..inputs.processor import Qwen2AudioProcessor
from ..model.initialize import without_weights
from ..pretrained import Qwen2AudioForConditionalGeneration
from ..pretrained.options import parse_device
from ..quantize.checkpoint import is_quantized
from ..text.chat_template import IM_END
from . import checkpoint, metrics
from .batches import batches
from .config import AugmentConfig, TrainConfig
from .data import Dataset
from .feed import MicroBatch, Source, check_shares
from .precision import autocast_wanted, compute_as_with_gradients
from .quarantine import Quarantine

REPORT, LENGTHS = "quarantine.jsonl", "lengths.npy"
# Settings that may change when a run goes on.
CHANGEABLE = (
    "output", "device", "checkpoint_every", "eval_every", "gradient_checkpointing", "parallel", "tensorboard",
)  # fmt: skip


@dataclass(frozen=True)
class RunSetup:
    """What a run needs: model, processor, report of bad rows, processes."""

    config: TrainConfig
    model: Qwen2AudioForConditionalGeneration
    processor: Qwen2AudioProcessor
    quarantine: Quarantine
    autocast: bool
    processes: Processes = field(default_factory=Processes)
    base_fingerprint: str = ""  # of the model before it is trained or sharded

    @property
    def output(self) -> Path:
        return Path(self.config.output)

    @property
    def pad_id(self) -> int:
        """The id that fills rows up; they are masked, so that 0 does where the tokenizer names none."""
        pad = self.processor.tokenizer.pad_token_id
        return 0 if pad is None else pad

    def save(self, folder: Path) -> None:
        """Write the adapter as peft does, or the checkpoint in the official layout. All processes call it, and the
        first one writes."""
        adapter = self.config.method == "lora"
        parts = [part for module in lora.adapted(self.model).values() for part in (module.lora_A, module.lora_B)]
        with full_parameters(parts if adapter else self.model.modules(), self.processes):
            if not self.processes.first:
                return
            if adapter:
                lora.save_adapter(self.model, folder, self.config.model, self.base_fingerprint or None)
                return
            unwrapped(self.model).save_pretrained(folder)
            self.processor.save_pretrained(folder)


def unwrapped(model: Qwen2AudioForConditionalGeneration) -> Qwen2AudioForConditionalGeneration:
    """A model of the public class with the same parameters; FSDP changes the class of the trained one."""
    if type(model) is Qwen2AudioForConditionalGeneration:
        return model
    with without_weights():
        out = Qwen2AudioForConditionalGeneration(copy.deepcopy(model.config))
    out.load_state_dict(dict(model.named_parameters(remove_duplicate=False)), assign=True)
    out.generation_config = model.generation_config
    return out


def set_up(config: TrainConfig) -> RunSetup:
    """Check `config` and load what it names. All processes call it. Raises ConfigError, WeightsError."""
    processes = join(config.parallel, parse_device(config.device, "device"))
    check_shares(config.accumulate, processes)
    metrics.uses_tensorboard(config.tensorboard)
    for key, path in (("train", config.data.train), ("eval", config.data.eval)):
        if not Path(path or ".").exists():  # before the weights are read, which takes longer
            raise ConfigError(f"data.{key} is {path!r}, and there is no such file here.")
    output = Path(config.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        if processes.first and checkpoint.newest(output) is None:
            (output / REPORT).unlink(missing_ok=True)  # of a run without a checkpoint; its rows may be repaired by now
    except OSError as error:
        raise ConfigError(f"Cannot write to output = {config.output!r}: {error.strerror}.") from None
    processes.gather(None)  # no process writes to the report before the old one is removed
    device = processes.device
    keep_compiled()
    autocast = autocast_wanted(config.precision, device)
    # Trained parameters are fp32. With LoRA the others never change, so that bf16 halves their memory at no cost.
    dtype = torch.bfloat16 if autocast and config.method == "lora" else torch.float32
    source = find(config.model)  # folder or hub name
    processor = Qwen2AudioProcessor.from_pretrained(source)
    quantize = config.quantize or None
    model = Qwen2AudioForConditionalGeneration.from_pretrained(
        source, dtype=None if quantize else dtype, device_map=device, quantize=quantize
    )
    stop_at_turn_end(model, processor)
    if device.type == "cpu" and autocast:
        model.set_attn_implementation("eager")  # torch's fused attention takes 2.5 times as long there
    if config.method == "full" and is_quantized(model):
        raise ConfigError(f"{source} is quantised, and such weights cannot be trained; use method = 'lora'.")
    compute_as_with_gradients(model, config.parts)
    quarantine = Quarantine(output / REPORT)
    return RunSetup(config, model, processor, quarantine, autocast, processes, lora.base_fingerprint(model))


def stop_at_turn_end(model: Qwen2AudioForConditionalGeneration, processor: Qwen2AudioProcessor) -> None:
    """Let `generate` of the trained checkpoint stop at <|im_end|>, which ends every answer of a conversation; the
    generation_config of base checkpoints does not name it."""
    token = processor.tokenizer.convert_tokens_to_ids(IM_END)
    ends = model.generation_config.eos_ids
    if token is not None and processor.tokenizer.convert_ids_to_tokens(token) == IM_END and token not in ends:
        model.generation_config = replace(model.generation_config, eos_token_id=[*ends, token])


def keep_compiled() -> None:
    """Enlarge oneDNN's cache of compiled primitives, unless the environment sets its size.

    Every length of a clip needs its own convolutions, and the default of 1024 entries is exceeded within an epoch. Has
    no effect in a process that has used oneDNN already.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")


def dataset_of(setup: RunSetup, *, evaluation: bool = False, pairs: bool = False) -> Dataset:
    """The training data, or the evaluation data without augmentation; rows that cannot be used are reported.

    pairs: for DPO. Raises PromptError (also where no row can be used), ConfigError.
    """
    config = setup.config.data
    if not config.max_tokens:
        config = replace(config, max_tokens=setup.model.config.text_config.max_position_embeddings)
    if evaluation:
        config = replace(config, augment=AugmentConfig())
    folder, saved = setup.output, None
    if not evaluation and checkpoint.newest(folder) is not None:
        # A run that goes on uses the lengths it began with: a clip repaired meanwhile would move rows between batches.
        saved = _read_lengths(folder / LENGTHS)
    path = config.eval if evaluation else config.train
    dataset = Dataset(path, setup.processor, config, seed=setup.config.seed, lengths=saved, pairs=pairs)
    if saved is not None and len(saved) != len(dataset):
        # The data was changed; that the run is another one is said when its checkpoint is read.
        return Dataset(path, setup.processor, config, seed=setup.config.seed, pairs=pairs)
    lengths = dataset.lengths()
    if setup.processes.first:
        for bad in dataset.bad_rows:
            setup.quarantine.add(bad)
        if not evaluation and saved is None:
            _write_lengths(folder / LENGTHS, lengths)
    if not lengths.any():
        raise PromptError(f"No row of {path} could be used. {setup.quarantine.summary()}")
    if not evaluation:
        _check_something_is_trained(dataset, setup.config.parts)
    return dataset


def _check_something_is_trained(dataset: Dataset, parts: Sequence[str]) -> None:
    """Raises ConfigError where only parts for clips are trained, and no row has one."""
    if "language_model" not in parts and dataset.count_without_clip() == np.count_nonzero(dataset.lengths()):
        raise ConfigError(
            f"parts is {list(parts)}, and no row of {dataset.path} has a clip, so that nothing would be trained; add "
            "'language_model' to parts, or name the rows' clips."
        )


def data_note(dataset: Dataset) -> str:
    """One sentence on a run's training data: how many rows are used, and how many of them have no clip."""
    rows, usable = len(dataset), int((dataset.lengths() > 0).sum())
    left_out = f" ({rows - usable} cannot be used and are left out)" if usable < rows else ""
    return f"training on {usable} of {rows} rows{left_out}; {dataset.count_without_clip()} of them have no clip"


def _read_lengths(path: Path) -> np.ndarray | None:
    try:
        return np.asarray(np.load(path))
    except (OSError, ValueError, EOFError):  # the run began before lengths were saved
        return None


def _write_lengths(path: Path, lengths: np.ndarray) -> None:
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, lengths)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}.") from None


def source_of(
    setup: RunSetup,
    dataset: Dataset,
    read: Callable[..., Iterable[list[Any]]],
    collate: Callable[[list[Any], int], MicroBatch],
) -> Source:
    """Micro-batches of `dataset`. read: `batches.read` or `batches.read_pairs`; collate(rows, pad id): makes one of
    usable rows."""
    data = setup.config.data

    def order(epoch: int) -> list[list[int]]:
        return batches(
            dataset,
            batch_size=data.batch_size,
            batch_tokens=data.batch_tokens,
            seed=setup.config.seed,
            epoch=epoch,
            usable_only=True,
        )

    def micro_batches(plan: list[list[int]], epoch: int) -> Iterator[MicroBatch | None]:
        for rows in read(dataset, plan, setup.quarantine, epoch=epoch, workers=data.workers):
            yield collate(rows, setup.pad_id) if rows else None

    return Source(order, micro_batches)


def fingerprint(kind: str, config: TrainConfig, rows: int) -> dict[str, Any]:
    """The settings and the data that identify a run; it goes on from a checkpoint only where they are the same."""
    settings = {key: value for key, value in asdict(config).items() if key not in CHANGEABLE}
    settings["data"].pop("workers")
    with Path(config.data.train).open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    return {"kind": kind, "rows": rows, checkpoint.DATA_DIGEST: digest, **settings}
