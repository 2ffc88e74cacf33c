"""Data augmentation: speed, reverb, noise and gain of the waveform; vocal tract length and SpecAugment in the log-mel.

Every random number comes from the generator that is passed in, so that (seed, epoch, index) determine the result. numpy
only, except for soxr in `audio.resample`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..audio import mel
from ..audio.resample import SAMPLE_RATE, Resampler
from ..errors import ConfigError
from .config import AugmentConfig

Range = tuple[float, float]
_LIMITS: dict[str, Range] = {
    "speed": (0.5, 2.0),
    "vtlp": (0.5, 2.0),
    "gain_db": (-60.0, 40.0),
    "noise_snr_db": (-20.0, 100.0),
}
_FORMANTS = (300.0, 900.0, 1800.0, 3200.0, 8000.0)  # Hz; between these, the factor of `vtlp` is interpolated
_FORMANT_SPREAD = 0.04  # how far the factor of one formant may differ from the others
_REVERB_SECONDS = (0.1, 0.8)  # until the echo has fallen by 60 dB: from a car to a hall
_MIN_SAMPLES = 2 * mel.MEL_HOP + 1  # one audio token


def check_config(config: AugmentConfig) -> None:
    """Raises ConfigError for a range or a chance that is out of bounds."""
    for name, (lowest, highest) in _LIMITS.items():
        low, high = getattr(config, name)
        if not lowest <= low <= high <= highest:
            raise ConfigError(
                f"augment.{name} is [{low:g}, {high:g}]; expected [low, high] between {lowest:g} and {highest:g}."
            )
    for name in ("noise", "reverb", "spec_augment"):
        chance = getattr(config, name)
        if not 0 <= chance <= 1:
            raise ConfigError(f"augment.{name} is {chance:g}; expected a chance between 0 and 1.")


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random generator of row `index` in one epoch."""
    return np.random.default_rng((seed, epoch, index))


def vary_waveform(waveform: np.ndarray, config: AugmentConfig, draw: np.random.Generator) -> np.ndarray:
    """float32 [S] at 16 kHz -> float32 [S'], at most 30 s long, and long enough for one audio token."""
    if config.speed != (1.0, 1.0):
        waveform = _speed(waveform, draw.uniform(*config.speed))
    if draw.random() < config.reverb:
        waveform = _reverb(waveform, draw.uniform(*_REVERB_SECONDS), draw)
    if draw.random() < config.noise:
        waveform = _noise(waveform, draw.uniform(*config.noise_snr_db), draw)
    if config.gain_db != (0.0, 0.0):
        waveform = waveform * np.float32(10 ** (draw.uniform(*config.gain_db) / 20))
    return waveform


def vary_log_mel(log_mel: np.ndarray, frames: int, config: AugmentConfig, draw: np.random.Generator) -> np.ndarray:
    """VTLP and SpecAugment on float32 [mel, F]. Only the first `frames`, which are sound, are changed."""
    if config.vtlp != (1.0, 1.0):
        factor, log_mel = draw.uniform(*config.vtlp), log_mel.copy()
        log_mel[:, :frames] = vtlp(log_mel[:, :frames], factor, _FORMANT_SPREAD, draw)
    return _masked(log_mel, frames, config, draw) if draw.random() < config.spec_augment else log_mel


def warp(log_mel: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """float32 [mel, F] with the frequency of each bin times its factor [mel], interpolated linearly between bins.

    Vocal tract length perturbation (Jaitly and Hinton 2013) on mel bins. Frequencies beyond the highest bin take its
    value.
    """
    centres = bin_centres(len(log_mel))
    at = np.interp(centres / factors, centres, np.arange(len(log_mel)))
    low = np.minimum(at.astype(int), len(log_mel) - 2)
    share = (at - low).astype(np.float32)[:, None]
    return np.asarray(log_mel[low] * (1 - share) + log_mel[low + 1] * share, np.float32)


@lru_cache(maxsize=4)
def bin_centres(bins: int) -> np.ndarray:
    """Hertz of the front end's bins: Slaney's scale, linear up to 1 kHz (15 a bin of 66.7 Hz), then logarithmic."""
    mels = np.linspace(0, 15 + np.log(8) / (np.log(6.4) / 27), bins + 2)[1:-1]
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))


def vtlp(log_mel: np.ndarray, factor: float, spread: float, draw: np.random.Generator) -> np.ndarray:
    """Vocal tract length perturbation: float32 [mel, F] with every formant times `factor`.

    Each formant's own factor differs from it by up to `spread` (0.04: 4 %), because speakers differ in more than the
    length of the vocal tract.
    """
    formants = factor * draw.uniform(1 - spread, 1 + spread, len(_FORMANTS))
    return warp(log_mel, np.interp(bin_centres(len(log_mel)), _FORMANTS, formants))


def _masked(log_mel: np.ndarray, frames: int, config: AugmentConfig, draw: np.random.Generator) -> np.ndarray:
    """SpecAugment (Park et al. 2019) without time warping.

    Masked values are set to the clip's mean. A time mask covers at most a fifth of the clip, a frequency mask at most
    half of the bins.
    """
    out = log_mel.copy()
    valid = out[:, :frames]
    mean = valid.mean()
    for _ in range(config.time_masks):
        start, width = _mask(frames, min(config.time_mask_frames, frames // 5), draw)
        valid[:, start : start + width] = mean
    for _ in range(config.frequency_masks):
        start, width = _mask(len(valid), min(config.frequency_mask_bins, len(valid) // 2), draw)
        valid[start : start + width] = mean
    return out


def _mask(length: int, widest: int, draw: np.random.Generator) -> tuple[int, int]:
    """Start and width of a mask within `length`, at most `widest` wide."""
    width = int(draw.integers(0, widest + 1))
    return int(draw.integers(0, length - width + 1)), width


def _speed(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Played `factor` times as fast; a clip that would become too short or too long keeps its speed."""
    rate = round(SAMPLE_RATE * factor)
    if not _MIN_SAMPLES <= len(waveform) * SAMPLE_RATE / rate <= mel.WINDOW_SAMPLES - 1 or rate == SAMPLE_RATE:
        return waveform
    resampler = Resampler(rate)
    return np.concatenate([resampler.push(np.ascontiguousarray(waveform, np.float32)), resampler.finish()])


def _reverb(waveform: np.ndarray, seconds: float, draw: np.random.Generator) -> np.ndarray:
    """Synthetic reverberation: noise that decays by 60 dB in `seconds` follows the sound. Keeps length and level."""
    length = max(2, round(seconds * SAMPLE_RATE))
    decay = 10 ** (-3 * np.arange(length) / length)
    response = draw.standard_normal(length) * decay
    response *= draw.uniform(0.2, 1.0) / np.sqrt((response * response).sum())  # energy of the echoes; the sound's is 1
    response[0] = 1.0
    size = 1 << (len(waveform) + length - 2).bit_length()
    wet = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(response, size), size)[: len(waveform)]
    return (wet * (_level(waveform) / max(_level(wet), 1e-12))).astype(np.float32)


def _noise(waveform: np.ndarray, snr_db: float, draw: np.random.Generator) -> np.ndarray:
    """Adds noise between white and brown, `snr_db` below the level of the sound, so that silence stays silent."""
    spectrum = np.fft.rfft(draw.standard_normal(len(waveform)))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1.0) ** (-draw.uniform(0, 2) / 2)
    noise = np.fft.irfft(spectrum, len(waveform))
    noise *= _level(waveform) / max(_level(noise), 1e-12) * 10 ** (-snr_db / 20)
    return (waveform + noise).astype(np.float32)


def _level(waveform: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
