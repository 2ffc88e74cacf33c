"""What is asked about a clip, and the answer, in natural and varied wording. All is drawn from the generator handed in.

A turn's answer follows the style of its question, so that greedy answers vary too. The wordings marked as held out are
never taught. Those that nano's examination asks, too, stand in `qwen2_audio.evaluate.nano.wording`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qwen2_audio.evaluate.nano.mix import SPEECH, STRANGE, Clip
from qwen2_audio.evaluate.nano.sounds.kinds import NAMED
from qwen2_audio.evaluate.nano.wording import (
    SEX,
    TRANSCRIBE,
    abstention,
    ask_what,
    has_name,
    name_sound,
    noun_phrase,
    pick,
)
from qwen2_audio.evaluate.nano.words import ABSTENTIONS, WORDS

Rng = np.random.Generator
CAPTION_PROMPT, SPEECH_PROMPT = "Generate the caption in English:", "Recognize the speech:"
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
BOTH = (
    "What are these two sounds?",
    "What do you hear in the two clips?",
    "Name both sounds.",
    "What is in these clips?",
)
WHICH = ("Which of the two is {n}?", "Which clip has {n}?", "In which clip do you hear {n}?")
SYSTEMS = ("You are a helpful assistant.", "You are a voice assistant.", "Answer the questions.")


@dataclass(frozen=True)
class Conversation:
    """Messages in the documented form; an audio part's "audio" is the index of a clip in the library."""

    messages: list[dict[str, Any]]
    clips: list[int]
    base: tuple[str, str] | None = None  # base form: a prompt and what continues it; then there are no messages


TRANSCRIBE_HELD_OUT = ("Please transcribe what the person says.", "Can you write down the speech?")
REPLY = ("Answer the speaker.", "Reply to the person.", "Answer what is asked.", "What do you answer?")
BEHIND = ("What is in the background?", "What do you hear in the background?", "What sound is behind the voice?")
ANYBODY = ("Is anybody speaking?", "Does anybody speak?", "Is there a voice in this clip?")
REPEAT = ("What did I say?", "What were my words?", "Repeat what I said.")
UNCLEAR = ABSTENTIONS["voice"].sentences[0]


def is_voice(clip: Clip) -> bool:
    """Somebody speaks, with words or without."""
    return clip.kind in (SPEECH, STRANGE, "voice")


def is_it(clip: Clip, rng: Rng) -> tuple[str, str]:
    """Is it a dog? Half of the time it is (unless it is nothing that has a name)."""
    right = clip.kind in WORDS and rng.random() < 0.5
    asked = clip.kind if right else pick(rng, [name for name in NAMED if name not in (clip.kind, clip.background)])
    question = pick(rng, IS_IT).format(n=WORDS[asked].noun)
    if right:
        return question, f"Yes, this is {noun_phrase(clip, rng)}."
    return question, f"No, this is {noun_phrase(clip, rng)}." if has_name(clip) else f"No. {abstention(clip)}"


def transcribe(clip: Clip, rng: Rng) -> tuple[str, str]:
    """Nano must not invent words."""
    question = pick(rng, TRANSCRIBE)
    if clip.kind == SPEECH:
        return question, clip.text
    if is_voice(clip):
        return question, UNCLEAR
    heard = f"I hear {noun_phrase(clip, rng)}." if clip.kind in WORDS else abstention(clip)
    return question, f"Nobody is speaking. {heard}"


def sex(clip: Clip, rng: Rng) -> tuple[str, str]:
    return pick(rng, SEX), f"The speaker is a {clip.sex}."


def reply(clip: Clip, rng: Rng) -> tuple[str, str]:
    return pick(rng, REPLY), clip.answer


def behind(clip: Clip, rng: Rng) -> tuple[str, str]:
    heard = f"I hear {WORDS[clip.background].phrases[0]}." if clip.background else "There is nothing in the background."
    return pick(rng, BEHIND), heard


def anybody(clip: Clip, rng: Rng) -> tuple[str, str]:
    if clip.kind == SPEECH:
        return pick(rng, ANYBODY), f"Yes, a {clip.sex} is speaking."
    return pick(rng, ANYBODY), "Yes, but I cannot make out the words." if is_voice(clip) else "No, nobody is speaking."


ASK_SPEECH = (
    (transcribe, 0.46),
    (sex, 0.22),
    (reply, 0.14),
    (ask_what, 0.1),
    (behind, 0.03),
    (anybody, 0.03),
    (is_it, 0.02),
)
ASK_MIXED = ((transcribe, 0.36), (behind, 0.28), (ask_what, 0.2), (sex, 0.08), (reply, 0.08))
ASK_SOUND = ((ask_what, 0.72), (transcribe, 0.12), (is_it, 0.12), (anybody, 0.04))
ASK_STRANGE = ((transcribe, 0.55), (ask_what, 0.35), (anybody, 0.1))


def ask(clip: Clip, rng: Rng) -> tuple[str, str]:
    """A question about a clip, and its answer."""
    if clip.kind == SPEECH:
        table: Any = ASK_MIXED if clip.background else ASK_SPEECH
    else:
        table = ASK_STRANGE if is_voice(clip) else ASK_SOUND
    return pick_weighted(rng, table)(clip, rng)


def voice_chat(clip: Clip, rng: Rng) -> str:
    """What is answered to a clip that comes without any text."""
    return clip.answer if clip.kind == SPEECH else name_sound(clip, "I hear {x}.", rng)


def caption(clip: Clip, rng: Rng) -> str:
    """What continues CAPTION_PROMPT, with its leading blank."""
    if clip.kind == SPEECH:
        return f" A {clip.sex} is speaking."
    if clip.kind not in WORDS:
        return " " + ABSTENTIONS["voice" if clip.kind == STRANGE else clip.kind].caption
    captions = WORDS[clip.kind].captions
    return " " + (captions[0] if rng.random() < 0.75 else captions[-1])


def bare(clip: Clip, rng: Rng) -> str:
    """What is heard, as a noun."""
    if has_name(clip):
        return noun_phrase(clip, rng)
    nouns = {"noise": "only noise", "silence": "silence", "tone": "a plain tone", "unknown": "an unknown sound"}
    return nouns.get(clip.kind, "a voice")


def pick_weighted(rng: Rng, table: Any) -> Any:
    return table[int(rng.choice(len(table), p=[weight for _, weight in table]))][0]


def user(*parts: int | str) -> dict[str, Any]:
    """A user's turn of clips (indices) and texts."""
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "audio", "audio": p} for p in parts]
    return {"role": "user", "content": content}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}
