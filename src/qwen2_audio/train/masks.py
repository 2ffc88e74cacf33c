"""The loss mask: an answer of the assistant and the token that ends it are trained on, nothing else.

Ids and mask come from one pass over the chat template (`text.chat_template`), so that they always match; `check_mask`
then compares them with the answers independently, for every example.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from ..errors import PromptError
from ..inputs.prompt import base_prefix, encode_segments, split_controls
from ..text import chat_template as chat
from ..text.chat_template import AUDIO, AUDIO_BOS, AUDIO_EOS, IM_END, IM_START, AudioSlot, Segment
from ..text.tokenizer import Tokenizer
from ..types import Message

END_OF_TEXT = "<|endoftext|>"  # ends an answer of the base model

Encoded = tuple[list[int], list[bool]]


def encode_chat(
    messages: Sequence[Message], audio_tokens: Sequence[int], tokenizer: Tokenizer, learned: Collection[int]
) -> Encoded:
    """Ids of a conversation in the built-in template and, for each, whether the loss is taken there.

    audio_tokens: positions of each clip. learned: the messages, by index, whose text and `<|im_end|>` are trained on.
    Raises PromptError.
    """
    return _encode(_only_learned(messages, learned), audio_tokens, tokenizer)


def encode_base(prompt: str, target: str, audio_tokens: int, tokenizer: Tokenizer) -> Encoded:
    """Ids and mask of the base model's form: `<|audio_bos|><|AUDIO|><|audio_eos|>`, prompt, target, `<|endoftext|>`.

    Control tokens that are typed in prompt or target (`<|en|>`, also the clip's own or the final one) act where the
    tokenizer has them, as for the reference's processor; none is added twice. Raises PromptError.
    """
    known = sorted(filter(None, tokenizer.all_special_tokens), key=len, reverse=True)
    controls = re.compile(f"({'|'.join(map(re.escape, known))})")
    clips = prompt.count(AUDIO)
    if clips > 1 or any(token in target for token in (AUDIO, AUDIO_BOS, AUDIO_EOS)):
        raise PromptError(f"The row has one clip, and {AUDIO} is typed {clips} times in its prompt or in its answer.")
    slot = AudioSlot(1, None, "the row's clip")
    segments = [] if clips else base_prefix(slot)
    segments += [
        replace(segment, slot=slot) if segment.control and segment.text == AUDIO else segment
        for segment in split_controls(prompt, controls)
    ]
    segments += split_controls(target.removesuffix(END_OF_TEXT), controls, trained=True)
    segments.append(Segment(END_OF_TEXT, control=True, trained=True))
    return _encode(segments, [audio_tokens], tokenizer)


def _only_learned(messages: Sequence[Message], learned: Collection[int]) -> Iterator[Segment]:
    turn = -1 if messages[0]["role"] == "system" else -2  # the template's default system turn is none of `messages`
    for segment in chat.render_segments(messages):
        turn += segment.control and segment.text == IM_START
        yield segment if turn in learned else replace(segment, trained=False)


def _encode(segments: Iterable[Segment], audio_tokens: Sequence[int], tokenizer: Tokenizer) -> Encoded:
    """Trained and untrained stretches are encoded separately, as prompt and answer are when the model generates.

    Encoded together, the line end of the template and one at the start of an answer would become one token. The model
    never has to generate that token, so the start of the answer would be missing from the loss.
    """
    ids: list[int] = []
    trained: list[bool] = []
    remaining = iter(audio_tokens)
    for _, group in groupby(segments, key=lambda segment: segment.trained):
        stretch = list(group)
        counts = [next(remaining) for segment in stretch if segment.slot is not None]
        new_ids, new_trained = encode_segments(stretch, tokenizer, counts)
        ids += new_ids
        trained += new_trained
    return ids, trained


def stretches(ids: Sequence[int], trained: Sequence[bool]) -> Iterator[tuple[bool, list[int]]]:
    """The longest runs of ids that are all trained on, or all not: (trained, ids)."""
    for flag, group in groupby(zip(ids, trained, strict=True), key=lambda pair: pair[1]):
        yield flag, [token for token, _ in group]


def check_mask(encoded: Encoded, answers: Sequence[str], end: str, tokenizer: Tokenizer) -> None:
    """Compare a mask with the answers it should cover, using the ids only.

    Each trained stretch must decode to an answer and `end` (`<|im_end|>` or `<|endoftext|>`), without audio positions.
    Raises PromptError, which names the first difference.
    """
    ids, trained = encoded
    if len(ids) != len(trained):
        raise PromptError(f"The loss mask has {len(trained)} entries for {len(ids)} tokens; expected one for each.")
    if tokenizer.convert_tokens_to_ids(AUDIO) in [token for token, flag in zip(ids, trained, strict=True) if flag]:
        raise PromptError("The loss mask covers audio positions; they are heard, never said.")
    covered = [tokenizer.decode(run) for flag, run in stretches(ids, trained) if flag]
    expected = [answer + end for answer in answers]
    if len(covered) != len(expected):
        raise PromptError(
            f"The loss mask covers {len(covered)} stretch(es) of tokens; expected {len(expected)} answers."
        )
    for text, answer in zip(covered, expected, strict=True):
        if unicodedata.normalize("NFC", text) != unicodedata.normalize("NFC", answer):
            raise PromptError(f"The loss mask covers {text!r}; expected the answer {answer!r}.")


def check_chat(encoded: Encoded, answers: Sequence[str], tokenizer: Tokenizer) -> None:
    """`check_mask` for a conversation, whose answers end in `<|im_end|>`. Raises PromptError."""
    check_mask(encoded, answers, IM_END, tokenizer)
