import pytest

from qwen2_audio.serve.transcripts import Transcript, srt, verbose_body, vtt
from qwen2_audio.types import Completion, Heard, TokenLogprob, Usage


def transcript(text="one\n\ntwo", seconds=3661.5, logprobs=()):
    answer = Completion(text, "length", Usage(30, 25, 4), (Heard(seconds, 25),), logprobs)
    return Transcript(answer, text, 0.5)


def test_clocks_have_hours_and_an_empty_line_ends_no_cue():
    assert srt(transcript()) == "1\n00:00:00,000 --> 01:01:01,500\none\ntwo\n\n"
    assert vtt(transcript("a <b> & c")) == "WEBVTT\n\n00:00:00.000 --> 01:01:01.500\na &lt;b&gt; &amp; c\n"


def test_silence():
    assert (srt(transcript("")), vtt(transcript(""))) == ("", "WEBVTT\n")
    assert verbose_body(transcript(""), task="transcribe", language="x")["segments"] == []


def test_verbose():
    logprobs = (TokenLogprob(5, "a", b"a", -1.0), TokenLogprob(6, "b", b"b", float("-inf")))
    body = verbose_body(transcript("ab", 2.0, logprobs), task="transcribe", language="english")
    (segment,) = body["segments"]
    assert segment["tokens"] == [5, 6]
    assert segment["avg_logprob"] == pytest.approx((-1 - 9999) / 2)
    assert (segment["start"], segment["end"], segment["temperature"]) == (0, 2, 0.5)
    assert body["finish_reason"] == "length"
