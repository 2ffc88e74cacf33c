"""Record from the microphone."""

from __future__ import annotations

import numpy as np

from ..audio import SAMPLE_RATE
from ..errors import AudioError, ConfigError


def record(seconds: float) -> np.ndarray:
    """Record `seconds` as float32 [S] at 16 kHz.

    Raises ConfigError without sounddevice or PortAudio, AudioError when the microphone cannot be used.
    """
    try:
        import sounddevice
    except ImportError:
        raise ConfigError("Recording needs the sounddevice package: pip install 'qwen2-audio[mic]'.") from None
    except OSError:  # sounddevice's Linux wheel does not contain PortAudio
        raise ConfigError(
            "Recording needs the PortAudio library, which is not installed: apt install libportaudio2."
        ) from None
    try:
        samples = sounddevice.rec(round(seconds * SAMPLE_RATE), samplerate=SAMPLE_RATE, channels=1, dtype="float32")
        sounddevice.wait()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AudioError(f"The microphone cannot be used ({error}); check that there is one, and its rights.") from None
    return np.ascontiguousarray(samples[:, 0])
