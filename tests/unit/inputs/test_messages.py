from typing import Any

import numpy as np
import pytest

import qwen2_audio as qa
from qwen2_audio.errors import PromptError
from qwen2_audio.text.chat_template import check_messages

SAMPLES: Any = np.zeros(3)
NOTHING: Any = None
NUMBER: Any = 3


def test_user_puts_clips_before_text():
    message = qa.user("Which is louder?", audio=["a.wav", "b.wav"])
    assert message == {
        "role": "user",
        "content": [
            {"type": "audio", "audio": "a.wav"},
            {"type": "audio", "audio": "b.wav"},
            {"type": "text", "text": "Which is louder?"},
        ],
    }


def test_a_clip_alone_is_voice_chat():
    assert qa.user(audio="a.wav")["content"] == [{"type": "audio", "audio": "a.wav"}]


def test_text_alone_is_a_plain_string():
    assert qa.user("Hi") == {"role": "user", "content": "Hi"}
    assert qa.system("Be brief.") == {"role": "system", "content": "Be brief."}
    assert qa.assistant("A dog.") == {"role": "assistant", "content": "A dog."}


@pytest.mark.parametrize("clip", [[0.0, 0.5, -0.5], (np.zeros(4), 8000), np.zeros(4), b"RIFF"])
def test_whatever_holds_samples_is_one_clip(clip):
    (part,) = qa.user(audio=clip)["content"]
    assert part["audio"] is clip


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: qa.user(), r"user\(\) got neither text nor audio; pass at least one of them\."),
        (lambda: qa.user("Hi", audio=[]), r"audio is an empty list; leave it out, or give at least one clip\."),
        (lambda: qa.user("Hi", audio=["a.wav", None]), r"Clip 2 of audio is None; the model would not hear it\."),
        (
            lambda: qa.user(SAMPLES),
            r"got a ndarray as text; expected a string\. A clip goes into audio=\.",
        ),
        (lambda: qa.assistant(NOTHING), r"assistant\(\) got a NoneType as text; expected a string\."),
        (lambda: qa.system(NUMBER), r"system\(\) got a int as text; expected a string\."),
    ],
)
def test_messages_that_say_nothing_are_refused(call, sentence):
    with pytest.raises(PromptError, match=sentence):
        call()


def part(**keys):
    return [{"role": "user", "content": [keys]}]


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        (
            [{"role": "usr", "content": "Hi"}],
            r"Message 1 has the role 'usr'; expected one of system, user, assistant, or another word\. Did you",
        ),
        (
            [{"role": "user", "content": "Hi", "audios": ["a.wav"]}],
            r"Message 1 has the key 'audios', which nothing here reads; expected role, content, type\.",
        ),
        (
            part(type="text", text="Hi", audios="a.wav"),
            r"Message 1, part 1 has the key 'audios', which nothing here reads; .* Did you mean 'audio'\?",
        ),
        (part(audio="a.wav", text="Hi"), r"Message 1, part 1 holds both a clip and text; make two parts of it\."),
        (
            part(type="audio", audio="a.wav", audio_url="b.wav"),
            r"Message 1, part 1 names its sound twice, under audio and audio_url; give one\.",
        ),
        (part(type="audio", audio=None), r"In message 1, part 1: the clip names no sound"),
        (part(type="image", image="a.png"), r"of which nothing would reach the model"),
        ([], r"The conversation is empty"),
        ({"role": "user", "content": "Hi"}, r"The conversation is a dict; expected a list of messages\."),
    ],
)
def test_nothing_in_a_conversation_is_left_out_in_silence(messages, sentence):
    with pytest.raises(PromptError, match=sentence):
        check_messages(messages)


def test_clips_are_found_in_their_order_over_all_turns():
    messages = [qa.user("?", audio=["a", "b"]), qa.assistant("!"), qa.user(audio="c"), *part(audio_url="d")]
    assert check_messages(messages) == ["a", "b", "c", "d"]
