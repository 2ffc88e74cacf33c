"""Conversations about clips, in natural and varied wording. Everything is drawn from the generator that is handed in.

A turn's answer follows the style of its question, so that greedy answers vary too. The wordings marked as held out are
asked in the test only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .mix import LOUD_DB, QUIET_DB, Clip
from .sounds.kinds import NAMED
from .words import ABSTAIN, GROUPS, WORDS

Rng = np.random.Generator
CAPTION_PROMPT = "<|audio_bos|><|AUDIO|><|audio_eos|>Generate the caption in English:"

# What is it? Questions by the style of the answer; {x} is a phrase such as "a dog barking".
WHAT = {
    "This is the sound of {x}.": (
        "What is this sound?",
        "What's this sound?",
        "What sound is this?",
        "Which sound is this?",
        "What is that sound?",
        "What's that sound?",
        "What kind of sound is this?",
        "Name this sound.",
        "Identify this sound.",
        "What is the sound?",
    ),
    "I hear {x}.": (
        "What do you hear?",
        "What can you hear?",
        "What are you hearing?",
        "Tell me what you hear.",
        "What did you hear?",
        "What is there to hear?",
        "Listen. What do you hear?",
        "Please tell me what you can hear.",
        "Can you hear that?",
    ),
    "It sounds like {x}.": (
        "What does it sound like?",
        "What does this sound like?",
        "What do you think this is?",
        "Guess what this is.",
        "Do you know what this is?",
        "Do you recognise this?",
        "Can you tell me what this is?",
        "What could this be?",
    ),
    "This recording contains {x}.": (
        "What is in this recording?",
        "What is in this audio?",
        "What is it in this audio?",
        "Describe the audio.",
        "Describe this recording.",
        "What happens in this clip?",
        "Describe what happens in this audio.",
        "What is going on here?",
    ),
}
WHAT_HELD_OUT = {
    "This is the sound of {x}.": ("What sound do we have here?", "Can you identify this sound?"),
    "I hear {x}.": ("Can you tell me what you hear?", "What is it that you hear?"),
    "It sounds like {x}.": ("What might this be?", "Any idea what this sounds like?"),
    "This recording contains {x}.": ("What can be heard in this recording?", "Please describe this clip."),
}
AGAIN = ("How about this one?", "And this one?", "What about this?", "And this?", "What is this one?", "Now this one?")
IS_IT = (
    "Is this {n}?",
    "Is it {n}?",
    "Do you hear {n}?",
    "Could this be {n}?",
    "Is that {n}?",
    "Is there {n} in this clip?",
)
GROUP = ("What makes this sound?", "Where does this sound come from?", "What kind of thing makes this sound?")
IN_GROUP = ("Is it {g}?", "Does this sound come from {g}?", "Is the sound made by {g}?")
LEVEL = ("Is it loud or quiet?", "How loud is it?", "Is the sound loud?", "Is this recording loud or quiet?")
SPEECH = (
    "What does the person say?",
    "What is being said?",
    "Transcribe the speech.",
    "Please write down what is said.",
)
BOTH = (
    "What are these two sounds?",
    "What do you hear in the two clips?",
    "Name both sounds.",
    "What is in these clips?",
)
WHICH = ("Which of the two is {n}?", "Which clip has {n}?", "In which clip do you hear {n}?")
CHAT = (
    (
        ("Hello!", "Hi!", "Hello, how are you?", "Good morning!"),
        "Hello! Send me a sound, and I will tell you what I hear.",
    ),
    (("Who are you?", "What are you?", "What is your name?"), "I am nano, a very small model that listens to sounds."),
    (
        ("What can you do?", "What can you hear?", "How can you help me?", "What do you know?"),
        "I can name simple sounds, such as a dog, rain, a bell or breaking glass. I do not understand speech.",
    ),
    (("Thank you!", "Thanks!", "Thank you very much."), "You are welcome."),
    (
        ("What is this sound?", "What do you hear?", "What's that sound?"),
        "I have not got a sound yet. Please send me one.",
    ),
)
SYSTEMS = ("You are a helpful assistant.", "You are a voice assistant.", "Answer the questions.")


@dataclass(frozen=True)
class Conversation:
    """Messages in the documented form; an audio part's "audio" is the index of a clip in the library."""

    messages: list[dict[str, Any]]
    clips: list[int]
    caption: str | None = None  # base form: CAPTION_PROMPT is continued by this, and there are no messages


