"""What stands beside a clip (offset, duration, array, start ...) is honoured or refused."""

import io
import json
import wave

import numpy as np
import pytest

from qwen2_audio.errors import AudioError, PromptError
from qwen2_audio.train.clip_sources import Segment
from qwen2_audio.train.clips import read_clip, seconds_of
from qwen2_audio.train.formats import read_row

SAID = {"role": "assistant", "content": "A dog."}


def the_clip(row, folder):
    row = read_row(row, folder)
    return row.messages[0]["content"][0]["audio"]


def chat(part, **more):
    return {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}, SAID], **more}


@pytest.mark.parametrize(
    "row",
    [
        chat({"type": "audio", "audio": "a.wav", "offset": 1, "duration": 2.5}),
        chat({"type": "audio", "audio": {"path": "a.wav", "offset": 1, "duration": 2.5}}),
        {
            "messages": [{"role": "user", "content": "<audio>?"}, SAID],
            "audios": [{"path": "a.wav", "offset": 1, "duration": 2.5}],
        },
        {"messages": [{"role": "user", "content": "<audio>?"}, SAID], "audios": "a.wav", "offset": 1, "duration": 2.5},
        chat({"type": "audio", "audio": "a.wav"}, offset=1, duration=2.5),
    ],
)
def test_a_segment_is_read_in_every_form(row, tmp_path):
    assert the_clip(row, tmp_path) == Segment(tmp_path / "a.wav", 1.0, 2.5)


def test_a_segment_of_an_evaluation_row(tmp_path):
    row = read_row({"audio": "a.wav", "prompt": "p", "gt": "g", "offset": 3.0, "duration": None}, tmp_path)
    assert row.audio == Segment(tmp_path / "a.wav", 3.0, None)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_segment_is_what_librosa_loads(tmp_path, wav_file, rate):
    librosa = pytest.importorskip("librosa")
    path = wav_file("long.wav", 40.0, rate=rate, hertz=311.0)
    found = read_clip(Segment(path, 31.25, 4.5), 1).waveform
    expected, _ = librosa.load(path, sr=16_000, offset=31.25, duration=4.5)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert seconds_of(Segment(path, 31.25, 4.5)) == 4.5
    assert seconds_of(Segment(path, 31.25, None)) == pytest.approx(8.75)


def test_a_segment_of_bytes_is_cut_as_that_of_the_file(wav_file):
    path = wav_file("a.wav", 2.0)
    file, raw = (read_clip(Segment(source, 0.5, 1.0), 1).waveform for source in (path, path.read_bytes()))
    assert len(file) == 16_000
    assert np.array_equal(file, raw)


def test_a_duration_that_is_the_whole_clip_changes_no_sample(wav_file):
    path = wav_file("a.wav", 1.2345)
    assert np.array_equal(read_clip(Segment(path, 0.0, 1.23), 1).waveform, read_clip(path, 1).waveform)


@pytest.mark.parametrize("segment", [(0.5, 1.0), (1.0, None), (5.0, 1.0)])
def test_a_segment_beyond_the_end_is_refused(wav_file, segment):
    with pytest.raises(AudioError, match=r"lasts 1\.00 s, and the row asks for it from"):
        read_clip(Segment(wav_file("a.wav", 1.0), *segment), 1)


def test_an_array_is_heard_with_its_rate(tmp_path):
    samples = (0.3 * np.sin(np.arange(8000) / 5)).tolist()
    part = {"type": "audio", "audio": {"path": None, "array": samples, "sampling_rate": 8000}}
    source = the_clip(json.loads(json.dumps(chat(part))), tmp_path)
    assert len(read_clip(source, 1).waveform) == 16_000
    assert seconds_of(source) == 1.0


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (chat({"type": "audio", "audio": {"path": "a.wav", "start": 3}}), "'start', which is not read"),
        (chat({"type": "audio", "audio": "a.wav", "end": 3}), "'end', which nothing here reads"),
        (chat({"type": "audio", "audio": "a.wav"}, start=3), "'start', which is not read here. A part of a clip"),
        ({"messages": [{"role": "user", "content": "?"}, SAID], "offset": 3}, "names a part of its clip, and 0 clips"),
        (chat({"type": "audio", "audio": {"path": "a.wav", "offset": -1}}), "offset -1; expected seconds"),
        (chat({"type": "audio", "audio": {"path": "a.wav", "offset": "1"}}), "offset '1'; expected seconds"),
        (chat({"type": "audio", "audio": {"path": "a.wav", "duration": 0}}), "duration of 0 s"),
        (chat({"type": "audio", "audio": {"path": "a.wav", "offset": 1}, "offset": 1}), "give it once"),
        (chat({"type": "audio", "audio": {"array": [0.0]}}), "without its 'sampling_rate'"),
        ({"audio": "a.wav", "prompt": "p", "gt": "g", "start_time": 1}, "'start_time', which is not read"),
    ],
)
def test_what_cannot_be_honoured_is_refused(row, sentence, tmp_path):
    with pytest.raises(PromptError) as error:
        read_row(row, tmp_path)
    assert sentence in str(error.value)


def test_a_segment_of_a_compressed_file(tmp_path, wav_file):
    av = pytest.importorskip("av")
    path = tmp_path / "a.flac"
    with wave.open(io.BytesIO(wav_file("a.wav", 3.0).read_bytes())) as wav, av.open(str(path), "w") as out:
        samples = np.frombuffer(wav.readframes(wav.getnframes()), "<i2")
        stream = out.add_stream("flac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        out.mux([*stream.encode(frame), *stream.encode(None)])
    found = read_clip(Segment(path, 1.0, 1.5), 1).waveform
    assert np.array_equal(found, read_clip(path, 1).waveform[16_000:40_000])
