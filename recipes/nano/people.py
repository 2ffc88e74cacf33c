"""Conversations of the stages that go on from the first lessons: what people say and type, and long recordings.

Clips are those of any library; answers that were taught otherwise at first are renewed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qwen2_audio.evaluate.nano.long_recordings import NOTHING, about_notes, about_transcript, ask_part, part_sentence
from qwen2_audio.evaluate.nano.mix import Clip
from qwen2_audio.evaluate.nano.typed import typed
from qwen2_audio.evaluate.nano.wording import has_name, pick
from qwen2_audio.evaluate.nano.world.people import WORDS
from qwen2_audio.evaluate.nano.world.speakers import held_out_sentence
from qwen2_audio.evaluate.nano.world.talk import renewed

from .conversations import Conversation, assistant, is_voice, user, voice_chat
from .writer import FINE_TUNING, Writer

Rng = np.random.Generator
# As FINE_TUNING, and beside it: turns without a clip, parts of recordings, notes on them, their transcripts, and what
# is typed after a clip.
PEOPLE = {
    "read": 0.45, "questions": 0.12, "chat": 0.16, "after": 0.01, "both": 0.01, "base": 0.04, "typed": 0.055,
    "part": 0.05, "notes": 0.035, "transcript": 0.025, "then": 0.015, "copy": 0.03,
}  # fmt: skip
COPY = ("Repeat after me: {x}", "Say: {x}", "Say this again: {x}", "Copy this: {x}", "Write this once more: {x}")


def with_renewed_answers(clip: Clip) -> Clip:
    return replace(clip, answer=renewed(clip.answer))


class PeopleWriter(Writer):
    """Draws conversations in the forms of PEOPLE; sentences of texts without a clip belong to `split`."""

    def __init__(self, clips: Sequence[Clip], shares: dict[str, float], split: str = "train") -> None:
        super().__init__([with_renewed_answers(clip) for clip in clips], shares)
        self.split = split
        self._forms |= {
            "typed": self._typed,
            "part": self._part,
            "notes": lambda clip, rng: self._notes(rng),
            "transcript": lambda clip, rng: self._transcript(rng),
            "then": self._then_typed,
            "copy": lambda clip, rng: self._copy(rng),
        }

    def _typed(self, clip: int, rng: Rng) -> Conversation:
        """One to three texts; one time in seven a clip follows."""
        turns = [typed(rng, self.split) for _ in range(rng.integers(1, 4))]
        messages = [message for text, answer in turns for message in (user(text), assistant(answer))]
        if rng.random() > 1 / 7:
            return Conversation(messages, [])
        return Conversation([*messages, user(clip), assistant(voice_chat(self.clips[clip], rng))], [clip])

    def _part(self, clip: int, rng: Rng) -> Conversation:
        """A clip as a part of a longer recording; one time in eight nothing else is asked."""
        heard = self.clips[clip]
        if rng.random() < 1 / 8:
            answer = voice_chat(heard, rng) if has_name(heard) or is_voice(heard) else NOTHING
            return Conversation([user(clip, part_sentence(rng)), assistant(answer)], [clip])
        question, answer = ask_part(heard, rng)
        return Conversation([user(clip, question, part_sentence(rng)), assistant(answer)], [clip])

    def _notes(self, rng: Rng) -> Conversation:
        notes, question, then, answer = about_notes(rng, self.split)
        return Conversation([user(notes, question, then), assistant(answer)], [])

    def _transcript(self, rng: Rng) -> Conversation:
        transcript, question, answer = about_transcript(rng, self.split)
        return Conversation([user(transcript, question), assistant(answer)], [])

    def _copy(self, rng: Rng) -> Conversation:
        """Texts to repeat, half of them words in no order, which only who reads can repeat: notes need that, too."""
        messages = []
        for _ in range(rng.integers(1, 5)):
            text = held_out_sentence(rng, self.split).text
            if rng.random() < 0.5:
                words = rng.choice(WORDS, int(rng.integers(2, 9))).tolist()
                text = f"{words[0][0].upper()}{words[0][1:]} {' '.join(words[1:])}."
            messages += [user(pick(rng, COPY).format(x=text)), assistant(text)]
        return Conversation(messages, [])

    def _then_typed(self, clip: int, rng: Rng) -> Conversation:
        """About a clip, then about what has nothing to do with it."""
        first = self._questions(clip, rng)
        text, answer = typed(rng, self.split, sound=True)
        return Conversation([*first.messages, user(text), assistant(answer)], first.clips)


def writer_of(clips: Sequence[Clip], shares: dict[str, float], split: str = "train") -> Writer:
    """The writer that knows all forms in `shares`."""
    widened = not shares.keys() <= FINE_TUNING.keys()
    return PeopleWriter(clips, shares, split) if widened else Writer(clips, shares)