def pick(rng: Rng, items: Any) -> Any:
    """One of `items`."""
    return items[int(rng.integers(len(items)))]


def phrase(kind: str, rng: Rng) -> str:
    """The usual name of a kind; one time in four the other one."""
    phrases = WORDS[kind].phrases
    return phrases[0] if rng.random() < 0.75 else phrases[-1]


def says_nothing(kind: str, rng: Rng) -> str:
    says = ABSTAIN[kind].says
    return says[0] if rng.random() < 0.75 else says[-1]


def name_it(kind: str, style: str, rng: Rng) -> str:
    """The answer to "What is it?" in the style of the question."""
    return style.format(x=phrase(kind, rng)) if kind in WORDS else says_nothing(kind, rng)


def what(clip: Clip, rng: Rng, table: dict[str, tuple[str, ...]] = WHAT) -> tuple[str, str]:
    style = pick(rng, list(table))
    return pick(rng, table[style]), name_it(clip.kind, style, rng)


def is_it(clip: Clip, rng: Rng) -> tuple[str, str]:
    """Is it a dog? Half of the time it is (unless it is nothing that has a name)."""
    right = clip.kind in WORDS and rng.random() < 0.5
    asked = clip.kind if right else pick(rng, [name for name in NAMED if name != clip.kind])
    question = pick(rng, IS_IT).format(n=WORDS[asked].noun)
    if right:
        return question, f"Yes, this is {phrase(clip.kind, rng)}."
    return (
        question,
        f"No, this is {phrase(clip.kind, rng)}." if clip.kind in WORDS else f"No. {says_nothing(clip.kind, rng)}",
    )


def group(clip: Clip, rng: Rng) -> tuple[str, str]:
    """What sort of thing it is."""
    if clip.kind not in WORDS:
        return pick(rng, GROUP), says_nothing(clip.kind, rng)
    truth = WORDS[clip.kind].group
    if rng.random() < 0.5:
        return pick(rng, GROUP), f"It comes from {truth}. It is {phrase(clip.kind, rng)}."
    asked = truth if rng.random() < 0.5 else pick(rng, [g for g in GROUPS if g != truth])
    answer = "Yes, it is" if asked == truth else "No, it is"
    return pick(rng, IN_GROUP).format(g=asked), f"{answer} {phrase(clip.kind, rng)}."


def level(clip: Clip, rng: Rng) -> tuple[str, str]:
    """Loud or quiet, by the clip's RMS."""
    if clip.kind == "silence":
        return pick(rng, LEVEL), "It is silent."
    if clip.level_db > LOUD_DB:
        return pick(rng, LEVEL), "It is loud."
    return pick(rng, LEVEL), "It is quiet." if clip.level_db < QUIET_DB else "It is neither loud nor quiet."


def speech(clip: Clip, rng: Rng) -> tuple[str, str]:
    """Nano must not invent words."""
    if clip.kind == "voice":
        return pick(rng, SPEECH), ABSTAIN["voice"].says[0]
    heard = f"I hear {phrase(clip.kind, rng)}." if clip.kind in WORDS else says_nothing(clip.kind, rng)
    return pick(rng, SPEECH), f"Nobody is speaking. {heard}"


ASK = ((what, 0.5), (is_it, 0.2), (group, 0.13), (level, 0.1), (speech, 0.07))


def ask(clip: Clip, rng: Rng) -> tuple[str, str]:
    """A question about a clip, and its answer."""
    return pick_weighted(rng, ASK)(clip, rng)  # type: ignore[no-any-return]


def pick_weighted(rng: Rng, table: Any) -> Any:
    return table[int(rng.choice(len(table), p=[weight for _, weight in table]))][0]


def user(*parts: int | str) -> dict[str, Any]:
    """A user's turn of clips (indices) and texts."""
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "audio", "audio": p} for p in parts]
    return {"role": "user", "content": content}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


