"""The placeholder of a clip in a prompt, `<|AUDIO|>`, repeated once per audio token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..errors import PromptError
from ..text.chat_template import AUDIO, AUDIO_BOS, AUDIO_EOS
from ..text.rendering import Span


@dataclass(frozen=True)
class Expanded:
    """A prompt whose placeholders were repeated."""

    text: str
    growth: tuple[tuple[int, int], ...]  # where a placeholder ended in the prompt before, and the characters it gained

    def moved(self, spans: Sequence[Span]) -> list[Span]:
        """Spans of characters in the prompt before, as spans of `text`."""
        return [(self._moved(start), self._moved(end)) for start, end in spans]

    def _moved(self, character: int) -> int:
        return character + sum(gained for end, gained in self.growth if end <= character)


def check_counts(texts: Sequence[str], clips: int) -> None:
    """Raises PromptError unless there is a placeholder for each clip."""
    placeholders = sum(text.count(AUDIO) for text in texts)
    if placeholders != clips:
        raise PromptError(
            f"The text has {placeholders} {AUDIO} placeholder(s) and {clips} clip(s) were given; expected one clip "
            "for each. Pass the clips as audio=[...] in the order of their placeholders."
        )


def expand(texts: Sequence[str], counts: Sequence[int], *, wrap: bool) -> list[Expanded]:
    """Repeat the placeholder of clip i `counts[i]` times.

    With `wrap`, a placeholder without bos and eos gets both, so that both spellings of the documented prompt give the
    same result; a placeholder with one of them stays as it is.
    """
    remaining = iter(counts)
    return [_expand_one(text, remaining, wrap) for text in texts]


def _expand_one(text: str, counts: Iterator[int], wrap: bool) -> Expanded:
    parts = text.split(AUDIO)
    out, growth, end = [parts[0]], [], len(parts[0])
    for before, after in pairwise(parts):
        # Between two adjacent placeholders the text is empty: both are bare.
        bare = not (before.endswith(AUDIO_BOS) or after.startswith(AUDIO_EOS))
        placeholders = AUDIO * next(counts)
        if wrap and bare:
            placeholders = AUDIO_BOS + placeholders + AUDIO_EOS
        end += len(AUDIO)
        growth.append((end, len(placeholders) - len(AUDIO)))
        end += len(after)
        out += [placeholders, after]
    return Expanded("".join(out), tuple(growth))
