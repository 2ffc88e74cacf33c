"""How questions about a clip are worded, and how what is heard is called in an answer.

The style of an answer follows the style of its question. Whatever is drawn comes from the generator handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from .mix import SPEECH, STRANGE, Clip
from .words import ABSTENTIONS, WORDS

Rng = np.random.Generator
T = TypeVar("T")

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
TRANSCRIBE = (
    "Transcribe the speech.",
    "Write down what is said.",
    "What does the person say?",
    "What is being said?",
    "What did the speaker say?",
    "Please write down the words.",
    "Transcribe the audio.",
    "What are the words?",
)
SEX = (
    "Is the speaker a man or a woman?",
    "Is this a man or a woman?",
    "Who is speaking, a man or a woman?",
    "Is it a man's or a woman's voice?",
    "Male or female?",
)


def pick(rng: Rng, items: Sequence[T]) -> T:
    """One of `items`, each as likely."""
    return items[int(rng.integers(len(items)))]


def noun_phrase(clip: Clip, rng: Rng) -> str:
    """What is heard, as in "a dog barking": the usual phrase three times in four, else the other one.

    For clips that `has_name`.
    """
    if clip.kind == SPEECH:
        speaker = f"a {clip.sex} speaking"
        return f"{speaker} and {WORDS[clip.background].phrases[0]}" if clip.background else speaker
    phrases = WORDS[clip.kind].phrases
    return phrases[0] if rng.random() < 0.75 else phrases[-1]


def has_name(clip: Clip) -> bool:
    """There is something to name in it: a kind of sound with a name, or speech."""
    return clip.kind in WORDS or clip.kind == SPEECH


def abstention(clip: Clip) -> str:
    """What is said of a clip in which nothing can be named."""
    return ABSTENTIONS["voice" if clip.kind == STRANGE else clip.kind].sentences[0]


def name_sound(clip: Clip, style: str, rng: Rng) -> str:
    """The answer to "What is it?" in `style`, one of the keys of WHAT."""
    return style.format(x=noun_phrase(clip, rng)) if has_name(clip) else abstention(clip)


def ask_what(clip: Clip, rng: Rng) -> tuple[str, str]:
    """A question what the sound is, and its answer."""
    style = pick(rng, tuple(WHAT))
    return pick(rng, WHAT[style]), name_sound(clip, style, rng)
