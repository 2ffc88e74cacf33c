"""Sentences by flite with the times of their words, from the structure that flite builds of an utterance."""

from __future__ import annotations

import ctypes
import re
from functools import cache

import numpy as np
import soxr

from qwen2_audio.errors import EvaluationError
from qwen2_audio.evaluate.nano.speech.engines import speech_span
from qwen2_audio.evaluate.nano.speech.voices import Manner, Voice

from .spoken import RATE, Spoken

_FIRST_PHONE = b"R:SylStructure.daughter1.daughter1.R:Segment.p.end"  # of a word: where the phone before it ends


class _Voice(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))  # the first of its fields


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


def say(text: str, voice: Voice, manner: Manner) -> Spoken:
    """As `engines.say` of a voice of flite, with the words' starts."""
    library, speaker = _load(), _voice(voice.name)
    library.flite_feat_set_float(speaker.contents.features, b"duration_stretch", 1 / manner.pace)
    if manner.pitch:
        library.flite_feat_set_float(speaker.contents.features, b"int_f0_target_mean", manner.pitch)
    utterance = library.flite_synth_text(text.encode(), speaker)
    wave = library.utt_wave(utterance).contents
    samples = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).astype(np.float64) / 32768
    rate = wave.sample_rate * manner.formant_scale  # a shorter vocal tract speaks faster
    found, item = list[tuple[str, float]](), library.relation_head(library.utt_relation(utterance, b"Word"))
    while item:
        start = float(library.ffeature_float(item, _FIRST_PHONE)) / manner.formant_scale
        found.append((library.item_feat_string(item, b"name").decode().lower(), start))
        item = library.item_next(item)
    library.delete_utterance(utterance)
    spoken = np.asarray(soxr.resample(samples, rate, RATE, quality="MQ"), np.float64)
    first, end = speech_span(spoken)
    words = _matched(re.findall(r"[a-z']+", text.lower()), found)
    starts = tuple((word, None if at is None else at - first / RATE) for word, at in words)
    return Spoken(spoken[first:end].astype(np.float32), starts)


def _matched(words: list[str], found: list[tuple[str, float]]) -> list[tuple[str, float | None]]:
    """Our words with flite's starts; flite makes two of "what's"."""
    matched: list[tuple[str, float | None]] = []
    index = 0
    for word in words:
        said, start = "", None
        while index < len(found) and len(said) < len(word) and word.startswith(said + found[index][0]):
            start = found[index][1] if start is None else start
            said += found[index][0]
            index += 1
        matched.append((word, start if said == word else None))
    return matched


@cache
def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libflite.so.1")
    except OSError as error:
        raise EvaluationError(f"libflite.so.1 cannot be loaded ({error}); install flite.") from error
    for name in ("flite_synth_text", "utt_relation", "relation_head", "item_next"):
        getattr(library, name).restype = ctypes.c_void_p
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.flite_synth_text.argtypes = [text, ctypes.POINTER(_Voice)]
    library.flite_feat_set_float.argtypes = [pointer, text, ctypes.c_float]
    library.utt_relation.argtypes = [pointer, text]
    library.utt_wave.argtypes, library.utt_wave.restype = [pointer], ctypes.POINTER(_Wave)
    library.delete_utterance.argtypes = library.relation_head.argtypes = library.item_next.argtypes = [pointer]
    library.ffeature_float.argtypes, library.ffeature_float.restype = [pointer, text], ctypes.c_float
    library.item_feat_string.argtypes, library.item_feat_string.restype = [pointer, text], text
    library.flite_init()
    return library


def _voice(name: str) -> ctypes._Pointer[_Voice]:
    """A voice with its own features anew, which `say` changes."""
    register = getattr(ctypes.CDLL(f"libflite_cmu_us_{name}.so.1"), f"register_cmu_us_{name}")
    register.restype, register.argtypes = ctypes.POINTER(_Voice), [ctypes.c_void_p]
    return register(None)  # type: ignore[no-any-return]
