"""`long=` of m.chat, m.stream and m.batch, on the tiny checkpoint; what it says makes no sense."""

import numpy as np
import pytest

import qwen2_audio as qa
from qwen2_audio.errors import AudioError, ConfigError
from qwen2_audio.longform.questions.wording import PART, clock

GREEDY = qa.SamplingParams(temperature=0, max_tokens=6)


def noise(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, round(16_000 * seconds)).astype(np.float32)


def asked(seconds=65.0):
    return [qa.user("What is that?", audio=noise(seconds))]


@pytest.fixture(scope="module")
def by_parts(tiny_chat):
    return tiny_chat.chat(asked(), GREEDY, long="parts")


def test_by_parts(by_parts):
    assert len(by_parts.parts) == 3 and by_parts.parts[-1].end == 65.0
    (heard,) = by_parts.heard
    assert (heard.seconds, heard.long, heard.parts) == (65.0, "parts", 3)
    assert by_parts.usage.audio_tokens == heard.tokens == pytest.approx(1625, abs=3)


def test_each_part_is_the_answer_about_its_window_alone(tiny_chat, by_parts):
    for part in by_parts.parts:
        window = noise(65.0)[round(part.start * 16_000) : round(part.end * 16_000)]
        times = PART.format(start=clock(part.start), end=clock(part.end))
        alone = tiny_chat.chat([qa.user("What is that?" + times, audio=window)], GREEDY)
        assert alone.text.strip() == part.text


def test_streamed_is_whole(tiny_chat, by_parts):
    chunks = list(tiny_chat.stream(asked(), GREEDY, long="parts"))
    assert "".join(chunk.text for chunk in chunks) == by_parts.text
    assert tuple(chunk.part for chunk in chunks if chunk.part) == by_parts.parts
    assert (chunks[-1].heard, chunks[-1].usage) == (by_parts.heard, by_parts.usage)


def test_batched_is_alone_also_beside_short_clips(tiny_chat, by_parts):
    short = [qa.user("What?", audio=noise(1.0))]
    one, other, third = tiny_chat.batch([short, asked(), [qa.user("Hello")]], GREEDY, long="parts")
    assert other == by_parts
    assert [one, third] == tiny_chat.batch([short, [qa.user("Hello")]], GREEDY)
    with pytest.raises(AudioError, match=r"^Conversation 2: Clip 1 and Clip 2 both last longer"):
        tiny_chat.batch([short, [qa.user("?", audio=[noise(31.0), noise(32.0)])]], GREEDY, long="parts")


@pytest.mark.parametrize("value", ["parts", "native", "transcript", "refuse"])
def test_a_short_clip_is_answered_as_without_long(tiny_chat, value):
    messages = [qa.user("What is that?", audio=noise(2.0))]
    assert tiny_chat.chat(messages, GREEDY, long=value) == tiny_chat.chat(messages, GREEDY)


def test_native_and_transcript(tiny_chat):
    native = tiny_chat.chat(asked(), GREEDY, long="native")
    assert (native.heard[0].long, native.heard[0].parts, native.parts) == ("native", 3, ())
    assert native.usage.audio_tokens == native.heard[0].tokens
    first = tiny_chat.chat(asked(), GREEDY, long="transcript")
    before = tiny_chat.service().stats().submitted
    again = tiny_chat.chat(asked(), GREEDY, long="transcript")
    assert again == first and first.heard[0].long == "transcript"
    assert tiny_chat.service().stats().submitted - before <= 1


def test_the_default_refuses_with_the_sentence_that_says_how(tiny_chat):
    for ask in (tiny_chat.chat, tiny_chat.stream):
        with pytest.raises(AudioError, match=r"lasts 65 s, and 30 s are heard .* or ask with long='parts'"):
            ask(asked(), GREEDY)
    with pytest.raises(ConfigError, match=r"long is 'part'; expected .* Did you mean 'parts'"):
        tiny_chat.chat(asked(), GREEDY, long="part")


def test_a_stream_that_is_closed_asks_no_more(tiny_chat):
    chunks = tiny_chat.stream(asked(95.0), GREEDY, long="parts")
    assert next(chunks).part is not None
    chunks.close()
    before = tiny_chat.service().stats().submitted
    assert tiny_chat.chat([qa.user("Hello")], GREEDY).text is not None
    assert tiny_chat.service().stats().submitted == before + 1
