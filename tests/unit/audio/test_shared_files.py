"""One file object that several threads load at a time."""

from __future__ import annotations

import io
import time
import wave
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from qwen2_audio.audio import load
from qwen2_audio.errors import AudioError

THREADS = 4


def wav_bytes(samples: int = 20_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes((np.sin(np.arange(samples) * 0.1) * 9000).astype("<i2").tobytes())
    return file.getvalue()


class Slow(io.BytesIO):
    """Gives the other threads time to move it between a seek and a read."""

    def read(self, size: int | None = -1, /) -> bytes:
        time.sleep(0.001)
        return super().read(size)


class SlowPipe(io.RawIOBase):
    def __init__(self, data: bytes) -> None:
        self._file = Slow(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(min(size, 4096))


def test_every_thread_hears_the_whole_sound() -> None:
    data = wav_bytes()
    expected, shared = load(data), Slow(data)
    with ThreadPoolExecutor(THREADS) as pool:
        for heard in pool.map(load, [shared] * 12):
            np.testing.assert_array_equal(heard, expected)


def test_what_can_be_read_once_goes_to_one_thread() -> None:
    data = wav_bytes()
    pipe, waveforms, refused = SlowPipe(data), [], []
    with ThreadPoolExecutor(THREADS) as pool:
        for waveform in [pool.submit(load, pipe) for _ in range(THREADS)]:
            try:
                waveforms.append(waveform.result())
            except AudioError as error:
                refused.append(str(error))
    assert len(waveforms) == 1
    np.testing.assert_array_equal(waveforms[0], load(data))
    assert all("is empty (0 bytes)" in text for text in refused)


def test_a_sound_that_is_refused_sets_its_file_free() -> None:
    broken = io.BytesIO(bytes(1000))
    for _ in range(2):
        with pytest.raises(AudioError, match="could not be decoded"):
            load(broken)
    assert not broken.closed
