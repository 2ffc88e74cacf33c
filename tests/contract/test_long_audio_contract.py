"""Transcriptions of clips longer than a window, asked by OpenAI's own client."""

from __future__ import annotations

import io

import openai
import pytest
import srt
import webvtt
from openai.types.audio import TranscriptionVerbose

from kit.clip_files import encoded, wav_bytes
from kit.fake_backend import FakeBackend, Metronome
from kit.live_server import live
from qwen2_audio.longform import transcribe as module
from qwen2_audio.serve.long_audio import is_long
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


def test_what_is_long():
    assert is_long(LONG) and is_long(encoded("mp3", "mp3", 31.0, 32_000))
    assert not is_long(wav_bytes(30.05)) and not is_long(wav_bytes(1.0)) and not is_long(b"nothing")


def test_a_clip_that_is_too_long_is_refused_by_its_duration(says):
    with (
        live(FakeBackend(), Settings(clip_seconds=50.0)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=20) as client,
        pytest.raises(openai.BadRequestError, match=r"holds more than 50 s of sound, which is the limit") as refused,
    ):
        create(client)
    assert refused.value.param == "file" and "max_seconds" not in str(refused.value)
