"""Transcriptions of clips longer than a window, asked by OpenAI's own client."""

from __future__ import annotations

import io
import socket
import tempfile
import threading
import time
import wave
from pathlib import Path

import openai
import pytest
import srt
import starlette.formparsers
import webvtt
from openai.types.audio import TranscriptionVerbose

from kit.clip_files import encoded, wav_bytes
from kit.fake_backend import FakeBackend, Metronome
from kit.live_server import live, wait_for
from qwen2_audio.longform import transcribe as module
from qwen2_audio.serve import long_audio
from qwen2_audio.serve.settings import Settings

LONG = wav_bytes(75.0)


@pytest.fixture(autouse=True)
def _everything(monkeypatch):
    """Without the detector all is heard: the clip is a tone."""
    monkeypatch.setattr(module, "speech_detector", lambda: None)


@pytest.fixture
def says(monkeypatch):
    """The model answers with the length of what it hears."""
    monkeypatch.setattr("kit.fake_backend.text_of", lambda messages: "what is that")


def create(client, **options):
    return client.audio.transcriptions.create(model="fake", file=("a.wav", options.pop("file", LONG)), **options)


def test_json_is_all_of_it(client, says):
    answer = create(client)
    seconds = [float(word) for word in answer.text.split() if word[0].isdigit()]
    assert len(seconds) == 3 and sum(seconds) == pytest.approx(75, abs=0.01)
    assert (answer.usage.type, answer.usage.seconds) == ("duration", 75.0)


def test_verbose_json(client, says):
    answer = create(client, response_format="verbose_json", timestamp_granularities=["segment"], language="de")
    assert isinstance(answer, TranscriptionVerbose)
    assert answer.language == "german" and answer.duration == pytest.approx(75)
    starts = [segment.start for segment in answer.segments]
    assert len(starts) == 3 and starts == sorted(starts) and answer.segments[-1].end == pytest.approx(75)


