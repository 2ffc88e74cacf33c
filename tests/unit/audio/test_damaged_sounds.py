"""What was lost of a sound is said, whatever its container, and said again for the next one."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pytest

from qwen2_audio.audio import load
from qwen2_audio.audio.io import SoundWarning

SECONDS = 8


def encode(fmt: str, codec: str, seconds: int = SECONDS, **options: str) -> bytes:
    """A tone at 48 kHz."""
    file, tone = io.BytesIO(), np.sin(np.arange(seconds * 48_000) * 0.05).astype(np.float32)
    with av.open(file, "w", format=fmt, options=options) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(0.3 * tone[None], format="fltp", layout="mono")
        frame.sample_rate = 48_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


def with_cover(mp3: bytes, size: int, begin: bytes = b"") -> bytes:
    """An ID3v2 tag with a picture of `size` bytes, which may `begin` like anything, before the sound."""
    frame = b"APIC" + struct.pack(">IH", size + 14, 0) + b"\0image/jpeg\0\x03\0" + begin.ljust(size, b"\0")
    length = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + length + frame + mp3


def pages(ogg: bytes) -> list[bytes]:
    out = []
    while ogg:
        segments = ogg[26]
        length = 27 + segments + sum(ogg[27 : 27 + segments])
        out.append(ogg[:length])
        ogg = ogg[length:]
    return out


def without_warning(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load(data)


CONTAINERS: dict[str, Callable[[], bytes]] = {
    "aiff": lambda: encode("aiff", "pcm_s16be"),
    "au": lambda: encode("au", "pcm_s16be"),
    "caf": lambda: encode("caf", "pcm_s16be"),
    "w64": lambda: encode("w64", "pcm_s16le"),
    "rf64": lambda: encode("wav", "pcm_s16le", rf64="always"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_half_a_file_is_noticed_by_its_size(name: str) -> None:
    data = CONTAINERS[name]()
    assert len(without_warning(data)) == SECONDS * 16_000
    assert len(without_warning(data[:-1] if name == "aiff" else data))  # a missing byte of padding is no loss
    half = len(data) // 2
    with pytest.warns(SoundWarning, match=rf"is cut off \({half:,} of {len(data):,} bytes are there\); the 4\.00 s"):
        load(data[:half])


@pytest.mark.parametrize(("name", "field"), [("aiff", slice(4, 8)), ("au", slice(8, 12))])
def test_a_size_that_was_not_known_yet_is_no_promise(name: str, field: slice) -> None:
    data = bytearray(CONTAINERS[name]())
    data[field] = b"\x7f\xff\xff\xff"
    assert len(without_warning(bytes(data))) == SECONDS * 16_000


@pytest.mark.parametrize("size", [5_000, 70_000])
def test_half_an_mp3_behind_cover_art_is_noticed(size: int) -> None:
    mp3 = encode("mp3", "libmp3lame")
    assert len(without_warning(with_cover(mp3, size))) == pytest.approx(SECONDS * 16_000, abs=1000)
    with pytest.warns(SoundWarning, match=r"is cut off \(its header promises 8\.\d\d s\); the 3\.\d\d s"):
        load(with_cover(mp3[: len(mp3) // 2], size))


def test_a_picture_that_spells_a_header_promises_nothing() -> None:
    mp3 = encode("mp3", "libmp3lame", write_xing="0")
    half = with_cover(mp3[: len(mp3) // 2], 70_000, b"Xing")
    assert len(without_warning(half)) > 2 * 16_000  # its length was a guess


def test_a_gap_in_ogg_is_noticed() -> None:
    data = encode("ogg", "libopus")
    every = pages(data)
    assert len(without_warning(data)) == pytest.approx(SECONDS * 16_000, abs=200)
    with pytest.warns(SoundWarning, match=r"has a gap \(at \d\.\d\d s, [23]\.\d\d s are missing\); the [56]\."):
        load(b"".join(every[:4] + every[6:]))


def test_ogg_that_begins_in_the_middle_or_goes_on_behind_its_end_has_no_gap() -> None:
    every = pages(encode("ogg", "libopus"))
    assert len(without_warning(b"".join(every[:2] + every[4:]))) < 7 * 16_000  # what a radio station sends
    chained = encode("ogg", "libopus", 2) + b"".join(every)
    assert len(without_warning(chained)) == pytest.approx((SECONDS + 2) * 16_000, abs=400)


def test_equal_damage_is_said_each_time() -> None:
    code = (
        "import sys; from qwen2_audio.audio import load; data = sys.stdin.buffer.read()\nfor _ in range(3): load(data)"
    )
    data: Any = encode("wav", "pcm_s16le")
    done = subprocess.run([sys.executable, "-c", code], input=data[: len(data) // 2], capture_output=True, check=True)
    assert done.stderr.count(b"SoundWarning: The sound given as bytes is cut off") == 3


def test_a_filter_that_was_there_before_goes_first() -> None:
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from qwen2_audio.audio.io import SoundWarning; warnings.warn('x', SoundWarning)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stderr == b""
