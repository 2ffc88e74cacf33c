"""What `bench engine` asks: the same clips and prompts for the engine, for `generate` and for the peer."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from qwen2_audio.audio.mel import log_mel, num_audio_tokens, num_frames
from qwen2_audio.audio.resample import SAMPLE_RATE
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.types import Heard

from ..harness.prompts import prompt

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
MISHEARD = 14  # every so manieth word of SPOKEN is not what the prompt has


def clip_lengths(count: int, least: float, most: float) -> list[float]:
    """Seconds of `count` clips, evenly from `least` to `most`."""
    return [round(least + (most - least) * place / max(count - 1, 1), 2) for place in range(count)]


def prompt_of(config: Qwen2AudioConfig, sound: npt.NDArray[np.float32], question: int = 0) -> Prompt:
    """The documented question about a sound, log-mel made: what a server does with a clip once it is decoded."""
    frames = num_frames(len(sound))
    heard = Heard(len(sound) / SAMPLE_RATE, num_audio_tokens(frames))
    return Prompt(ids_of(config, heard.tokens, question), [log_mel(sound)], [frames], (heard,))


def ids_of(config: Qwen2AudioConfig, audio_tokens: int, question: int = 0) -> list[int]:
    """The prompt's ids, placeholders expanded."""
    return prompt(
        audio_tokens, vocab_size=config.text_config.vocab_size, audio_id=config.audio_token_index, question=question
    )


def text_prompt(config: Qwen2AudioConfig, length: int, variant: int) -> Prompt:
    """`length` random ids without a sound."""
    most = min(config.text_config.vocab_size, config.audio_token_index)
    ids = np.random.default_rng((length, variant)).integers(0, most, length)
    return Prompt(ids.tolist(), [], [], ())


def script(config: Qwen2AudioConfig, kind: str) -> tuple[list[int], list[int]]:
    """Prompt and answer of word ids: "transcript", an answer that repeats nearly all of a text in its prompt, as a
    corrected transcription does, or "chat", prose after a question about it."""

    def ids(words: list[str]) -> list[int]:
        most = min(config.text_config.vocab_size, config.audio_token_index)
        return [zlib.crc32(word.encode()) % most for word in words]

    if kind == "chat":
        return ids(QUESTION.split()), ids(PROSE.split())
    spoken = SPOKEN.split()
    meant = [word if place % MISHEARD else f"{word}'" for place, word in enumerate(spoken, 1)]
    return ids([*QUESTION.split(), *spoken]), ids(meant)


def with_errors(answer: list[int], share: float) -> list[int]:
    """`answer` with that share of its tokens replaced by others."""
    wrong = np.random.default_rng(5).permutation(len(answer)) < share * len(answer)
    return [1 + (token + 1) % 1000 if other else token for token, other in zip(answer, wrong, strict=True)]
