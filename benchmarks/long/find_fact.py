"""long.find_fact: facts said once in ten minutes, found by asking about each part alone.

A fact is a sentence of nano's world that is said once in a recording with many others. It is found where the part that
holds it answers with its words and no other part claims them. Counted are the facts that nano answers right from the
utterance alone: what it cannot hear at all says nothing about the search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from qwen2_audio.api.chat import AudioChat
from qwen2_audio.bench.report import Row
from qwen2_audio.evaluate.nano.world.utterance import plain
from qwen2_audio.inputs.messages import user
from qwen2_audio.types import Part, SamplingParams

from ..harness.rows import row_of
from .recording import Recording, record
from .session import Session
from .spoken import RATE

SECONDS, FACTS = 600.0, 50
QUICK_SECONDS, QUICK_FACTS = 60.0, 8
QUESTION = "What is being said?"  # the same one finds each fact: nano follows no question about what a sentence says
_PARAMS = SamplingParams(temperature=0.0, repetition_penalty=1.0, max_tokens=80)


def rows(session: Session) -> list[Row]:
    """The row, with nano. Raises EvaluationError without synthesisers."""
    session.progress("asking about parts of a recording, each alone")
    if session.quick:
        return find_fact(session.chat, seconds=QUICK_SECONDS, facts=QUICK_FACTS)
    return find_fact(session.chat)


def find_fact(
    chat: AudioChat, *, seconds: float = SECONDS, facts: int = FACTS, recordings: int = 1, seed: int = 11
) -> list[Row]:
    """The row, in percent of the facts that are right alone, over all recordings. Raises EvaluationError without
    synthesisers."""
    found = right = asked = 0
    for number in range(recordings):
        recording = record(seconds, seed + number)
        chosen = said_once(recording.texts)[:facts]
        utterances = recording.utterances()
        alone = chat.batch([[user(QUESTION, audio=utterances[index])] for index in chosen], _PARAMS)
        parts = chat.chat([user(QUESTION, audio=recording.samples)], _PARAMS, long="parts").parts
        for index, answer in zip(chosen, alone, strict=True):
            truth = plain(recording.texts[index])
            asked += 1
            if plain(answer.text) == truth:
                right += 1
                found += is_found(parts, recording, index)
    value = 100 * found / right if right else None
    note = f"{found} of {right} that are right alone, of {asked} facts"
    return [row_of("long.find_fact", "% right", [value], note=note)]


def said_once(texts: Sequence[str]) -> list[int]:
    """The numbers of the texts that no other one equals."""
    counts = Counter(map(plain, texts))
    return [index for index, text in enumerate(texts) if counts[plain(text)] == 1]


def is_found(parts: Sequence[Part], recording: Recording, index: int) -> bool:
    """Whether the part with most of utterance `index` answers with its words, and no other part's answer has them."""
    start, end = (sample / RATE for sample in recording.spans[index])
    windows = [part for part in parts if part.level == 0]
    holder = max(windows, key=lambda part: min(part.end, end) - max(part.start, start))
    truth = plain(recording.texts[index])
    claimed = any(truth in plain(part.text) for part in windows if part is not holder)
    return plain(holder.text) == truth and not claimed
