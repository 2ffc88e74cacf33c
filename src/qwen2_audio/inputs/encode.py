"""Encode the segments of a conversation: token ids and loss mask in one pass."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from ..errors import PromptError
from ..text.chat_template import Segment
from ..text.tokenizer import Tokenizer


def encode_segments(
    segments: Iterable[Segment], tokenizer: Tokenizer, audio_tokens: Sequence[int]
) -> tuple[list[int], list[bool]]:
    """Ids of `segments` with `audio_tokens[i]` positions for clip i, and for each id whether it is trained on.

    Only the template's own control tokens become control tokens; a control token in a user's text is encoded as text.
    Where texts have none, the ids are those of the rendered prompt: the plain segments between two control tokens are
    encoded as one string, because a BPE token may span two segments ("\\n" + "\\nHi" is one token and a word).
    Raises PromptError when the number of clips differs, a clip has no tokens, or the tokenizer lacks a control token.
    """
    segments = list(segments)
    counts = _slot_counts(segments, audio_tokens)
    ids: list[int] = []
    trained: list[bool] = []
    run: list[Segment] = []
    for segment in segments:
        if not segment.control:
            run.append(segment)
            continue
        _encode_run(run, tokenizer, ids, trained)
        run = []
        times = 1 if segment.slot is None else next(counts)
        ids += [_control_id(tokenizer, segment.text)] * times
        trained += [segment.trained] * times
    _encode_run(run, tokenizer, ids, trained)
    return ids, trained


def _slot_counts(segments: Sequence[Segment], audio_tokens: Sequence[int]) -> Iterator[int]:
    slots = sum(segment.slot is not None for segment in segments)
    if slots != len(audio_tokens):
        raise PromptError(
            f"The conversation has {slots} clip(s) and {len(audio_tokens)} length(s) were given; expected one for each."
        )
    if min(audio_tokens, default=1) < 1:
        raise PromptError(f"A clip has {min(audio_tokens)} audio tokens and would not be heard; expected at least 1.")
    return iter(audio_tokens)


def _control_id(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.convert_tokens_to_ids(token)
    if token_id is None or tokenizer.convert_ids_to_tokens(token_id) != token:
        raise PromptError(
            f"The tokenizer has no {token}, so it cannot encode this template; load a Qwen2-Audio tokenizer, "
            "with its tokenizer_config.json."
        )
    return int(token_id)


def _encode_run(run: Sequence[Segment], tokenizer: Tokenizer, ids: list[int], trained: list[bool]) -> None:
    new_ids, starts = tokenizer.encode_plain("".join(segment.text for segment in run))
    ends: list[int] = []  # the end of each segment in the joined text
    for segment in run:
        ends.append((ends[-1] if ends else 0) + len(segment.text))
    ids += new_ids
    trained += [run[bisect_right(ends, start)].trained for start in starts]
