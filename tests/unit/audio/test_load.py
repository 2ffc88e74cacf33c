"""Every kind of source gives the same samples; every bad one is refused in a sentence."""

from __future__ import annotations

import base64
import io
import os
import struct
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2_audio.audio import Limits, load
from qwen2_audio.errors import AudioError, ConfigError

LAYOUTS = {1: "mono", 2: "stereo"}


def noise(samples: int, channels: int = 1) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(channels, samples)) * 0.1).astype(np.float32)


def encode(samples: np.ndarray, fmt: str = "wav", codec: str = "pcm_f32le", rate: int = 16000) -> bytes:
    """float32 [channels, n] to the bytes of a file."""
    file = io.BytesIO()
    with av.open(file, "w", format=fmt) as container:
        stream = container.add_stream(codec, rate=rate, layout=LAYOUTS[len(samples)])
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=LAYOUTS[len(samples)])
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


def video_only() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10, width=16, height=16, pix_fmt="yuv420p")
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


WAVE = noise(5000)
WAV = encode(WAVE)


class Stream(io.RawIOBase):
    """A binary source that can only be read onwards, like a pipe."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def read(self, size: int = -1) -> Any:
        block, self.data = self.data[:size], self.data[size:]
        return block


# ---- sources


def test_all_encoded_sources_give_the_same_samples(tmp_path: Path) -> None:
    path = tmp_path / "a sound.wav"
    path.write_bytes(WAV)
    used = io.BytesIO(WAV)
    used.seek(99)
    sources: list[Any] = [
        path,
        str(path),
        path.as_uri(),
        path.as_uri().replace("file://", "FILE://localhost"),
        WAV,
        bytearray(WAV),
        memoryview(WAV),
        io.BytesIO(WAV),
        used,
        Stream(WAV),
        "data:audio/wav;base64," + base64.b64encode(WAV).decode(),
        "data:audio/wav;base64," + base64.b64encode(WAV).decode().rstrip("="),
        "data:;base64," + base64.urlsafe_b64encode(WAV).decode(),
        "data:audio/wav;base64," + quote(base64.b64encode(WAV).decode(), safe=""),
        "DATA:audio/wav," + quote(WAV),
    ]
    with path.open("rb") as file:
        for source in [*sources, file]:
            samples = load(source)
            np.testing.assert_array_equal(samples, WAVE[0])
            assert samples.dtype == np.float32
            assert samples.flags.writeable
        assert not file.closed


def test_the_rate_of_the_result_may_be_named_for_a_file() -> None:
    np.testing.assert_array_equal(load(WAV, sampling_rate=16000), WAVE[0])


@pytest.mark.parametrize(
    ("fmt", "codec"),
    [("webm", "libopus"), ("ogg", "libopus"), ("mp4", "aac"), ("ipod", "aac"), ("adts", "aac"), ("mp3", "libmp3lame")],
)
def test_what_browsers_and_phones_send(fmt: str, codec: str) -> None:
    tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(96000) / 48000)).astype(np.float32)
    samples = load(encode(np.stack([tone, tone]), fmt, codec, 48000))
    assert abs(len(samples) - 32000) <= 1100  # AAC pads to whole frames
    spectrum = np.abs(np.fft.rfft(samples[8000:24000]))
    assert spectrum.argmax() == 440  # Hz, as the piece is 1 s
    assert np.abs(samples[8000:24000]).max() == pytest.approx(0.3, abs=0.02)


def test_the_sound_of_a_video_file_and_stereo_is_the_mean() -> None:
    both = noise(3000, 2)
    np.testing.assert_allclose(load(encode(both)), both.mean(axis=0), atol=1e-8)


@settings(max_examples=40)
@given(
    samples=st.integers(1, 3000),
    rate=st.sampled_from([4000, 8000, 11025, 22050, 44100, 48000, 384000]),
    blocks=st.integers(1, 9),
)
def test_resampling_in_blocks_is_resampling_at_once(samples: int, rate: int, blocks: int) -> None:
    from qwen2_audio.audio.resample import StreamResampler

    def resampled(blocks):
        resampler = StreamResampler()
        return np.concatenate([*(resampler.push(block, rate) for block in blocks), resampler.finish()])

    once = resampled([WAVE[0, :samples]])
    assert len(once) == -(-samples * 16000 // rate)
    np.testing.assert_array_equal(once, resampled(np.array_split(WAVE[0, :samples], blocks)))


def test_a_rate_that_changes_on_the_way() -> None:
    """Two Ogg files one after the other are one file; the second may have another rate."""
    from qwen2_audio.audio.resample import StreamResampler

    resampler = StreamResampler()
    samples = [resampler.push(WAVE[0], 8000), resampler.push(WAVE[0], 16000), resampler.finish()]
    np.testing.assert_array_equal(np.concatenate(samples), np.concatenate([load((WAVE[0], 8000)), WAVE[0]]))


# ---- refusals


def refused(source: Any, text: str, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AudioError, match=text) as caught:
            load(source, **options)
    message = str(caught.value)
    assert message.endswith((".", "..."))
    assert len(message) < 450


TEXTS = {
    b"hello, this is not a sound\n" * 9: "is text, not a sound; expected a sound such as WAV",
    "é".encode() * 4000: "is text, not a sound",
    b"<!DOCTYPE html><html></html>": "is an HTML page, not a sound",
    b"#EXTM3U\nhttp://example.org/a.ts\n": "is a playlist, not a sound; give the sound files it names",
    b"[playlist]\nFile1=http://example.org/a.mp3\n": "is a playlist, not a sound",
    b"ffconcat version 1.0\nfile 'a.wav'\n": "is a playlist, not a sound",
    bytes(5000): "could not be decoded: it is damaged, cut off, or not a sound at all",
    np.random.default_rng(0).bytes(5000): "could not be decoded",
    WAV[:20]: "could not be decoded",
    b"": r"is empty \(0 bytes\); expected an encoded sound",
    video_only(): "holds no sound: found only video streams; expected an audio stream",
}


@pytest.mark.parametrize(("data", "text"), list(TEXTS.items()), ids=range(len(TEXTS)))
def test_bytes_that_are_no_sound(data: bytes, text: str, tmp_path: Path) -> None:
    refused(data, "The sound given as bytes " + text)
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    refused(path, "a.wav " + text)


def test_wav_without_samples() -> None:
    empty = WAV[: WAV.index(b"data") + 4] + bytes(4)
    refused(empty, "holds no samples|could not be decoded")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_float_wav_with_nan(bad: float) -> None:
    wave = WAVE.copy()
    wave[0, 4000] = bad
    refused(encode(wave), "holds NaN or infinite samples; expected finite ones")


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    neither = r"No such file: 'none.wav'. It is neither an existing path, an http\(s\) URL nor a data: URI; relative"
    refused("none.wav", neither)
    refused(Path("none.wav"), neither)
    refused("x" * 5000, r"No such file: 'x{200}'\.\.\.")
    refused("a\0b", "No such file")
    refused("", "No such file: ''")
    refused(str(tmp_path), "is a directory; expected a sound file")
    refused("/dev/null", "is not a regular file; expected a sound file")
    refused("file://elsewhere/a.wav", "names the host 'elsewhere'; expected file:///path")
    for scheme in ("ftp", "rtsp", "concat", "s3", "hls+http"):
        refused(f"{scheme}://host/a.wav", rf"has the scheme {scheme.replace('+', '.')}://; expected a path, bytes")


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(WAV)
    path.chmod(0)
    refused(path, "may not be read: Permission denied")


def test_objects_that_are_no_source() -> None:
    refused(None, "Found NoneType; expected a path, bytes")
    refused({"samples": WAVE}, r"Found a dict with \['samples'\]; expected {'array', 'sampling_rate'}")
    refused(12, "Found int; expected")
    refused(io.StringIO("text"), "is opened as text; open it in binary mode")
    refused(Stream("text"), "gives str when read; expected bytes")


def test_data_uris() -> None:
    refused("data:audio/wav;base64", "has no comma; expected data:audio/wav;base64,")
    refused("data:audio/wav;base64,@@@@", "is not valid base64")
    refused("data:audio/wav;base64,", "The data: URI is empty")
    refused("data:text/plain,hello", "The data: URI is text")
    refused("data:," + "A" * 4000, "larger than the limit of 1,000 bytes", limits=Limits(max_bytes=1000))


def test_rates_that_contradict() -> None:
    refused((WAVE[0], 8000), "says 8000 Hz and sampling_rate says 16000 Hz; give one", sampling_rate=16000)
    refused(WAV, "sampling_rate=8000 was given with an encoded sound", sampling_rate=8000)


# ---- limits


def test_limits_are_checked() -> None:
    refused(WAV, "larger than the limit of 100 bytes; cut it or raise max_bytes", limits=Limits(max_bytes=100))
    refused(Stream(WAV), "The file object is larger than the limit of 100 bytes", limits=Limits(max_bytes=100))
    for source in (WAV, WAVE[0], encode(WAVE, "flac", "flac")):
        refused(source, "more than 0.2 s of sound, which is the limit; cut it", limits=Limits(max_seconds=0.2))
    refused(encode(noise(99, 2)), "has 2 channels; expected 1 to 1. Mix it down", limits=Limits(max_channels=1))
    refused(WAV, "has a sampling rate of 16,000 Hz; expected 4,000 to 8,000 Hz", limits=Limits(max_rate=8000))
    refused(WAV, "took longer to read than the limit of 1e-09 s", limits=Limits(deadline=1e-9))


@pytest.mark.parametrize("field", ["max_bytes", "max_seconds", "max_channels", "min_rate", "timeout", "deadline"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), None, True])
def test_limits_that_cannot_work(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"Limits.{field} is .*; expected a number above 0"):
        Limits(**{field: value})


def test_crossed_rate_limits() -> None:
    with pytest.raises(ConfigError, match=r"min_rate \(9000 Hz\) is above Limits.max_rate \(8000 Hz\)"):
        Limits(min_rate=9000, max_rate=8000)


def flac_of_silence(hours: int, *, honest: bool) -> bytes:
    """A long FLAC of digital silence; the dishonest one hides its length, as a FLAC written to a pipe does."""
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1 << 19), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for _ in range(hours * 3600 * 16000 // (1 << 19) + 1):
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    data = bytearray(file.getvalue())
    if not honest:
        data[21] &= 0xF0  # total samples, 36 bits from here: 0 means unknown
        data[22:26] = bytes(4)
    return bytes(data)


@pytest.mark.parametrize("honest", [True, False])
def test_hours_of_silence_in_a_small_file_are_refused_before_decoding(
    honest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = flac_of_silence(1, honest=honest)
    assert len(bomb) < 700_000
    monkeypatch.setattr("qwen2_audio.audio.decode._channels", lambda frame: pytest.fail("it was decoded"))
    refused(bomb, "holds more than 600 s of sound, which is the limit", limits=Limits(max_seconds=600))


def test_a_header_that_lies_is_stopped_by_the_count_of_samples() -> None:
    data = bytearray(encode(WAVE, "flac", "flac"))
    data[22:26] = (100).to_bytes(4, "big")  # total samples
    refused(bytes(data), "holds more than 0.2 s of sound", limits=Limits(max_seconds=0.2))


# ---- damaged files: what could be decoded is kept, with a warning


@pytest.mark.parametrize(
    ("fmt", "codec", "text"),
    [
        (
            "wav",
            "pcm_s16le",
            r"is cut off \([\d,]+ of [\d,]+ bytes are there\); the .* s that could be decoded are used",
        ),
        ("flac", "flac", r"is damaged \(1 packets could not be decoded\); the .* s"),
        ("ogg", "libopus", r"is cut off \(its last Ogg page is not whole\)"),
        ("webm", "libopus", r"is cut off \(its header promises 4.0. s\)"),
        ("mp3", "libmp3lame", r"is cut off \(its header promises 4.0. s\)"),
        ("adts", "aac", r"is damaged \(1 packets"),
    ],
)
def test_a_truncated_file_is_kept_with_a_warning(fmt: str, codec: str, text: str) -> None:
    data = encode(noise(192_000), fmt, codec, 48000)
    whole = load(data)
    with pytest.warns(UserWarning, match=text):
        kept = load(data[: len(data) // 2])
    assert 0.2 < len(kept) / len(whole) < 0.6  # Ogg keeps whole pages of 1 s only
    if fmt in ("wav", "flac"):
        np.testing.assert_allclose(kept[:8000], whole[:8000], atol=1e-6)


def test_a_hole_in_the_middle_does_not_lose_the_rest() -> None:
    data = bytearray(encode(noise(96000), "mp3", "libmp3lame", 48000))
    data[len(data) // 2 : len(data) // 2 + 900] = bytes(900)
    with pytest.warns(UserWarning, match="is damaged .* packets could not be decoded|header promises"):
        assert len(load(bytes(data))) > 0.8 * 32000


def test_truncated_mp4_has_no_index_and_is_refused() -> None:
    data = encode(noise(96000), "mp4", "aac", 48000)
    refused(data[: len(data) // 2], "could not be decoded: it is damaged, cut off")


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_wav_written_to_a_pipe_is_whole(size: int) -> None:
    data = bytearray(encode(noise(48000), "wav", "pcm_s16le"))
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = size.to_bytes(4, "little")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load(bytes(data))) == 48000


@settings(max_examples=60)
@given(st.sampled_from(["wav", "flac", "ogg", "mp3"]), st.integers(0, 10**6), st.binary(max_size=64))
def test_no_damage_escapes_as_another_error(fmt: str, at: int, garbage: bytes) -> None:
    codec = {"wav": "pcm_s16le", "flac": "flac", "ogg": "libopus", "mp3": "libmp3lame"}[fmt]
    data = bytearray(encode(noise(9600), fmt, codec, 48000))
    data[at % len(data) : at % len(data) + len(garbage)] = garbage
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            samples = load(bytes(data), limits=Limits(max_seconds=60))
        except AudioError:
            return
    assert np.isfinite(samples).all()


def test_tags_that_are_not_utf8_do_not_matter() -> None:
    data = bytearray(encode(noise(9600), "mp3", "libmp3lame", 48000))
    whole = load(bytes(data))
    assert data[:3] == b"ID3"
    data[11] = 0x80  # in the name of the first tag
    np.testing.assert_array_equal(load(bytes(data)), whole)


@pytest.mark.parametrize("tail", [b"", b"LIST\x04\x00\x00\x00abcd", b"data\x04\x00\x00\x00\x01\x00\x02\x00"])
def test_a_plain_wav_is_read_as_ffmpeg_reads_it(tmp_path, tail):
    """16-bit mono at 16 kHz is read directly; whatever follows its samples, the result is FFmpeg's."""
    from qwen2_audio.audio.decode import EncodedSound
    from qwen2_audio.audio.io import read_plain_wav
    from qwen2_audio.audio.limits import Deadline, Limits

    samples = np.random.default_rng(0).integers(-32768, 32767, 5001).astype("<i2")
    body = b"fmt \x10\x00\x00\x00" + struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)
    body += b"data" + struct.pack("<I", samples.nbytes) + samples.tobytes() + tail
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)
    with path.open("rb") as file:
        by_ffmpeg = EncodedSound(file, "a", Limits(), Deadline(60)).decode()
        directly = read_plain_wav(file, "a", Limits())
    assert (directly is None) == tail.startswith(b"data")
    np.testing.assert_array_equal(load(path), by_ffmpeg)
    whole = path.read_bytes()
    for missing in () if tail else (1, 2, 100, 101):  # 1 and 101: within a sample
        path.write_bytes(whole[:-missing])
        with path.open("rb") as file:
            assert read_plain_wav(file, "a", Limits()) is None, "cut off: FFmpeg's, with a warning"
        # A sample may be missing without a word: headers are often one off.
        with pytest.warns(UserWarning, match="cut off") if missing > 1 else nullcontext():
            assert len(load(path)) == 5001 - (missing + 1) // 2
