"""Word errors are counted over all sentences together; without jiwer one sentence says how to install it."""

import sys

import pytest

from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate.word_errors import word_error_rate


def test_errors_of_all_sentences_are_divided_by_the_words_of_all_references():
    assert word_error_rate([("one two three", "one two three"), ("four", "five")]) == pytest.approx(1 / 4)
    assert word_error_rate([("one", "one two three")]) == pytest.approx(2.0)


def test_without_jiwer_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(ConfigError, match=r"^Counting word errors needs jiwer: pip install 'qwen2-audio\[eval\]'\.$"):
        word_error_rate([("one", "one")])
