import random

import pytest

from qwen2_audio.errors import ConfigError
from qwen2_audio.longform.wording import (
    TRANSCRIBE,
    TRANSLATE,
    Unquote,
    base_instruction,
    code_of,
    instruction,
    language_of,
    transcript_of,
)
from qwen2_audio.serve import speech
from qwen2_audio.serve.errors import ApiError

ANSWERS = [
    ("The original content of this audio is: 'Mister Quiller is here.'", "Mister Quiller is here."),
    ('The original content of this audio is "it\'s late".', "it's late"),
    ("the content of this recording is:\n‘hello’", "hello"),
    ("The original content of this audio is: 'he said 'no''", "he said 'no'"),
    ("The original content of this audio is: 'unfinished", "unfinished"),
    ("hello there", "hello there"),
    ("'quoted by itself'", "'quoted by itself'"),
    ("The original sin", "The original sin"),
    ("The original content of this audio is unknown.", "The original content of this audio is unknown."),
    ("  The cat. ", "The cat."),
    ("The", "The"),
    ("<|en|>hello", "hello"),
    ("<|yue|> 你好", "你好"),
    ("<|en", "<|en"),
    ("<b> is bold", "<b> is bold"),
    ("", ""),
    ("   ", ""),
]


@pytest.mark.parametrize(("answer", "words"), ANSWERS)
def test_the_words_out_of_an_answer(answer, words):
    assert Unquote().push(answer, last=True) == words


@pytest.mark.parametrize(("answer", "words"), ANSWERS)
def test_streamed_as_whole(answer, words):
    draw = random.Random(1)
    for _ in range(50):
        unquote, transcript, at = Unquote(), "", 0
        while at < len(answer):
            step = draw.randint(0, 9)
            transcript += unquote.push(answer[at : at + step])
            at += step
        assert transcript + unquote.push("", last=True) == words


def test_a_plain_answer_is_told_at_once():
    unquote = Unquote()
    assert unquote.push("Hello") == "Hello"
    assert unquote.push(" ") == ""
    assert unquote.push("you") == " you"


def test_languages():
    assert (language_of("en"), language_of("zh-CN"), language_of("YUE"), language_of(None)) == (
        "English", "Chinese", "Cantonese", None,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="expected one of ar, cs"):
        language_of("klingon")
    assert (code_of("Cantonese"), code_of(None)) == ("yue", None)


def test_a_request_is_told_which_field_is_wrong():
    with pytest.raises(ApiError, match="expected one of ar, cs") as refused:
        speech.language_of("klingon")
    assert refused.value.param == "language"
    with pytest.raises(ApiError, match="one wording only") as refused:
        speech.question(to=None, language=None, prompt="ships", base=True)
    assert refused.value.param == "prompt"


def test_the_language_that_a_base_checkpoint_found():
    assert transcript_of("<|yue|> 你好") == ("你好", "yue")
    assert transcript_of("The original content of this audio is: 'hello'") == ("hello", None)


def test_instructions():
    assert instruction(to=None, language=None, prompt="") == TRANSCRIBE
    assert instruction(to="English", language=None, prompt="ships") == (
        "Context: ships\nWrite down the English translation of what is said."
    )
    assert instruction(to="French", language="German", prompt=None).endswith(TRANSLATE.format(to="French"))


def test_the_official_name_of_chinese():
    mandarin = base_instruction(to="Chinese", language="English", prompt=None)
    assert mandarin == "Detect the language and translate the speech into Mandarin: <|en|>"


def test_base_checkpoints_get_the_official_prompts():
    options = dict(to=None, prompt=None)
    assert base_instruction(language="English", **options) == "Detect the language and recognize the speech: <|en|>"
    assert base_instruction(language=None, **options) == "Detect the language and recognize the speech:"
    english = base_instruction(to="English", language=None, prompt="")
    assert english == "Detect the language and translate the speech into English:"
    with pytest.raises(ConfigError, match="one wording only"):
        base_instruction(to=None, language=None, prompt="ships")
