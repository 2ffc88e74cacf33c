"""Clips as the bytes of audio files."""

from __future__ import annotations

import io
import wave

import numpy as np


def wav_bytes(seconds: float = 1.0, rate: int = 16_000, hertz: float = 440.0) -> bytes:
    samples = 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def encoded(kind: str, codec: str, seconds: float = 1.0, rate: int = 16_000) -> bytes:
    """A clip in the container `kind`, by PyAV."""
    import av

    file = io.BytesIO()
    samples = (9000 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.int16)
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=stream.rate)
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="s16", layout="mono")
            frame.rate, frame.pts = rate, start
            for out in resampler.resample(frame):
                container.mux(stream.encode(out))
        container.mux(stream.encode(None))
    return file.getvalue()


def tone(seconds: float, hertz: float = 440.0) -> np.ndarray:
    """A quiet sine, float32 at 16 kHz."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    return (0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)
