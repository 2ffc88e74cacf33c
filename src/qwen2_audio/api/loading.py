"""`load`: from a checkpoint's name to an AudioChat, with a note on each choice that was made."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.locate import about, find
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..longform.settings import TranscriptionSettings
    from .chat import AudioChat

MAX_LORAS = 8  # adapters by request in memory; as in EngineSettings
NUM_SPECULATIVE_TOKENS = 4  # tokens that the draft model proposes per step; as in EngineSettings

logger = logging.getLogger(__name__)


def load(
    name: str | Path | None = None,
    *,
    device: Any = "auto",
    dtype: Any = "auto",
    quantize: str | None = None,
    kv_cache: str | None = None,
    adapter: str | Path | None = None,
    attn_implementation: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    enable_prefix_caching: bool = True,
    tensor_parallel: bool = False,
    draft: str | Path | None = None,
    num_speculative_tokens: int = NUM_SPECULATIVE_TOKENS,
    aligner: str | Path | None = None,
    lora_folder: str | Path | None = None,
    lora_modules: Mapping[str, str | Path] | None = None,
    max_loras: int = MAX_LORAS,
    **renamed: Any,
) -> AudioChat:
    """Load a checkpoint for conversations.

    Args:
        name: a folder, `owner/name` on the hub, or "nano"; None: $QWEN2_AUDIO_MODEL, else the bundled nano.
        device: "auto" (the GPU if there is one), "cpu", "cuda", "cuda:1", an index, a torch.device.
        dtype: "auto" chooses for this machine, whatever the file's dtype: bfloat16 on a GPU; on a CPU float32 if it
            fits in memory, else quantised to int8, else to int4. Or "float32", "float16", "bfloat16", a torch.dtype.
            `.notes` says what was chosen, and why.
        quantize: "int8" or "int4" quantises the weights while they are loaded. Leave it out for a folder that
            `qwen2-audio quantize` wrote.
        kv_cache: the storage of keys and values on the CPU: "float32", "float16" or "int8"; None: float16 for a
            quantised model, else the dtype.
        adapter: folder of a LoRA adapter that `qwen2-audio train` or peft wrote. It is merged into plain weights, and
            computed beside quantised weights.
        attn_implementation: "sdpa" (default), "eager", "flash_attention_2".
        revision: branch, tag or commit on the hub.
        local_files_only: use only local files and the hub's cache.
        enable_prefix_caching: keep encoded clips and the KV cache of prompts while the engine's memory lasts
            (docs/engine.md), so that a second question about a clip does not compute them again.
        tensor_parallel: divide the language model among the processes of torchrun. The first process answers; the
            others call `engine.executor.tp_worker.run_worker(m.model)`, which returns when the first one ends.
        draft: a smaller checkpoint with the same tokenizer, named like `name`, for speculative decoding: it proposes
            tokens, which the model verifies. Answers stay the same, and are faster where its proposals are accepted.
        num_speculative_tokens: the most tokens that the draft proposes per step.
        aligner: a file that `qwen2-audio train aligner` wrote, for times of words; None: the checkpoint's own, if it
            has one.
        lora_folder: a folder of LoRA adapters, each in a folder of its own, which a request may name:
            `chat(..., adapter="dogs")`. One that is put there later is found; each is read at first use.
        lora_modules: folders of adapters by name, in the same way.
        max_loras: how many of those are in memory at a time; the least recently used one goes first.

    Raises:
        WeightsError: the checkpoint or the adapter is missing, unreachable or damaged, or they do not match.
        ConfigError: an option, or the checkpoint's config, cannot work.
        CapacityError: the model needs more memory than this machine has.
    """
    from ..checkpoint.config import Qwen2AudioConfig
    from ..engine.settings import EngineSettings, current_names
    from ..inputs.processor import Qwen2AudioProcessor
    from ..longform.settings import read_settings
    from ..native import library
    from ..pretrained import Qwen2AudioForConditionalGeneration
    from . import drafts
    from .chat import AudioChat
    from .placement import choose_placement

    where = find(name)
    options = dict[str, Any](enable_prefix_caching=enable_prefix_caching, num_speculative_tokens=num_speculative_tokens)
    options |= {"lora_folder": lora_folder, "lora_modules": lora_modules or {}, "max_loras": max_loras}
    settings = EngineSettings(**options | current_names(renamed, ("reuse", "draft_tokens"), "load()"))
    # Read the small files first: errors in them and in the options are raised before 17 GB are downloaded.
    config = Qwen2AudioConfig.from_pretrained(where, revision=revision, local_files_only=local_files_only)
    placement = choose_placement(config, device, dtype, quantize, where)
    _check_combinations(tensor_parallel, adapter, draft, by_request=settings.adapters_allowed)
    processor = Qwen2AudioProcessor.from_pretrained(where, revision=revision, local_files_only=local_files_only)
    transcription = _with_aligner(read_settings(where, revision=revision, local_files_only=local_files_only), aligner)
    if draft is not None:
        drafts.check_files(draft := find(draft), config, processor, local_files_only)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(
        where,
        dtype=placement.dtype,
        device_map=placement.device,
        attn_implementation=attn_implementation,
        quantize=placement.quantize,
        kv_cache=kv_cache,
        revision=revision,
        local_files_only=local_files_only,
        tensor_parallel=tensor_parallel,
    )
    logger.info("%s: %s", where, placement.reason)
    notes: tuple[str, ...] = (placement.reason,)
    if placement.quantize is not None and library.load().library is None:
        notes += (library.load().reason,)
    if adapter is not None:
        notes += (_add(adapter, model, quantized=placement.quantize is not None),)
    draft_model = None
    if draft is not None:
        draft_model, note = drafts.load(draft, model, local_files_only)
        notes += (note,)
    return AudioChat(
        model,
        processor,
        settings,
        name=str(where),
        about=about(where),
        notes=notes,
        draft=draft_model,
        transcription=transcription,
    )


def _check_combinations(tensor_parallel: bool, adapter: Any, draft: Any, *, by_request: bool) -> None:
    """Raises ConfigError for options of `load` that exclude each other."""
    if tensor_parallel and adapter is not None:
        raise ConfigError(
            "tensor_parallel takes no adapter, which fits whole weights; use qwen2-audio merge, and load what it makes."
        )
    if tensor_parallel and draft is not None:
        raise ConfigError("tensor_parallel takes no draft: only a whole model is guessed for; leave one of them out.")
    if by_request and (tensor_parallel or adapter is not None):
        other = "tensor_parallel, which divides them" if tensor_parallel else "adapter, which changes them"
        raise ConfigError(f"lora_folder and lora_modules need the checkpoint's own weights; leave out {other}.")


def _with_aligner(settings: TranscriptionSettings, aligner: str | Path | None) -> TranscriptionSettings:
    """The settings with another aligner than the checkpoint's own. Raises ConfigError for a file that is none."""
    from ..longform.word_times_head import AlignerHead

    if aligner is None:
        return settings
    AlignerHead.read(Path(aligner))
    return replace(settings, aligner=str(aligner))


def _add(adapter: str | Path, model: Any, *, quantized: bool) -> str:
    """Merge the adapter into plain weights, or attach it to quantised ones; returns a note on it."""
    from .. import lora

    linears = len(lora.attach(model, adapter))
    if quantized:
        return (
            f"The adapter {adapter} runs beside {linears} quantised Linears, slower than without it; to have it in the "
            "weights, use qwen2-audio merge on the plain checkpoint, then qwen2-audio quantize."
        )
    lora.merge(model)
    return f"The adapter {adapter} was added to {linears} Linears."
