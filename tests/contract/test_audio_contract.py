"""Transcriptions and translations, asked by OpenAI's own client."""

from __future__ import annotations

import openai
import pytest
from openai.types.audio import Transcription, TranscriptionVerbose, TranslationVerbose

from kit.clip_files import encoded, wav_bytes
from qwen2_audio.longform.wording import TRANSCRIBE, TRANSLATE


@pytest.fixture
def says(monkeypatch):
    """What the model answers, whatever it is asked: says("hello")."""

    def answer(text: str) -> None:
        monkeypatch.setattr("kit.fake_backend.text_of", lambda messages: f"say {text}")

    return answer


def test_json(client, backend, wav, says):
    says("hello there")
    raw = client.audio.transcriptions.with_raw_response.create(model="fake", file=("a.wav", wav))
    answer = Transcription.model_validate_json(raw.content)
    assert answer.text == "hello there"
    assert (answer.usage.type, answer.usage.input_token_details.audio_tokens) == ("tokens", 25)
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    messages, params, _, _ = backend.seen[-1]
    assert messages[0]["content"][0] == {"type": "audio", "audio": wav}
    assert messages[0]["content"][1]["text"] == TRANSCRIBE
    assert (params.temperature, params.max_tokens) == (0.0, 448)


def test_language_prompt_and_sampling_reach_the_model(client, backend, wav):
    client.audio.transcriptions.create(
        model="fake", file=("a.wav", wav), language="de", prompt="names: Käthe", temperature=0.3,
        chunking_strategy="auto",
        extra_body={"seed": 4, "top_p": 0.5, "top_k": 3, "max_completion_tokens": 12},
    )  # fmt: skip
    messages, params, _, _ = backend.seen[-1]
    assert messages[0]["content"][1]["text"] == f"Context: names: Käthe\nThe speech is in German. {TRANSCRIBE}"
    assert (params.temperature, params.seed, params.top_p, params.top_k, params.max_tokens) == (0.3, 4, 0.5, 3, 12)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("text", "hello there\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:01,500\nhello there\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nhello there\n"),
    ],
)
def test_plain_formats(client, says, form, expected):
    says("hello there")
    answer = client.audio.transcriptions.create(model="fake", file=("a.wav", wav_bytes(1.5)), response_format=form)
    assert answer == expected


def test_verbose_json(client, wav, says):
    says("hello there")
    raw = client.audio.transcriptions.with_raw_response.create(
        model="fake", file=("a.wav", wav), response_format="verbose_json", timestamp_granularities=["segment"]
    )
    answer = TranscriptionVerbose.model_validate_json(raw.content)
    assert (answer.text, answer.duration, answer.language) == ("hello there", 1.0, "unknown")
    (segment,) = answer.segments
    assert (segment.start, segment.end, segment.text, segment.avg_logprob) == (0, 1.0, "hello there", -0.25)
    assert answer.usage.seconds == 1.0


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # says the client of translations
def test_translations(client, backend, wav, says):
    says("good day")
    assert client.audio.translations.create(model="fake", file=("a.wav", wav)).text == "good day"
    assert backend.seen[-1][0][0]["content"][1]["text"] == TRANSLATE.format(to="English")
    raw = client.audio.translations.with_raw_response.create(
        model="fake", file=("a.wav", wav), response_format="verbose_json"
    )
    assert TranslationVerbose.model_validate_json(raw.content).language == "english"
    assert client.audio.translations.create(model="fake", file=("a.wav", wav), response_format="text") == "good day\n"
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.translations.create(model="fake", file=("a.wav", wav), extra_body={"include": ["logprobs"]})
    assert refused.value.param == "include"


@pytest.mark.parametrize("logprobs", [False, True])
def test_a_streamed_transcript(client, wav, says, logprobs):
    says("The original content of this audio is: 'it's hello there'.")
    include = {"include": ["logprobs"]} if logprobs else {}
    events = list(client.audio.transcriptions.create(model="fake", file=("a.wav", wav), stream=True, **include))
    assert {event.type for event in events[:-1]} == {"transcript.text.delta"}
    done = events[-1]
    assert done.type == "transcript.text.done"
    assert done.text == "".join(event.delta for event in events[:-1]) == "it's hello there"
    assert done.usage.input_token_details.audio_tokens == 25
    assert bool(done.logprobs) == logprobs


def test_a_transcript_that_was_cut_says_so(client, wav, says):
    says("one two three")
    options = dict(model="fake", file=("a.wav", wav), extra_body={"max_completion_tokens": 2})
    assert client.audio.transcriptions.create(**options).model_dump()["finish_reason"] == "length"
    raw = client.audio.transcriptions.with_raw_response.create(**options, response_format="srt")
    assert raw.headers["x-finish-reason"] == "length"


def test_what_browsers_and_phones_record(client):
    for kind, codec in (("webm", "libopus"), ("mp4", "aac")):
        file = (f"a.{kind}", encoded(kind, codec, rate=48_000))
        assert client.audio.transcriptions.create(model="fake", file=file).usage.input_token_details.audio_tokens >= 25


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"language": "klingon"}, "language"),
        ({"timestamp_granularities": ["word"], "response_format": "verbose_json"}, "timestamp_granularities"),
        ({"timestamp_granularities": ["phone"], "response_format": "verbose_json"}, "timestamp_granularities[0]"),
        ({"timestamp_granularities": ["segment"]}, "timestamp_granularities"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"stream": True, "response_format": "srt"}, "response_format"),
        ({"include": ["logprobs"], "response_format": "text"}, "include"),
        ({"temperature": 5}, "temperature"),
        ({"extra_body": {"known_speaker_names": ["a"]}}, "known_speaker_names[]"),
        ({"extra_body": {"hotwords": "x"}}, "hotwords"),
    ],
)
def test_refusals(client, wav, fields, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(model="fake", file=("a.wav", wav), **fields)
    assert refused.value.param == param


def test_unreadable_files(client):
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.audio.transcriptions.create(model="fake", file=("a.wav", b""))
    with pytest.raises(openai.NotFoundError):
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", wav_bytes()))
