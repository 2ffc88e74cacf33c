"""Draws whole conversations about clips, in the official template's two modes and the base model's form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qwen2_audio.evaluate.nano.mix import SPEECH, Clip
from qwen2_audio.evaluate.nano.wording import WHAT, name_sound, pick
from qwen2_audio.evaluate.nano.words import WORDS
from qwen2_audio.evaluate.nano.world.facts import FACTS, FAMILIES

from .conversations import (
    AGAIN,
    BOTH,
    CAPTION_PROMPT,
    REPEAT,
    REPLY,
    SPEECH_PROMPT,
    SYSTEMS,
    WHICH,
    Conversation,
    ask,
    assistant,
    bare,
    caption,
    is_voice,
    pick_weighted,
    sex,
    transcribe,
    user,
    voice_chat,
)

Rng = np.random.Generator
# How often a conversation takes each form. Pre-training reads: the language model must learn to spell out what it hears
# before anything else pays. Fine-tuning does everything; its last part has more of the base form, learned last of all.
PRETRAINING = {"read": 0.88, "questions": 0.06, "chat": 0.02, "after": 0.01, "both": 0.01, "base": 0.01, "text": 0.01}
FINE_TUNING = {"read": 0.44, "questions": 0.26, "chat": 0.19, "after": 0.03, "both": 0.02, "base": 0.03, "text": 0.03}
WIDENING = {"read": 0.4, "questions": 0.24, "chat": 0.18, "after": 0.02, "both": 0.02, "base": 0.11, "text": 0.03}
ARITHMETIC = 0.5  # of the facts asked in text
TYPED = (
    (
        "I have not got a sound yet. Please send me one.",
        ("What is this sound?", "What do you hear?", "What's that sound?"),
    ),
)


class Writer:
    """Draws conversations; each begins with the clip it is asked for, others are taken from `clips`."""

    def __init__(self, clips: Sequence[Clip], shares: dict[str, float]) -> None:
        self.clips, self.shares = clips, shares
        self._sounds = [i for i, clip in enumerate(clips) if not is_voice(clip) and clip.seconds < 6]
        self._spoken = [i for i, clip in enumerate(clips) if clip.kind == SPEECH and clip.seconds < 3]
        self._forms: dict[str, Callable[[int, Rng], Conversation]] = {
            "read": self._read,
            "questions": self._questions,
            "chat": self._voice_chat,
            "after": self._one_after_another,
            "both": self._two_at_once,
            "base": self._base,
            "text": lambda clip, rng: text_only(rng),
        }

    def write(self, clip: int, rng: Rng) -> Conversation:
        """One conversation about clip number `clip` (those in text alone have none)."""
        form = pick_weighted(rng, tuple(self.shares.items()))
        conversation = self._forms[form](clip, rng)
        if conversation.messages and rng.random() < 0.05:
            conversation.messages.insert(0, {"role": "system", "content": pick(rng, SYSTEMS)})
        return conversation

    def _read(self, clip: int, rng: Rng) -> Conversation:
        """What is said, word for word, and the answer to it, in either order; sounds are asked about as ever."""
        heard = self.clips[clip]
        if heard.kind != SPEECH:
            return self._questions(clip, rng)
        question, sort = transcribe(heard, rng)[0], rng.random()
        if sort < 0.62:
            messages = [user(clip, question), assistant(heard.text)]
            if rng.random() < 0.6:
                messages += [user(pick(rng, REPLY)), assistant(heard.answer)]
        elif sort < 0.92:
            messages = [user(clip), assistant(heard.answer), user(pick(rng, REPEAT)), assistant(heard.text)]
        else:
            messages = [user(clip, sex(heard, rng)[0]), assistant(sex(heard, rng)[1])]
            messages += [user(question), assistant(heard.text)]
        return Conversation(messages, [clip])

    def _questions(self, clip: int, rng: Rng) -> Conversation:
        """Audio analysis: one clip, one to three different questions."""
        messages: list[dict[str, Any]] = []
        asked: set[str] = set()
        for _ in range(pick(rng, (1, 2, 2, 3, 3))):
            question, answer = ask(self.clips[clip], rng)
            if answer in asked:
                continue
            asked.add(answer)
            parts = ((question, clip) if rng.random() < 0.1 else (clip, question)) if not messages else (question,)
            messages += [user(*parts), assistant(answer)]
        return Conversation(messages, [clip])

    def _voice_chat(self, clip: int, rng: Rng) -> Conversation:
        """Voice chat: sound alone. Sometimes it goes on in text, or with another sound."""
        first = self.clips[clip]
        messages, clips = [user(clip), assistant(voice_chat(first, rng))], [clip]
        then = rng.random()
        if then < 0.25 and first.kind == SPEECH:
            messages += [user(pick(rng, REPEAT)), assistant(first.text)]
        elif then < 0.4:
            question, answer = ask(first, rng)
            messages += [user(question), assistant(answer)]
        elif then < 0.47 or (then < 0.65 and self._spoken):
            second = pick(rng, self._sounds if then < 0.47 else self._spoken)
            clips.append(second)
            messages += [user(second), assistant(voice_chat(self.clips[second], rng))]
        return Conversation(messages, clips)

    def _one_after_another(self, clip: int, rng: Rng) -> Conversation:
        """Audio analysis over two turns, each with its own clip."""
        style, second = pick(rng, list(WHAT)), pick(rng, self._sounds)
        messages = [user(clip, pick(rng, WHAT[style])), assistant(name_sound(self.clips[clip], style, rng))]
        messages += [user(second, pick(rng, AGAIN)), assistant(name_sound(self.clips[second], style, rng))]
        return Conversation(messages, [clip, second])

    def _two_at_once(self, clip: int, rng: Rng) -> Conversation:
        """Two clips in one turn."""
        clips = [clip, pick(rng, self._sounds)]
        if rng.random() < 0.5:
            clips.reverse()
        heard = [self.clips[i] for i in clips]
        if heard[0].kind != heard[1].kind and rng.random() < 0.4:
            named = [k for k in (0, 1) if heard[k].kind in WORDS]
            if named:
                k = pick(rng, named)
                question = pick(rng, WHICH).format(n=WORDS[heard[k].kind].noun)
                return Conversation([user(*clips, question), assistant(f"The {('first', 'second')[k]} one.")], clips)
        answer = f"The first is {bare(heard[0], rng)}, the second is {bare(heard[1], rng)}."
        return Conversation([user(*clips, pick(rng, BOTH)), assistant(answer)], clips)

    def _base(self, clip: int, rng: Rng) -> Conversation:
        """The base model's form: a prompt that is continued."""
        heard = self.clips[clip]
        if heard.kind == SPEECH and rng.random() < 0.8:
            return Conversation([], [clip], (SPEECH_PROMPT, f" {heard.text}"))
        return Conversation([], [clip], (CAPTION_PROMPT, caption(heard, rng)))


def text_only(rng: Rng) -> Conversation:
    """One to three facts asked in text: what nano knows, without the trouble of hearing."""
    if rng.random() < 0.04:
        answer, questions = pick(rng, TYPED)
        return Conversation([user(pick(rng, questions)), assistant(answer)], [])
    messages = []
    for _ in range(rng.integers(1, 4)):
        facts = FAMILIES["arithmetic"] if rng.random() < ARITHMETIC else FACTS
        fact = pick(rng, facts)
        messages += [user(pick(rng, fact.questions)), assistant(fact.answer)]
    return Conversation(messages, [])
