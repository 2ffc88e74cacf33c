"""Answers that a model with random weights is made to give, and the prompts before them."""

from __future__ import annotations

import zlib

import numpy as np

from qwen2_audio.checkpoint.config import Qwen2AudioConfig

PROSE = """Rain is easy to know by its sound. Many small drops hit leaves, roofs and the street, each of them too soft
to be heard alone, and together they make a steady hiss that grows when the wind pushes it against a window. In this
clip it begins lightly, gets stronger for about ten seconds, and then a car passes on the wet road, which is the rising
and falling rush near the end. Nobody speaks. If you want to be sure, listen for the low rumble behind it all: that may
be thunder far away, or a truck, and the recording is too short to say which."""
QUESTION = "Please listen to the clip once more and tell me in your own words what can be heard in it, and why."
SPOKEN = """good morning and welcome to the weekly report of the harbour office the ferry to the islands leaves at nine
from pier four and not from pier two because pier two is closed until friday passengers with bicycles should be there
half an hour early the tide is high at noon so the lower car park is closed from eleven to one the library boat comes
on thursday and stays until four and the harbour office itself is open from eight to five thank you for listening"""
QUESTIONS = ("What is that sound?", "Write down what is said.", "Describe what you hear.")  # of bundled clips
CORRECTED = 14  # every 14th word of the answer is not what the prompt has


def script(config: Qwen2AudioConfig, kind: str) -> tuple[list[int], list[int]]:
    """The token ids of a prompt and of the answer to it, a token a word.

    `kind` "transcript": the answer repeats nearly all of a text in the prompt, as a corrected transcription does.
    "chat": prose after a question.
    """
    vocabulary = min(config.text_config.vocab_size, config.audio_token_index)

    def ids(words: list[str]) -> list[int]:
        return [zlib.crc32(word.encode()) % vocabulary for word in words]

    if kind == "chat":
        return ids(QUESTION.split()), ids(PROSE.split())
    spoken = SPOKEN.split()
    corrected = [word if number % CORRECTED else f"{word}'" for number, word in enumerate(spoken, 1)]
    return ids([*QUESTION.split(), *spoken]), ids(corrected)


def with_errors(answer: list[int], share: float) -> list[int]:
    """`answer` with that share of its tokens, 0 to 1, replaced by others."""
    is_wrong = np.random.default_rng(5).permutation(len(answer)) < share * len(answer)
    return [1 + (token + 1) % 1000 if wrong else token for token, wrong in zip(answer, is_wrong, strict=True)]
