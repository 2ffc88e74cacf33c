"""From a name to an AudioChat: which checkpoint, on which device, in which dtype, and a line on each choice."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.locate import NANO as NANO
from ..checkpoint.locate import about as about
from ..checkpoint.locate import find as find
from ..checkpoint.locate import nano_path as nano_path
from ..errors import ConfigError

if TYPE_CHECKING:
    from .chat import AudioChat

NUM_SPECULATIVE_TOKENS = 4  # EngineSettings has the same

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
    **renamed: Any,
) -> AudioChat:
    """Load a checkpoint to talk to.

    Args:
        name: a folder, `owner/name` on the hub, or "nano"; None is $QWEN2_AUDIO_MODEL, else the bundled nano.
        device: "auto" (the GPU if there is one), "cpu", "cuda", "cuda:1", an index, a torch.device.
        dtype: "auto" picks what this machine runs well, not what the file says: bfloat16 on a GPU; on a CPU float32 if
            it has room, else quantised to int8, else to int4. Or "float32", "float16", "bfloat16", a torch.dtype.
            `.notes` says which, why.
        quantize: "int8" or "int4" quantises the weights while they are loaded. A folder that `qwen2-audio quantize`
            wrote needs no word.
        kv_cache: how keys and values are stored on the CPU: "float32", "float16" or "int8"; None is float16 for a
            quantised model, else the dtype.
        adapter: folder of a LoRA adapter, as `qwen2-audio train` or peft write it; it is added to the weights, or runs
            beside them where they are quantised.
        attn_implementation: "sdpa" (default), "eager", "flash_attention_2".
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub.
        enable_prefix_caching: keep encoded clips, keys and values while the engine's memory lasts (docs/engine.md), so
            that a second question about a clip needs neither the encoder nor its part of the prompt again.
        tensor_parallel: divide the language model among the processes of torchrun. The first one answers; the others
            call `engine.executor.tp_worker.run_worker(m.model)`, which returns when it ends.
        draft: a smaller checkpoint with the same tokenizer, named as `name` is, that proposes what this one will
            say; proposals are checked, so that answers stay the same and come sooner where it is often right.
        num_speculative_tokens: tokens that it proposes a step, at most.

    Raises:
        WeightsError: the checkpoint or the adapter is absent, unreachable, damaged, or they do not fit together.
        ConfigError: an option, or the checkpoint's config, cannot work.
        CapacityError: this machine has no room for it.
    """
    from ..checkpoint.config import Qwen2AudioConfig
    from ..engine.settings import EngineSettings, current_names
    from ..inputs.processor import Qwen2AudioProcessor
    from ..native import library
    from ..pretrained import Qwen2AudioForConditionalGeneration
    from . import drafts
    from .chat import AudioChat
    from .placement import choose_placement

    where = find(name)
    options: dict[str, Any] = {
        "enable_prefix_caching": enable_prefix_caching,
        "num_speculative_tokens": num_speculative_tokens,
    }
    options |= current_names(renamed, ("reuse", "draft_tokens"), "load()")
    settings = EngineSettings(**options)
    # The small files first: what cannot work is said before 17 GB are fetched.
    config = Qwen2AudioConfig.from_pretrained(where, revision=revision, local_files_only=local_files_only)
    placement = choose_placement(config, device, dtype, quantize, where)
    if tensor_parallel and adapter is not None:
        raise ConfigError(
            "tensor_parallel takes no adapter, which fits whole weights; use qwen2-audio merge, and load what it makes."
        )
    if tensor_parallel and draft is not None:
        raise ConfigError("tensor_parallel takes no draft: only a whole model is guessed for; leave one of them out.")
    processor = Qwen2AudioProcessor.from_pretrained(where, revision=revision, local_files_only=local_files_only)
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
    guessing = None
    if draft is not None:
        guessing, note = drafts.load(draft, model, local_files_only)
        notes += (note,)
    return AudioChat(model, processor, settings, name=str(where), about=about(where), notes=notes, draft=guessing)


def _add(adapter: str | Path, model: Any, *, quantized: bool) -> str:
    """The adapter into the weights, or beside them; what is said of it."""
    from .. import lora

    linears = len(lora.attach(model, adapter))
    if quantized:
        return (
            f"The adapter {adapter} runs beside {linears} quantised Linears, slower than without it; to have it in the "
            "weights, use qwen2-audio merge on the plain checkpoint, then qwen2-audio quantize."
        )
    lora.merge(model)
    return f"The adapter {adapter} was added to {linears} Linears."