@pytest.mark.parametrize("clip", [LONG, wav_bytes(1.0)], ids=["long", "short"])
def test_words_with_their_times(client, says, monkeypatch, clip):
    options = {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"], "file": clip}
    with pytest.raises(openai.BadRequestError, match="Times of words need an aligner") as refused:
        create(client, **options)
    assert refused.value.param == "timestamp_granularities"
    monkeypatch.setattr(FakeBackend, "aligner", Metronome())
    answer = create(client, **options)
    starts = [word.start for word in answer.words]
    assert starts == sorted(starts) and starts[:3] == pytest.approx([0.0, 0.2, 0.4])
    assert " ".join(word.word for word in answer.words) == answer.text
    assert create(client, response_format="verbose_json", file=clip).words is None


def test_subtitles(client, says):
    assert len(list(srt.parse(create(client, response_format="srt")))) == 3
    assert len(list(webvtt.from_buffer(io.StringIO(create(client, response_format="vtt"))))) == 3
    assert create(client, response_format="text").endswith(" s\n")


def test_a_stream_has_segments_as_they_come(client, says):
    events = list(create(client, stream=True))
    kinds = [event.type for event in events]
    assert kinds == ["transcript.text.segment", "transcript.text.delta"] * 3 + ["transcript.text.done"]
    starts = [event.start for event in events if event.type == "transcript.text.segment"]
    assert starts == sorted(starts) and starts[0] == 0
    said = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert said == events[-1].text == create(client).text


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # says the client of translations
def test_translations_too(client, says):
    assert client.audio.translations.create(model="fake", file=("a.wav", LONG)).text.count("I heard") == 3


@pytest.mark.parametrize("field", ["top_p", "seed", "max_completion_tokens"])
def test_fields_that_would_not_act_are_refused(client, says, field):
    with pytest.raises(openai.BadRequestError, match=f"{field} acts on clips of at most 30 s") as refused:
        create(client, extra_body={field: 1})
    assert refused.value.param == field


def test_a_window_that_fails_is_an_error_with_a_status(client, monkeypatch):
    monkeypatch.setattr("kit.fake_backend.text_of", lambda messages: "fault")
    with pytest.raises(openai.InternalServerError, match="its log says why"):
        create(client, file=wav_bytes(40.0))


def test_a_clip_that_is_too_long_is_refused_by_its_duration(says):
    with (
        live(FakeBackend(), Settings(clip_seconds=50.0)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=20) as client,
        pytest.raises(openai.BadRequestError, match=r"holds more than 50 s of sound, which is the limit") as refused,
    ):
        create(client)
    assert refused.value.param == "file" and "max_seconds" not in str(refused.value)


@pytest.mark.parametrize(("form", "codec"), [("wav", "pcm_s16le"), ("mp3", "mp3")])
def test_the_pieces_of_a_segmenter_are_one_window_each(client, says, form, codec):
    """ffmpeg -f segment -segment_time 30 leaves pieces of up to 30.016 s."""
    piece = encoded(form, codec, 30.016, 16_000)
    answer = create(client, file=piece, response_format="verbose_json")
    assert len(answer.segments) == 1 and answer.text.count("I heard") == 1


# -- files on disk, the deadline of all of it, and a stop


@pytest.fixture
def spooled(monkeypatch):
    files = []

    def make(max_size):
        files.append(tempfile.SpooledTemporaryFile(max_size))  # noqa: SIM115
        return files[-1]

    monkeypatch.setattr(starlette.formparsers, "SpooledTemporaryFile", make)
    return files


@pytest.fixture
def slow(monkeypatch):
    """A backend that takes 0.2 s for a window, two at a time."""
    monkeypatch.setattr("kit.fake_backend.text_of", lambda messages: "say word")
    monkeypatch.setattr(module, "MAX_PENDING", 2)
    return FakeBackend(delay=0.2)


def upload(port: int, data: bytes) -> socket.socket:
    """A connection that has asked for a stream, and has read the beginning of it."""
    body = b'--b\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'
    body += b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + data + b"\r\n--b--\r\n"
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def test_a_client_that_goes_ends_the_work_and_frees_the_file(slow, spooled):
    with live(slow, Settings(grace=1)) as server:
        with upload(server.port, wav_bytes(900.0)) as connection:
            while b"transcript.text.segment" not in connection.recv(4096):
                pass
            assert not spooled[0].closed and server.state.spooled_bytes > 0
        wait_for(lambda: server.state.requests == 0)
        wait_for(lambda: spooled[0].closed and not slow.open)
        assert server.state.spooled_bytes == 0 and len(slow.seen) < 30


def test_a_stop_ends_a_long_transcription_with_its_sentence(slow, spooled):
    with live(slow, Settings(grace=0.5)) as server, upload(server.port, wav_bytes(900.0)) as connection:
        received = b""
        while b"transcript.text.segment" not in received:
            received += connection.recv(4096)
        began = time.monotonic()
        server.server.should_exit = True
        while block := connection.recv(4096):
            received += block
        assert b"shutting down" in received and time.monotonic() - began < 5
        wait_for(lambda: spooled[0].closed)


def test_all_of_it_has_a_deadline(slow, monkeypatch):
    monkeypatch.setattr(long_audio, "total_seconds", lambda settings: 0.3)
    with (
        live(slow, Settings(grace=1)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=20) as client,
        pytest.raises(
            openai.InternalServerError, match=r"not finished within 0.3 s.*; send the sound in parts"
        ) as late,
    ):
        create(client, file=wav_bytes(300.0))
    assert late.value.code == "deadline_exceeded"


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="/proc is not there")
@pytest.mark.parametrize("minutes", [16, pytest.param(120, marks=pytest.mark.exhaustive)])
def test_a_long_upload_does_not_live_in_memory(tmp_path, says, minutes):
    """Silence, and a second of a tone in the end, so that the file is read to it."""
    path, peak, done = tmp_path / "talk.wav", [0], threading.Event()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        for _ in range(minutes):
            file.writeframes(bytes(2 * 60 * 16_000))
        file.writeframes(wav_bytes(1.0)[44:])

    def watch():
        while not done.wait(0.002):
            peak[0] = max(peak[0], resident())

    with (
        live(FakeBackend(), Settings(grace=1)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=100) as client,
        path.open("rb") as file,
    ):
        create(client, file=wav_bytes(40.0))  # what is loaded once
        before, watcher = resident(), threading.Thread(target=watch)
        watcher.start()
        answer = create(client, file=file, response_format="verbose_json")
        done.set()
        watcher.join()
    assert answer.duration == 60 * minutes + 1 and answer.segments[-1].text.startswith("I heard")
    starts = [segment.start for segment in answer.segments]
    assert starts == sorted(starts) and len(starts) >= 2 * minutes
    assert peak[0] - before < 20e6, "the file has 1.9 MB a minute"
