"""A file of hours, quickly: its packets are encoded once and written again and again."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from .recording import RATE

_FRAME = 960  # samples encoded at a time, 60 ms


def write_long_file(path: Path, samples: np.ndarray, seconds: float) -> Path:
    """Opus in Ogg, at least `seconds` long: float32 [n] at 16 kHz, repeated."""
    once = path.with_name(f"once-{path.name}")
    _encode(once, samples)
    times = int(np.ceil(seconds * RATE / len(samples)))
    with av.open(str(path), "w", format="ogg") as out:
        target, offset = None, 0
        for _ in range(times):
            with av.open(str(once)) as source:
                stream = source.streams.audio[0]
                target = target or out.add_stream_from_template(stream)
                end = offset
                for packet in source.demux(stream):
                    if packet.pts is None:  # the last, empty one
                        continue
                    packet.pts += offset
                    packet.dts = packet.pts
                    end = packet.pts + (packet.duration or 0)
                    packet.stream = target
                    out.mux(packet)
                offset = end
    once.unlink()
    return path


def _encode(path: Path, samples: np.ndarray) -> None:
    whole = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    with av.open(str(path), "w", format="ogg") as out:
        stream = out.add_stream("libopus", rate=RATE, layout="mono")
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=stream.rate)
        for start in range(0, len(whole), _FRAME):
            frame = av.AudioFrame.from_ndarray(whole[None, start : start + _FRAME], format="s16", layout="mono")
            frame.rate, frame.pts = RATE, start
            for ready in resampler.resample(frame):
                out.mux(stream.encode(ready))
        out.mux(stream.encode(None))
