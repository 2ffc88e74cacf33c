"""Sentences by espeak-ng and flite with the times of their words and phones, which only a synthesiser knows exactly."""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
import threading
import wave
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from qwen2_audio.errors import EvaluationError
from qwen2_audio.evaluate.nano.speech.engines import WORDS_A_MINUTE, speech_span
from qwen2_audio.evaluate.nano.speech.voices import Manner, Voice

RATE = 16_000
_LIBRARY = "libespeak-ng.so.1"
_SYNCHRONOUS, _PHONEME_EVENTS = 2, 1  # of espeak_Initialize
_CHARACTERS, _UTF8, _END_PAUSE = 1, 1, 0x1000  # positions are in characters; the text is UTF-8; as the program has it
_SPEED, _PITCH = 1, 3  # parameters
_LIST_ENDS, _WORD, _END, _PHONEME = 0, 1, 5, 7  # types of events
_PAUSES = ("_", "pau")  # how the names of pauses begin: espeak-ng's, flite's
_one_at_a_time = threading.Lock()  # espeak-ng has one state for a process


@dataclass(frozen=True, eq=False)
class Spoken:
    """A sentence: float32 [n] at 16 kHz, and seconds in it."""

    samples: np.ndarray
    words: tuple[tuple[str, float | None], ...] = ()  # lower case, with their starts; None: the synthesiser tells none
    phones: tuple[tuple[float, float], ...] = ()  # start and end of what is no pause


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


class _Language(ctypes.Structure):
    """An espeak_VOICE of which only the language is given."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("others", ctypes.c_ubyte * 4),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def say(text: str, voice: Voice, manner: Manner) -> Spoken:
    """As `engines.say`, with the words' starts. `voice` is one of espeak-ng's own, which tell them."""
    samples, rate, words, phones = _espeak(text, f"{manner.accent}+{voice.name}", manner.pitch, manner.pace)
    rate = rate * manner.formant_scale  # a shorter vocal tract speaks faster
    spoken = soxr.resample(samples, rate, RATE, quality="MQ")
    start, end = speech_span(spoken)
    before = start / RATE
    return Spoken(
        np.asarray(spoken[start:end], np.float32),
        tuple((word, None if at is None else at / rate - before) for word, at in words),
        tuple((first / rate - before, last / rate - before) for first, last in phones),
    )


def say_plainly(text: str, engine: str, name: str) -> Spoken:
    """A sentence in a voice's own manner, from its first phone to its last one."""
    if engine == "flite":
        samples, rate, phones = _flite(text, name)
    else:
        samples, rate, _, positions = _espeak(text, f"en-us+{name}", 50, 1.0)
        phones = [(first / rate, last / rate) for first, last in positions]
    spoken = np.asarray(soxr.resample(samples, rate, RATE, quality="HQ"), np.float32)
    start, end = phones[0][0], phones[-1][1]
    inside = tuple((first - start, last - start) for first, last in phones)
    return Spoken(spoken[round(start * RATE) : round(end * RATE)], (), inside)


def _espeak(
    text: str, name: str, pitch: float, pace: float
) -> tuple[np.ndarray, float, list[tuple[str, int | None]], list[tuple[int, int]]]:
    """Samples within -1..1, their rate, words with the samples at which they start, phones with theirs."""
    library, rate = _load_espeak()
    blocks, events = list[np.ndarray](), list[tuple[int, int, int, str]]()

    def take(data: Any, count: int, found: Any) -> int:
        if count > 0:
            blocks.append(np.ctypeslib.as_array(data, (count,)).copy())
        index = 0
        while found[index].type != _LIST_ENDS:
            event = found[index]
            events.append((event.type, event.text_position, event.sample, event.name.decode("utf-8", "replace")))
            index += 1
        return 0

    callback = _Callback(take)  # it must live as long as espeak-ng calls it
    with _one_at_a_time:
        library.espeak_SetSynthCallback(callback)
        by_language = _Language(languages=name.encode())  # "en+f4", as the program understands it
        if library.espeak_SetVoiceByName(name.encode()) and library.espeak_SetVoiceByProperties(
            ctypes.byref(by_language)
        ):
            raise EvaluationError(f"espeak-ng has no voice {name!r}.")
        library.espeak_SetParameter(_SPEED, round(WORDS_A_MINUTE * pace), 0)
        library.espeak_SetParameter(_PITCH, round(pitch), 0)
        data = text.encode()
        library.espeak_Synth(data, len(data) + 1, 0, _CHARACTERS, 0, _UTF8 | _END_PAUSE, None, None)
    samples = np.concatenate(blocks) / 32768.0
    starts = {position - 1: sample for kind, position, sample, _ in reversed(events) if kind == _WORD}
    words = [(match[0], starts.get(match.start())) for match in re.finditer(r"[a-z']+", text.lower())]
    marks = [(sample, kind, name) for kind, _, sample, name in events if kind in (_PHONEME, _END)]
    ends = [sample for sample, _, _ in marks[1:]] + [len(samples)]
    phones = [
        (sample, end)
        for (sample, kind, name), end in zip(marks, ends, strict=True)
        if kind == _PHONEME and name and not name.startswith(_PAUSES) and end > sample
    ]
    return samples, float(rate), words, phones


@cache
def _load_espeak() -> tuple[ctypes.CDLL, int]:
    """The library and its rate. Raises EvaluationError where it is missing."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise EvaluationError(
            f"{_LIBRARY} cannot be loaded ({error}), and only it tells when each word is said; install espeak-ng."
        ) from error
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS)
    if rate <= 0:
        raise EvaluationError("espeak-ng's data cannot be found; install espeak-ng again.")
    return library, int(rate)


def _flite(text: str, name: str) -> tuple[np.ndarray, float, list[tuple[float, float]]]:
    """Samples within -1..1, their rate, and the seconds of the phones, which flite prints with their ends."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = ["flite", "-voice", name, "-psdur", "-t", text, "-o", str(path)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        with wave.open(str(path)) as file:
            rate = float(file.getframerate())
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768.0
    phones, start = list[tuple[float, float]](), 0.0
    for phone, _, end in (item.partition(":") for item in printed.split()):
        if not phone.startswith(_PAUSES):
            phones.append((start, float(end)))
        start = float(end)
    if not phones:
        raise EvaluationError(f"flite -psdur printed no phones of {text!r}; expected name:end for each.")
    return samples, rate, phones
