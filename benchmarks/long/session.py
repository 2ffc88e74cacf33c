"""What the rows of `python -m benchmarks long` share: options, recordings and transcripts, made when a row asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from qwen2_audio.api.chat import AudioChat
from qwen2_audio.api.loading import load
from qwen2_audio.bench import machine
from qwen2_audio.errors import ConfigError
from qwen2_audio.longform.transcript import Transcript
from qwen2_audio.longform.vad import SpeechDetector, missing_reason, speech_detector

from .recording import Monologue, Recording, kept_monologues, kept_recording


@dataclass(frozen=True)
class Amounts:
    """How much sound is made."""

    recording: float = 3600.0  # s
    monologue: float = 2040.0  # s by each voice: over 200 cuts in all
    files: int = 1000  # random ones whose samples are counted
    stream: tuple[float, float] = (3600.0, 36_000.0)  # s of the streams whose memory is compared


QUICK = Amounts(180.0, 120.0, 20, (60.0, 600.0))


class Session:
    """One run of the benchmark."""

    def __init__(self, *, quick: bool, threads: int | None, progress: Callable[[str], None]) -> None:
        """Raises ConfigError where speech cannot be told from other sound."""
        if (reason := missing_reason()) is not None:
            raise ConfigError(reason)
        self.quick, self.progress = quick, progress
        self.threads = threads or machine.physical_cores()
        self.amounts = QUICK if quick else Amounts()
        self._recordings: dict[float | None, Recording] = {}
        self._transcripts: dict[float | None, Transcript] = {}
        torch.set_num_threads(self.threads)

    def recording(self, decibels: float | None = None) -> Recording:
        """The recording, clean or in pink noise so many dB below its speech."""
        if decibels not in self._recordings:
            made = (
                kept_recording(self.amounts.recording, self.progress)
                if decibels is None
                else self.recording().in_noise(decibels)
            )
            self._recordings[decibels] = made
        return self._recordings[decibels]

    @cached_property
    def monologues(self) -> list[Monologue]:
        return kept_monologues(self.amounts.monologue, self.progress)

    @cached_property
    def chat(self) -> AudioChat:
        return fresh_nano()

    def transcript(self, decibels: float | None = None) -> Transcript:
        """What nano hears in the recording; of the clean one also when each word begins."""
        if decibels not in self._transcripts:
            recording = self.recording(decibels)
            self.progress(f"hearing {recording.seconds / 60:.0f} minutes{in_noise(decibels)}")
            talk: Transcript = self.chat.transcribe(recording.samples, word_timestamps=decibels is None)
            self._transcripts[decibels] = talk
        return self._transcripts[decibels]


def fresh_nano() -> AudioChat:
    """Nano with nothing encoded or cached yet."""
    return load("nano", device="cpu", dtype="float32", enable_prefix_caching=False)


def in_noise(decibels: float | None) -> str:
    return "" if decibels is None else f" in noise {decibels:g} dB below"


def detector() -> SpeechDetector:
    """A new one, for one sound."""
    found = speech_detector()
    assert found is not None, "a Session was made"
    return found
