"""The reference's config of the tiny shape, and its names of our parameters. Only tests/parity imports transformers."""

from __future__ import annotations

from typing import Any

from kit.tiny import tiny_dict

# The published fixture's text model: as many key heads as heads.
REFERENCE_TEXT: dict[str, Any] = {"num_key_value_heads": 4, "max_position_embeddings": 512, "rms_norm_eps": 1e-5}
PREFIXES = {
    "audio_tower.": "model.audio_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
    "language_model.model.": "model.language_model.",
    "language_model.lm_head.": "lm_head.",
}


def reference_name(name: str) -> str:
    """What the reference calls our parameter `name`."""
    prefix = next(p for p in PREFIXES if name.startswith(p))
    return PREFIXES[prefix] + name.removeprefix(prefix)


def reference_shape(
    audio: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """Keywords of both Qwen2AudioConfigs: the tiny shape with `REFERENCE_TEXT`, then with these changes."""
    return tiny_dict(audio, {"model_type": "qwen2", **REFERENCE_TEXT, **(text or {})}, **more)
