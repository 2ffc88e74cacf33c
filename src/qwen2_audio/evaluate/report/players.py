"""Clips in a page: each as an MP3 in a data: URI, within a budget for the whole page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np

from ...audio.io import SAMPLE_RATE
from ...datasets.row import Sound
from ...errors import Qwen2AudioError
from ..clips import decode_clip, read_clip, wav_bytes

BUDGET = 6_000_000  # characters of base64 in a page
BIT_RATE = 32_000
BLOCK = 1152  # samples handed to the encoder at a time


class Players:
    """Makes players until the budget is spent."""

    def __init__(self, find: Callable[[str, str], Sound | None], budget: int = BUDGET) -> None:
        """`find`: the sound of a task's row; None where it is not at hand any more."""
        self._find = find
        self._left = budget
        self.left_out = 0  # for want of room
        self.missing = 0  # not to be found, or damaged

    def player(self, task: str, row: str) -> str:
        """An <audio> element, or nothing."""
        try:
            sound = self._find(task, row)
            clip = decode_clip(read_clip(sound)) if sound is not None else None
        except Qwen2AudioError:
            clip = None
        if clip is None:
            self.missing += 1
            return ""
        kind, data = encode(clip.waveform)
        uri = f"data:{kind};base64,{base64.b64encode(data).decode()}"
        if len(uri) > self._left:
            self.left_out += 1
            return ""
        self._left -= len(uri)
        return f'<audio controls preload="metadata" src="{uri}"></audio>'


def encode(waveform: np.ndarray) -> tuple[str, bytes]:
    """The type and bytes of an MP3 of float32 [S] at 16 kHz; of a WAV file where FFmpeg was built without LAME."""
    import av

    file, samples = io.BytesIO(), np.ascontiguousarray(waveform, np.float32)[None]
    try:
        with av.open(file, "w", format="mp3") as container:
            stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="mono")
            stream.bit_rate = BIT_RATE
            resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=SAMPLE_RATE)
            for start in range(0, samples.shape[1], BLOCK):
                frame = av.AudioFrame.from_ndarray(samples[:, start : start + BLOCK], format="flt", layout="mono")
                frame.rate, frame.pts = SAMPLE_RATE, start
                for out in resampler.resample(frame):
                    container.mux(stream.encode(out))
            container.mux(stream.encode(None))
        return "audio/mpeg", file.getvalue()
    except (av.FFmpegError, ValueError):
        return "audio/wav", wav_bytes(waveform)