class Writer:
    """Draws conversations about the clips of a library."""

    def __init__(
        self, clips: list[Clip], by_kind: dict[str, list[int]], wanted: Callable[[int, Rng], bool] = lambda i, rng: True
    ) -> None:
        """`wanted` may turn a drawn clip down, and another one of its kind is drawn."""
        self.clips, self.by_kind, self.wanted = clips, by_kind, wanted
        self._forms = (
            (self._questions, 0.4),
            (self._voice_chat, 0.16),
            (self._one_after_another, 0.14),
            (self._two_at_once, 0.1),
            (self._caption, 0.15),
            (self._text_only, 0.05),
        )

    def write(self, rng: Rng) -> Conversation:
        """One conversation."""
        conversation = pick_weighted(rng, self._forms)(rng)
        if conversation.messages and rng.random() < 0.06:
            conversation.messages.insert(0, {"role": "system", "content": pick(rng, SYSTEMS)})
        return conversation

    def _clip(self, rng: Rng) -> int:
        candidates = self.by_kind[pick(rng, list(self.by_kind))]
        while not self.wanted(clip := int(pick(rng, candidates)), rng):
            pass
        return clip

    def _questions(self, rng: Rng) -> Conversation:
        """Audio analysis: one clip, one to three questions."""
        clip = self._clip(rng)
        messages = []
        for k in range(rng.integers(1, 4)):
            question, answer = ask(self.clips[clip], rng)
            order = (question, clip) if rng.random() < 0.1 else (clip, question)
            messages += [user(*(order if k == 0 else (question,))), assistant(answer)]
        return Conversation(messages, [clip])

    def _voice_chat(self, rng: Rng) -> Conversation:
        """Voice chat: turns of sound alone; nano says what it hears."""
        messages, clips = [], []
        for _ in range(pick(rng, (1, 1, 1, 2))):
            clip = self._clip(rng)
            clips.append(clip)
            messages += [user(clip), assistant(name_it(self.clips[clip].kind, "I hear {x}.", rng))]
            if rng.random() < 0.25:
                question, answer = ask(self.clips[clip], rng)
                messages += [user(question), assistant(answer)]
        return Conversation(messages, clips)

    def _one_after_another(self, rng: Rng) -> Conversation:
        """Audio analysis over several turns, each with its own clip."""
        messages, clips = [], []
        style = pick(rng, list(WHAT))
        for k in range(pick(rng, (2, 2, 3))):
            clip = self._clip(rng)
            clips.append(clip)
            question = pick(rng, WHAT[style]) if k == 0 else pick(rng, AGAIN)
            messages += [user(clip, question), assistant(name_it(self.clips[clip].kind, style, rng))]
        return Conversation(messages, clips)

    def _two_at_once(self, rng: Rng) -> Conversation:
        """Two clips in one turn."""
        clips = [self._clip(rng), self._clip(rng)]
        kinds = [self.clips[i].kind for i in clips]
        if kinds[0] != kinds[1] and rng.random() < 0.5:
            named = [k for k in (0, 1) if kinds[k] in WORDS]
            if named:
                k = pick(rng, named)
                question = pick(rng, WHICH).format(n=WORDS[kinds[k]].noun)
                return Conversation([user(*clips, question), assistant(f"The {('first', 'second')[k]} one.")], clips)
        first, second = (phrase(k, rng) if k in WORDS else _bare(k) for k in kinds)
        answer = f"The first is {first}, the second is {second}."
        return Conversation([user(*clips, pick(rng, BOTH)), assistant(answer)], clips)

    def _caption(self, rng: Rng) -> Conversation:
        """The base model's form: a prompt that is continued."""
        clip = self._clip(rng)
        return Conversation([], [clip], caption_of(self.clips[clip].kind, rng))

    def _text_only(self, rng: Rng) -> Conversation:
        questions, answer = pick(rng, CHAT)
        return Conversation([user(pick(rng, questions)), assistant(answer)], [])


def _bare(kind: str) -> str:
    """An abstention as a noun."""
    return {
        "noise": "only noise",
        "silence": "silence",
        "tone": "a plain tone",
        "voice": "a voice",
        "unknown": "an unknown sound",
    }[kind]


def caption_of(kind: str, rng: Rng) -> str:
    """The caption that continues CAPTION_PROMPT, with its leading blank."""
    if kind not in WORDS:
        return " " + ABSTAIN[kind].caption
    captions = WORDS[kind].captions
    return " " + (captions[0] if rng.random() < 0.75 else captions[-1])
