"""`python -m benchmarks long`: a long recording against its utterances alone, with the bundled nano.

long.wer_excess         points of word errors more than the same utterances alone, clean; _20db in pink noise
long.segment_start_ms   from an utterance's start to the nearest segment's, median
long.vad_x_real_time    seconds of sound a second of one thread
long.speedup            the recording against the same windows one after another
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from qwen2_audio.api.chat import AudioChat
from qwen2_audio.api.loading import load
from qwen2_audio.bench import machine
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate.nano.world.utterance import plain
from qwen2_audio.evaluate.word_errors import word_error_rate
from qwen2_audio.inputs.messages import user
from qwen2_audio.longform.transcript import Transcript
from qwen2_audio.longform.vad import missing_reason, speech_detector
from qwen2_audio.types import SamplingParams

from ..harness.rows import row_of
from .recording import RATE, Recording, record

_SECONDS, _QUICK_SECONDS = 3600.0, 60.0
_BLOCK = 1 << 17
_PARAMS = SamplingParams(temperature=0.0, repetition_penalty=1.0, max_tokens=80)


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    quick: bool = False  # a minute instead of an hour
    threads: int | None = None  # None: one a physical core

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; expected at least 1.")


def run(options: Options, progress: Callable[[str], None] = lambda line: None) -> Report:
    """Measure. Raises EvaluationError without the synthesisers, ConfigError without jiwer or silero-vad."""
    if (reason := missing_reason()) is not None:
        raise ConfigError(reason)
    threads = options.threads or machine.physical_cores()
    progress("the recording")
    clean = record(_QUICK_SECONDS if options.quick else _SECONDS)
    rows = [vad_speed(clean.samples)]
    torch.set_num_threads(threads)
    chat = load("nano", device="cpu", dtype="float32", enable_prefix_caching=False)
    for name, recording in (("", clean), ("_20db", clean.in_noise(20.0))):
        progress(f"heard{name}")
        started = time.perf_counter()
        talk = chat.transcribe(recording.samples)
        together = time.perf_counter() - started
        rows.append(excess(f"long.wer_excess{name}", chat, recording, talk))
        if not name:
            rows.append(segment_starts(recording, talk))
            rows.append(speedup(chat, recording, talk, together))
    about: dict[str, Any] = machine.describe(threads) | {"ours": version("qwen2-audio"), "peer": None}
    length = f"{len(clean.samples) / RATE:,.0f} s, {len(clean.texts)} utterances"
    about |= {"checkpoint": f"nano on a recording of {length}", "dtype": "float32"}
    return Report(about, rows)


def excess(name: str, chat: AudioChat, recording: Recording, talk: Transcript) -> Row:
    """Word errors of the whole recording, as one text, less those of its utterances alone."""
    asked = [[user("Transcribe the speech.", audio=clip)] for clip in recording.utterances()]
    answers = [completion.text for completion in chat.batch(asked, _PARAMS)]
    references = [plain(text) for text in recording.texts]
    alone = 100 * word_error_rate(list(zip(references, map(plain, answers), strict=True)))
    heard = " ".join(plain(segment.text) for segment in talk.segments)
    whole = 100 * word_error_rate([(" ".join(references), heard)])
    return row_of(name, "points", [whole - alone], note=f"{whole:.2f} % whole, {alone:.2f} % alone")


def segment_starts(recording: Recording, talk: Transcript) -> Row:
    starts = np.array([segment.start for segment in talk.segments])
    errors = [float(np.abs(starts - start / RATE).min()) for start, _ in recording.spans]
    note = f"{len(talk.segments)} segments of {len(recording.texts)} utterances"
    return row_of("long.segment_start_ms", "ms", [1000 * float(np.median(errors))], note=note)


def speedup(chat: AudioChat, recording: Recording, talk: Transcript, together: float) -> Row:
    """The time of the same windows asked one after another, against that of the whole."""
    started = time.perf_counter()
    for segment in talk.segments:
        clip = recording.samples[round(segment.start * RATE) : round(segment.end * RATE)]
        chat.chat([user("Transcribe the speech.", audio=clip)], _PARAMS)
    alone = time.perf_counter() - started
    return row_of(
        "long.speedup", "x faster", [alone / together], note=f"{together:.1f} s together, {alone:.1f} s alone"
    )


def vad_speed(samples: np.ndarray) -> Row:
    """Seconds of sound for each second of one thread; torch's threads are changed."""
    torch.set_num_threads(1)
    detector = speech_detector()
    assert detector is not None
    detector.push(samples[:_BLOCK])
    started = time.process_time()
    for start in range(0, len(samples), _BLOCK):
        detector.push(samples[start : start + _BLOCK])
    return row_of("long.vad_x_real_time", "s/s", [len(samples) / RATE / (time.process_time() - started)])
