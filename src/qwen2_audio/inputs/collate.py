"""Pad the ids and log-mels of several prompts into the tensors of one batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .prompt import Prompt


def to_tensors(prompts: Sequence[Prompt], pad_id: int) -> dict[str, torch.Tensor]:
    """The inputs of `generate` for several prompts, padded on the left.

    Returns `input_ids` and `attention_mask` int64 [B, T]; with clips, also the tensors of `stack_clips`.
    """
    longest = max(len(prompt.ids) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt.ids) :] = torch.tensor(prompt.ids)
        mask[row, longest - len(prompt.ids) :] = 1
    clips = [clip for prompt in prompts for clip in prompt.clips]
    if not clips:
        return {"input_ids": ids, "attention_mask": mask}
    frames = [count for prompt in prompts for count in prompt.frames]
    return {"input_ids": ids, "attention_mask": mask, **stack_clips(clips, frames)}


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a CPU tensor to `device`; to a GPU through pinned memory, asynchronously."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # torch keeps the pinned memory until the copy is done


def stack_clips(clips: Sequence[np.ndarray], frames: Sequence[int]) -> dict[str, torch.Tensor]:
    """Log-mels float32 [mel bins, F_i] with `frames[i]` valid frames each, padded to the longest.

    Returns `input_features` float32 [A, mel bins, F] and `feature_attention_mask` int32 [A, F].
    """
    width = max(clip.shape[1] for clip in clips)
    features = torch.zeros(len(clips), clips[0].shape[0], width)
    mask = torch.zeros(len(clips), width, dtype=torch.int32)
    for index, (clip, count) in enumerate(zip(clips, frames, strict=True)):
        features[index, :, : clip.shape[1]] = torch.from_numpy(clip)
        mask[index, :count] = 1
    return {"input_features": features, "feature_attention_mask": mask}
