"""SoundStream: the samples of `load`, block by block, before the file is read to its end."""

import io
import struct
import wave

import numpy as np
import pytest

from kit.clip_files import encoded
from qwen2_audio.audio.decode import EncodedSound
from qwen2_audio.audio.io import SoundStream, load
from qwen2_audio.audio.limits import Deadline, Limits
from qwen2_audio.errors import AudioError

NOISE = np.random.default_rng(0).integers(-9000, 9000, (2, 48_000), np.int16)


def wav_of(samples, rate=16_000) -> bytes:
    """int16 [channels, n] as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(len(samples))
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.T.astype("<i2").tobytes())
    return file.getvalue()


def rifx(samples, rate) -> bytes:
    data = samples.T.astype(">i2").tobytes()
    form = struct.pack(">HHIIHH", 1, len(samples), rate, rate * 2 * len(samples), 2 * len(samples), 16)
    body = b"WAVE" + b"fmt " + struct.pack(">I", 16) + form + b"data" + struct.pack(">I", len(data)) + data
    return b"RIFX" + struct.pack(">I", len(body)) + body


SOURCES = {
    "plain": wav_of(NOISE[:1]),
    "stereo at 44.1 kHz": wav_of(NOISE, 44_100),
    "big-endian": rifx(NOISE, 8000),
    "flac": encoded("flac", "flac", 3.0, 48_000),
    "mp3": encoded("mp3", "mp3", 3.0, 22_050),
    "opus": encoded("ogg", "libopus", 3.0, 48_000),
    "array": (NOISE, 11_025),
    "samples": NOISE[0].astype(np.float32) / 32768,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_the_samples_of_load(kind):
    stream = SoundStream(SOURCES[kind])
    blocks = [block for (block,) in stream.blocks()]
    np.testing.assert_array_equal(np.concatenate(blocks), load(SOURCES[kind]))
    assert stream.seconds == pytest.approx(len(np.concatenate(blocks)) / 16_000, abs=0.1) or kind in ("big-endian",)
    assert stream.notes == []


@pytest.mark.parametrize("kind", ["stereo at 44.1 kHz", "big-endian", "array"])
def test_channels_by_themselves(kind):
    """One decoding gives what each channel as a file of its own gives."""
    blocks = list(SoundStream(SOURCES[kind], split=True).blocks())
    assert {len(block) for block in blocks} == {2}
    rate = {"stereo at 44.1 kHz": 44_100, "big-endian": 8000, "array": 11_025}[kind]
    for channel in range(2):
        alone = load(wav_of(NOISE[channel : channel + 1], rate))
        np.testing.assert_array_equal(np.concatenate([block[channel] for block in blocks]), alone)


def test_channels_of_a_mono_sound():
    (block,) = [np.concatenate(tracks) for tracks in zip(*SoundStream(SOURCES["plain"], split=True).blocks())]  # noqa: B905
    np.testing.assert_array_equal(block, load(SOURCES["plain"]))


def test_channels_that_change_on_the_way_cannot_be_told_apart():
    sound = EncodedSound(io.BytesIO(), "The call", Limits(), Deadline(60))
    blocks = sound._resampled(
        [(np.zeros((160, 2), np.float32), 16_000), (np.zeros((160, 1), np.float32), 16_000)], True
    )
    assert [len(track) for track in next(blocks)] == [160, 160]
    with pytest.raises(
        AudioError, match=r"The call has 2 channels and, from 0.01 s on, 1; its channels cannot be told"
    ):
        next(blocks)


class Watched(io.BytesIO):
    """A file that knows how far it was read."""

    def __init__(self, data):
        super().__init__(data)
        self.far = 0

    def read(self, size=-1):
        data = super().read(size)
        self.far = max(self.far, self.tell())
        return data


@pytest.mark.parametrize(("form", "codec"), [("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "mp3"), ("adts", "aac")])
def test_the_first_samples_come_before_the_file_is_read_to_its_end(form, codec):
    data = encoded(form, codec, 200.0, 16_000 if form == "wav" else 32_000)
    file = Watched(data)
    next(blocks := SoundStream(file, limits=Limits(max_seconds=1e6)).blocks())
    ends = {"wav": 0.5, "mp3": 0.3, "flac": 0.3, "adts": 0.3}
    position = file.tell()
    assert position < ends[form] * len(data)
    assert sum(1 for _ in blocks) > 2
    assert file.far == len(data)


def noise_as(form, codec) -> bytearray:
    """Ten seconds of noise, which does not compress."""
    import av

    file = io.BytesIO()
    samples = np.random.default_rng(0).integers(-9000, 9000, 160_000, np.int16)
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=16_000, layout="mono")
        for start in range(0, len(samples), 4096):
            block = np.ascontiguousarray(samples[None, start : start + 4096])
            converted = av.AudioResampler(stream.codec_context.format, "mono", 16_000)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.rate, frame.pts = 16_000, start
            for out in converted.resample(frame):
                container.mux(stream.encode(out))
        container.mux(stream.encode(None))
    return bytearray(file.getvalue())


@pytest.mark.parametrize(
    ("form", "codec", "sentence"),
    [
        ("flac", "flac", "has a gap (at "),
        ("ogg", "libopus", "has a gap (at "),
        ("mp3", "mp3", "Sound is missing at "),
        ("mp4", "aac", "Sound is missing at "),
    ],
)
def test_a_corrupt_middle_costs_the_middle_and_the_note_says_where(form, codec, sentence):
    data = noise_as(form, codec)
    first, last = int(len(data) * 0.45), int(len(data) * 0.55)
    data[first:last] = np.random.default_rng(1).bytes(last - first)
    stream = SoundStream(bytes(data))
    samples = np.concatenate([block for (block,) in stream.blocks()])
    assert 7.9 < len(samples) / 16_000 < 9.9
    (note,) = stream.notes
    assert sentence in note
    place = note.partition(sentence)[2].split()[0]
    assert float(place) == pytest.approx(4.5, abs=0.7)


class Packet:
    def __init__(self, number):
        self.number = number


class Broken:
    """A container whose demuxer fails at some packets."""

    def __init__(self, failures, count=6):
        self.failures, self.count, self.next = list(failures), count, 0
        self.streams = type("Streams", (), {"audio": ["track"]})()

    def demux(self, track):
        import av

        while self.next < self.count:
            if self.failures and self.failures[0] == self.next:
                self.failures.pop(0)
                raise av.InvalidDataError(1, "broken")
            yield Packet(self.next)
            self.next += 1


@pytest.mark.parametrize(
    ("failures", "packets", "places"), [([2], 6, 1), ([2, 2, 4], 6, 2), ([3] * 7, 6, 1), ([3] * 8, 3, 1), ([6], 6, 0)]
)
def test_what_lies_behind_a_place_that_cannot_be_demuxed_is_read(failures, packets, places):
    sound = EncodedSound(io.BytesIO(), "a", Limits(), Deadline(60))
    bad: list[float] = []
    read = [packet.number for packet in sound._packets(Broken(failures), bad)]
    assert read == list(range(packets))
    assert len(bad) == places


def test_a_pipe_waits_on_disk(monkeypatch):
    class Pipe(io.RawIOBase):
        def __init__(self, data):
            self.rest = io.BytesIO(data)

        def read(self, size=-1):
            return self.rest.read(size)

        def readable(self):
            return True

    made = []
    original = io.BytesIO
    monkeypatch.setattr("qwen2_audio.audio.io.IN_MEMORY", 1000)
    from tempfile import SpooledTemporaryFile

    def spooled(size):
        made.append(SpooledTemporaryFile(size))  # noqa: SIM115
        return made[-1]

    monkeypatch.setattr("qwen2_audio.audio.io.tempfile.SpooledTemporaryFile", spooled)
    np.testing.assert_array_equal(load(Pipe(SOURCES["plain"])), load(original(SOURCES["plain"])))
    (file,) = made
    assert file._rolled and file.closed


def test_errors_come_with_the_blocks():
    with pytest.raises(AudioError, match="No such file"):
        next(SoundStream("gone.wav").blocks())
    with pytest.raises(AudioError, match=r"holds more than 1 s of sound"):
        list(SoundStream(SOURCES["flac"], limits=Limits(max_seconds=1.0)).blocks())
