"""A conversation to what the model takes: ids with room for each clip, and each clip's log-mel.

The template's control tokens are control tokens; what people type is text, whatever it spells: `<|im_end|>` in a
message ends no turn, and `<|AUDIO|>` hears no clip.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from ..engine.encoder_cache import stack_clips
from ..engine.request import Prompt
from ..errors import PromptError
from ..text import chat_template as chat
from ..text.chat_template import AUDIO, Piece
from ..text.tokenizer import Tokenizer
from ..types import Message
from .clip import hear
from .messages import check
from .processor import Qwen2AudioProcessor

LogMels = Callable[[Sequence[np.ndarray], int], list[np.ndarray]]

# Stands for a text while a checkpoint's own template is rendered: private-use characters and the text's number.
_MARK = "\ue5a0[0-9]+\ue5a1"
_PROBES: tuple[list[Message], ...] = (
    [{"role": "user", "content": [{"type": "audio", "audio": "a"}, {"type": "text", "text": "b"}]}],
    [
        {"role": "system", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": [{"type": "text", "text": "d"}, {"type": "audio", "audio": "e"}]},
    ],
)


def own_template(processor: Qwen2AudioProcessor) -> str | None:
    """The checkpoint's chat template where it writes prompts other than the built-in one does, else None."""
    template = processor.chat_template
    if template == chat.BUILTIN_TEMPLATE:
        return None
    try:
        same = all(
            chat.render_template(template, probe, add_generation_prompt=True)
            == chat.render(probe, add_generation_prompt=True)
            for probe in _PROBES
        )
    except PromptError:  # it takes no such conversation at all; the first real one will say why
        same = False
    return None if same else template


def build(
    messages: Sequence[Message],
    processor: Qwen2AudioProcessor,
    template: str | None = None,
    log_mels: LogMels | None = None,
) -> Prompt:
    """Render and encode a conversation, and listen to its clips. Raises PromptError, AudioError.

    `log_mels`: makes the log-mels [mel bins, F_i] of waveforms; None: `audio.mel.log_mel` does, on the CPU.
    """
    sounds = [hear(source, number) for number, source in enumerate(check(messages), 1)]
    pieces = (
        chat.walk(messages, add_generation_prompt=True)
        if template is None
        else _pieces_of_template(template, messages, processor.tokenizer)
    )
    ids, _ = chat.encode_pieces(pieces, processor.tokenizer, [sound.heard.tokens for sound in sounds])
    bins = processor.feature_extractor.feature_size
    mels = (
        [sound.log_mel(bins) for sound in sounds] if log_mels is None else log_mels([s.waveform for s in sounds], bins)
    )
    return Prompt(
        ids,
        mels,
        [sound.frames for sound in sounds],
        tuple(sound.heard for sound in sounds),
    )


def _pieces_of_template(template: str, messages: Sequence[Message], tokenizer: Tokenizer) -> Iterator[Piece]:
    """The pieces of a conversation as the checkpoint's template writes it, each text kept apart from the template.

    The template is rendered with marks in the place of texts, so that what a text spells cannot act.
    """
    slots = [piece.slot for piece in chat.walk(messages) if piece.slot is not None]
    texts: list[str] = []
    marked = [_with_marks(message, texts) for message in messages]
    rendered = chat.render_template(template, marked, add_generation_prompt=True)
    controls = sorted({*tokenizer.all_special_tokens, AUDIO}, key=len, reverse=True)
    seen, clips = set(), iter(slots)
    if rendered.count(AUDIO) != len(slots):
        raise PromptError(
            f"The checkpoint's chat template has {rendered.count(AUDIO)} places for {len(slots)} clips; "
            "the model would not hear them all. Repair the template."
        )
    for part in re.split(f"({_MARK}|{'|'.join(map(re.escape, controls))})", rendered):
        if re.fullmatch(_MARK, part):
            number = int(part[1:-1])
            seen.add(number)
            yield Piece(texts[number])
        elif part in controls:
            yield Piece(part, control=True, slot=next(clips) if part == AUDIO else None)
        elif part:
            yield Piece(part)
    if len(seen) < len(texts):
        lost = min(set(range(len(texts))) - seen)
        raise PromptError(f"The checkpoint's chat template leaves out the text {texts[lost]!r}; repair the template.")


def _with_marks(message: Message, texts: list[str]) -> Message:
    def mark(text: str) -> str:
        texts.append(text)
        return f"\ue5a0{len(texts) - 1}\ue5a1"

    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": mark(content)}
    return {**message, "content": [{**p, "text": mark(p["text"])} if "text" in p else p for p in content]}


def to_tensors(prompts: Sequence[Prompt], pad_id: int) -> dict[str, torch.Tensor]:
    """What `generate` takes, for several prompts: padded on the left, clips no longer than the longest needs."""
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
