"""Rows on how sound is cut: where it does harm, and whether every sample is heard or said to be skipped."""

from __future__ import annotations

import tempfile
import wave
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from qwen2_audio.audio.io import SoundStream, load
from qwen2_audio.bench.report import Row
from qwen2_audio.longform.settings import TranscriptionSettings
from qwen2_audio.longform.windows import Window, Windower

from ..harness.rows import row_of
from .recording import RATE, SEED, Monologue, in_pink_noise
from .session import Session, detector, in_noise

BLOCK = 1 << 17  # samples that arrive at once
_RATES = (8_000, 16_000, 44_100)
_AROUND = 2  # hundredths of a second before and after a cut that must lie in phones too


def cuts_in_speech(session: Session, name: str, decibels: float | None = None) -> Row:
    """The share of cuts inside a phone, in monologues by three voices that hardly pause, by the default windows."""
    cut = hit = 0
    seconds = list[float]()
    for monologue in session.monologues:
        session.progress(f"cutting {len(monologue.samples) / RATE / 60:.0f} minutes{in_noise(decibels)}")
        samples = monologue.samples if decibels is None else in_pink_noise(monologue.samples, decibels)
        windows = windows_of(samples, TranscriptionSettings())
        found = cuts_of(monologue, windows)
        cut, hit = cut + len(found), hit + sum(found)
        seconds += [window.seconds for window in windows[:-1]]
    note = f"{hit} of {cut} cuts; windows of {np.mean(seconds):.1f} s"
    return row_of(name, "%", [100 * hit / cut], note=note)


def windows_of(samples: np.ndarray, settings: TranscriptionSettings) -> list[Window]:
    windower, windows = Windower(settings, detector()), list[Window]()
    for start in range(0, len(samples), BLOCK):
        windows += windower.push(samples[start : start + BLOCK])
    return windows + windower.finish()


def cuts_of(monologue: Monologue, windows: list[Window]) -> list[bool]:
    """Whether each place between two windows lies in a phone: it, and 20 ms before and after. Where something was
    skipped between them, either end of it."""
    speaks = monologue.speaks()

    def inside(sample: int) -> bool:
        place = round(sample * 100 / RATE)
        near = [min(max(place + shift, 0), len(speaks) - 1) for shift in (-_AROUND, 0, _AROUND)]
        return bool(speaks[near].all())

    return [inside(before.end) or inside(after.start) for before, after in pairwise(windows)]


@dataclass(frozen=True)
class _Case:
    """A random file and how it is cut."""

    settings: TranscriptionSettings
    everything: bool
    by_speech: bool  # by Silero's network, else by energy


def unaccounted(session: Session, name: str) -> Row:
    """Samples of random files that are in no window and not said to be skipped, or in two; by random settings."""
    rng = np.random.default_rng(SEED)
    speech = session.recording().samples
    total = lost = 0
    session.progress(f"counting the samples of {session.amounts.files} files")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.wav"
        for _ in range(session.amounts.files):
            write_random_file(path, rng, speech)
            case = _Case(
                TranscriptionSettings(
                    window_seconds=float(rng.uniform(1, 30)), merge=bool(rng.integers(2)),
                    merge_gap=float(rng.uniform(0, 5)), pad=float(rng.uniform(0, 1)),
                ),
                bool(rng.integers(2)), bool(rng.random() < 0.8),
            )  # fmt: skip
            length = len(load(path))
            total += length
            lost += count_unaccounted(path, length, case)
    hours = total / RATE / 3600
    return row_of(name, "samples", [lost], note=f"of {session.amounts.files} files, {hours:.1f} h")


def count_unaccounted(path: Path, length: int, case: _Case) -> int:
    """Of a file of so many samples: those that are heard or skipped not exactly once."""
    windower = Windower(case.settings, detector() if case.by_speech else None, everything=case.everything)
    windows = list[Window]()
    for (block,) in SoundStream(path).blocks():
        windows += windower.push(block)
    windows += windower.finish()
    times = np.zeros(length + 1, np.int8)  # the last one stands for all beyond the end
    for start, end in [*((window.start, window.end) for window in windows), *windower.skipped]:
        times[min(start, length) : min(end, length)] += 1
        times[length] += end > length
    return int((times[:length] != 1).sum() + times[length])


def write_random_file(path: Path, rng: np.random.Generator, speech: np.ndarray) -> None:
    """Speech, noise and silence, one after the other, in a WAV file of any rate, mono or stereo."""
    parts = []
    for _ in range(int(rng.integers(1, 7))):
        count = int(RATE * rng.uniform(0.01, 8))
        kind = rng.choice(("speech", "noise", "silence"), p=(0.6, 0.2, 0.2))
        start = int(rng.integers(max(1, len(speech) - count)))
        part = speech[start : start + count] if kind == "speech" else rng.normal(size=count) * 0.02
        parts.append(part * 0 if kind == "silence" else part * float(rng.uniform(0.2, 4)))
    samples = np.clip(np.rint(np.concatenate(parts) * 32768), -32768, 32767).astype("<i2")
    channels = int(rng.integers(1, 3))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(int(rng.choice(_RATES)))  # the same samples last longer or shorter
        file.writeframes(np.repeat(samples, channels).tobytes())
