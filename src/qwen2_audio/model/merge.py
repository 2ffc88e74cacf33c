"""Match the clips of a batch with the placeholders of its prompts.

B rows, T positions, A clips in the order of their placeholders (row by row, left to right), N_a audio tokens of clip a.

Two kinds of prompt are accepted, and distinguished by the number of placeholders:

    expanded  N_a placeholders per clip, as our processor writes them
    legacy    one placeholder per clip (transformers 4.45 and before), which is expanded here
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import PromptError


@dataclass
class EmbeddedPrompt:
    """A batch of prompts as inputs of the language model."""

    input_ids: torch.Tensor  # int64 [B, T], placeholders expanded
    attention_mask: torch.Tensor  # int64 [B, T]
    inputs_embeds: torch.Tensor  # [B, T, H], with the audio embeddings at the placeholders
    labels: torch.Tensor | None = None  # int64 [B, T]


@dataclass
class Slots:
    """Prompts with expanded placeholders, and the row of each clip."""

    input_ids: torch.Tensor  # int64 [B, T]
    attention_mask: torch.Tensor  # int64 [B, T]
    labels: torch.Tensor | None  # int64 [B, T]
    clip_rows: list[int]  # the row of each clip; -1 for a clip without audio tokens


def find_slots(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor | None,
    tokens: list[int],
    *,
    audio_id: int,
    pad_id: int,
    ignore_index: int,
) -> Slots:
    """Match the clips, of `tokens[a]` = N_a audio tokens each, with the placeholders of the prompts.

    Raises:
        PromptError: the numbers do not match, or a clip's placeholders are not consecutive positions of one row.
    """
    is_audio = input_ids == audio_id
    placeholders, expected = int(is_audio.sum()), sum(tokens)
    if placeholders == expected:
        return Slots(input_ids, attention_mask, labels, _clip_rows(is_audio, tokens))
    if placeholders != len(tokens):
        raise PromptError(
            f"Audio features and audio tokens do not match, tokens: {placeholders}, features: {expected}. "
            f"{len(tokens)} clips need either {expected} placeholders or one each; make the prompt with the processor."
        )
    if 0 in tokens:
        raise PromptError(
            f"Clip {tokens.index(0) + 1} gives 0 audio tokens: it is shorter than 21 ms, and would not be heard."
        )
    rows = is_audio.nonzero()[:, 0].tolist()
    return _expand(input_ids, attention_mask, labels, tokens, is_audio, rows, pad_id, ignore_index)


def _clip_rows(is_audio: torch.Tensor, tokens: list[int]) -> list[int]:
    """The row of each clip in an expanded prompt. Raises PromptError unless its positions are one run in one row."""
    rows, columns = (t.tolist() for t in is_audio.nonzero(as_tuple=True))
    clip_rows, start = [], 0
    for number, count in enumerate(tokens, 1):
        end = start + count
        if count and (rows[start] != rows[end - 1] or columns[end - 1] - columns[start] != count - 1):
            raise PromptError(
                f"Clip {number} has {count} audio tokens, but the prompt's placeholders are not in one run of that "
                "length there; pass the clips in the order of their placeholders, row by row."
            )
        clip_rows.append(rows[start] if count else -1)
        start = end
    return clip_rows


def _expand(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor | None,
    tokens: list[int],
    is_audio: torch.Tensor,
    clip_rows: list[int],
    pad_id: int,
    ignore_index: int,
) -> Slots:
    """Expand a legacy prompt: repeat each placeholder N_a times, then pad all rows on the side of their padding."""
    repeats = torch.ones_like(input_ids)
    repeats[is_audio] = torch.tensor(tokens, device=input_ids.device)
    labels = labels if labels is None else labels.masked_fill(is_audio, ignore_index)
    on_the_left = padded_left(attention_mask)
    length = int(repeats.sum(1).max())

    def expanded(values: torch.Tensor, fill: int) -> torch.Tensor:
        out = values.new_full((values.shape[0], length), fill)
        for row, (value, repeat) in enumerate(zip(values, repeats, strict=True)):
            repeated = value.repeat_interleave(repeat)
            if on_the_left:
                out[row, length - repeated.numel() :] = repeated
            else:
                out[row, : repeated.numel()] = repeated
        return out

    return Slots(
        expanded(input_ids, pad_id),
        expanded(attention_mask, 0),
        None if labels is None else expanded(labels, ignore_index),
        clip_rows,
    )


def check_tensor(name: str, value: object) -> None:
    """Raises PromptError for lists and numpy arrays, which the processor returns without return_tensors='pt'."""
    if not isinstance(value, torch.Tensor):
        raise PromptError(
            f"{name} is a {type(value).__name__}; expected a tensor: make it with the processor's return_tensors='pt'."
        )


def padded_left(attention_mask: torch.Tensor) -> bool:
    """Whether a mask 0/1 [B, T] is padded on the left; True without padding. Raises PromptError for both sides."""
    left, right = bool((attention_mask[:, 0] == 0).any()), bool((attention_mask[:, -1] == 0).any())
    if left and right:
        raise PromptError("attention_mask has padding on both sides; pad all rows of a batch on one side.")
    return left or not right


def position_ids_of(attention_mask: torch.Tensor) -> torch.Tensor:
    """Positions int64 [B, T] that count only the valid tokens of a mask 0/1 [B, T]; padding gets 0."""
    return (attention_mask.cumsum(-1) - 1).clamp(min=0).masked_fill(attention_mask == 0, 0)
