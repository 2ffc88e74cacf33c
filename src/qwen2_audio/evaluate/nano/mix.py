"""One clip of sound from one seed: silence around it, a room, some noise, a level."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .sounds import dsp
from .sounds.dsp import Array, Rng
from .sounds.kinds import KINDS, UNHEARD, Kind, draw_parameters

SPEECH, STRANGE = "speech", "strange"
Samples = npt.NDArray[np.float32]  # [n] at 16 kHz, within -1..1


@dataclass(frozen=True)
class Clip:
    """What is known about a clip, besides its samples."""

    kind: str  # of the sound; SPEECH, or STRANGE for speech that nano must not claim to understand
    seconds: float
    level_db: float  # RMS of the whole clip, dB below full scale; -120 for digital silence
    text: str = ""  # what is said, for SPEECH
    family: str = ""  # of the utterance
    answer: str = ""  # to it, in a voice chat
    sex: str = ""  # of who speaks: "man", "woman"
    voice: str = ""  # engine and name
    background: str = ""  # kind of the sound behind the speech


def clip_seed(split: str, index: int) -> int:
    """The seed of clip `index` of `split`: a hash, so that no two clips share random numbers."""
    return int.from_bytes(hashlib.sha256(f"nano {split} {index}".encode()).digest()[:8], "big")


def render_clip(split: str, index: int, kind: str | None = None) -> tuple[Samples, Clip]:
    """Clip `index` of `split`: float32 [n] at 16 kHz, peak at most 1. Kinds take turns unless `kind` is given."""
    rng = np.random.default_rng(clip_seed(split if kind is None else f"{split} {kind}", index))
    chosen = _kind_named(kind) if kind else KINDS[index % len(KINDS)]
    parameters = draw_parameters(chosen, split, rng)
    seconds = _duration(chosen, rng)
    dry = chosen.render(parameters, rng, dsp.samples(seconds))
    if chosen.name == "silence":
        wave = dry
    else:
        wave = add_room(add_silence(dry, rng), rng)
        wave = set_level(wave if chosen.name == "noise" else add_noise(wave, rng), rng)
    samples = wave.astype(np.float32)
    return samples, Clip(chosen.name, len(samples) / dsp.RATE, rms_db(samples))


def rms_db(samples: Samples) -> float:
    """RMS in dB below full scale; -120 for digital silence."""
    rms = float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))
    return float(20 * np.log10(max(rms, 1e-6)))


def _kind_named(name: str) -> Kind:
    return next(kind for kind in (*KINDS, UNHEARD) if kind.name == name)


def _duration(kind: Kind, rng: Rng) -> float:
    """Mostly short; a tenth up to 10 s, one in sixty up to 30 s, so that long clips are no surprise."""
    r = rng.random()
    if r < 1 / 60:
        return float(rng.uniform(10, 29))
    if r < 0.1:
        return float(rng.uniform(5, 10))
    return float(rng.uniform(kind.shortest, kind.shortest + 3.0))


def add_silence(x: Array, rng: Rng) -> Array:
    """Sometimes up to 0.6 s of silence before, sometimes up to 2 s after, as real files have it."""
    before = rng.uniform(0, 0.6) if rng.random() < 0.3 else 0.0
    after = rng.uniform(0, 2.0) if rng.random() < 0.3 else 0.0
    return np.concatenate([np.zeros(int(before * dsp.RATE)), dsp.unit(x), np.zeros(int(after * dsp.RATE))])


def add_room(x: Array, rng: Rng, chance: float = 0.5, wettest: float = 0.7, longest: float = 0.9) -> Array:
    """Reverberation in a share `chance` of clips, a microphone's colour in six of ten.

    The reverberation is 0.1 to `longest` seconds long, its RMS 0.1 to `wettest` times that of the sound.
    """
    if rng.random() < chance:
        length = rng.uniform(0.1, longest)
        n = dsp.samples(length)
        tail = (
            rng.standard_normal(n)
            * np.exp(-6.9 * np.arange(n) / n)
            * (np.arange(n) > dsp.samples(rng.uniform(0.002, 0.02)))
        )
        tail = dsp.band(tail, 100, rng.uniform(2000, 6000), 1)
        size = 1 << int(np.ceil(np.log2(len(x) + n)))
        wet = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(tail, size), size)[: len(x)]
        x = x + rng.uniform(0.1, wettest) * dsp.unit(wet) * np.sqrt(np.mean(x**2))
    if rng.random() < 0.6:
        tilt, middle = rng.uniform(-0.35, 0.35), rng.uniform(400, 2500)
        x = dsp.shaped(x, lambda f: (np.maximum(f, 30) / middle) ** tilt)
    return x


def add_noise(x: Array, rng: Rng) -> Array:
    """A noise floor 10 to 60 dB below the sound, in two thirds of clips."""
    if rng.random() < 0.33:
        return x
    snr = rng.uniform(10, 60)
    floor = dsp.coloured_noise(rng, len(x), rng.uniform(0, 2)) * 10 ** (-snr / 20)
    return x + floor * float(np.sqrt(np.mean(x**2)))


def set_level(x: Array, rng: Rng) -> Array:
    """RMS between -42 and -12 dB below full scale; where peaks would pass it, scaled down or soft-clipped."""
    x = dsp.unit(x) * 10 ** (rng.uniform(-42, -12) / 20)
    peak = float(np.abs(x).max())
    if peak > 1 and rng.random() < 0.7:
        return x / peak * rng.uniform(0.7, 1.0)
    if peak > 0.9:
        x = np.tanh(x)
    return x
