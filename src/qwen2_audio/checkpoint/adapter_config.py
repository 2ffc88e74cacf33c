"""An adapter's adapter_config.json, in peft's format: only adapters that equal y = W x + scale B A x are accepted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..errors import WeightsError

ADAPTER_CONFIG_FILE = "adapter_config.json"

# Initialisations that leave the base's weights as they are. Others (PiSSA, CorDA, OLoRA, LoRA-GA, LoftQ ...) subtract
# B A from the base or quantise it, so that the adapter fits a changed base that no checkpoint holds.
_INITIALISATIONS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
# Keys whose value changes nothing: descriptions, what selects the Linears (the tensors say it), and what is used while
# an adapter is made or trained. Any other key that is not empty, also one that is newer than this list, is refused.
_NO_EFFECT = (
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "init_lora_weights", "bias", "megatron_config", "megatron_core",
    "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "runtime_config",
    "lora_dtype", "lorap_lr_ratio", "lorap_emb_lr",  # ms-swift's
)  # fmt: skip


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The content of `folder`'s adapter_config.json.

    Raises WeightsError, which names the key, for an adapter that is no plain LoRA on unchanged weights.
    """
    path = folder / ADAPTER_CONFIG_FILE
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        alpha = config["lora_alpha"]
        number = isinstance(alpha, int | float) and not isinstance(alpha, bool) and math.isfinite(alpha)
        if config["peft_type"] != "LORA" or not number:
            raise ValueError
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise WeightsError(f"{path} does not describe a LoRA adapter with its lora_alpha.") from None
    initialisation = config.get("init_lora_weights")
    if (initialisation.lower() if isinstance(initialisation, str) else initialisation) not in _INITIALISATIONS:
        raise WeightsError(
            f"{path} says init_lora_weights = {initialisation!r}, which changes the base's weights: on the unchanged "
            "checkpoint the adapter would make another model. Convert it to plain LoRA with peft: "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...)."
        )
    if config.get("alora_invocation_tokens"):
        raise WeightsError(
            f"{path} uses alora_invocation_tokens: an activated LoRA, which acts only after its invocation in the "
            "prompt; only plain LoRA can be read, which acts everywhere."
        )
    other = [key for key, value in config.items() if value and key not in _NO_EFFECT]
    if other or config.get("bias", "none") != "none":
        raise WeightsError(f"{path} uses {(other or ['bias'])[0]}; only plain LoRA can be read.")
    return config
