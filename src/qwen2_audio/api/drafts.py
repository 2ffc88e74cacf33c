"""Load the draft model of speculative decoding beside a model, and check that their tokens are the same."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint.config import Qwen2AudioConfig
from ..engine.speculative.draft_model import check_same_tokens
from ..errors import ConfigError
from ..inputs.processor import Qwen2AudioProcessor
from ..pretrained import Qwen2AudioForConditionalGeneration
from .placement import choose_placement


def check_files(
    where: str | Path, config: Qwen2AudioConfig, processor: Qwen2AudioProcessor, local_files_only: bool = False
) -> None:
    """Raises ConfigError if the token ids of the draft at `where` differ from those of `config` and `processor`."""
    check_same_tokens(config, Qwen2AudioConfig.from_pretrained(where, local_files_only=local_files_only))
    other = Qwen2AudioProcessor.from_pretrained(where, local_files_only=local_files_only)
    ours, theirs = processor.tokenizer.get_vocab(), other.tokenizer.get_vocab()
    if ours != theirs:
        token = min(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
        raise ConfigError(
            f"The tokenizer of the draft {where} has {_id(theirs.get(token))} for {token!r} and the model's has "
            f"{_id(ours.get(token))}; a draft must be made for the same tokenizer."
        )


def load(
    where: str | Path, model: Qwen2AudioForConditionalGeneration, local_files_only: bool = False
) -> tuple[Qwen2AudioForConditionalGeneration, str]:
    """The draft model on `model`'s device, in the dtype or scheme that `choose_placement` picks, and a note on it."""
    config = Qwen2AudioConfig.from_pretrained(where, local_files_only=local_files_only)
    placement = choose_placement(config, model.device, where=where)
    draft = Qwen2AudioForConditionalGeneration.from_pretrained(
        where,
        dtype=placement.dtype,
        device_map=placement.device,
        quantize=placement.quantize,
        local_files_only=local_files_only,
    )
    return draft, f"The draft {where}: {placement.reason}"


def _id(token: int | None) -> str:
    return "no id" if token is None else f"id {token}"
