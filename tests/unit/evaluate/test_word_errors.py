"""Word errors are counted over all sentences together, as jiwer counts them; without rapidfuzz one sentence says so."""

import json
import math
import random
import sys
from pathlib import Path

import pytest

from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate.word_errors import align, word_error_rate

GOLDENS = Path(__file__).parent / "goldens" / "wer_chain.json"


def test_errors_of_all_sentences_are_divided_by_the_words_of_all_references():
    assert word_error_rate([("one two three", "one two three"), ("four", "five")]) == pytest.approx(1 / 4)
    assert word_error_rate([("one", "one two three")]) == pytest.approx(2.0)
    assert word_error_rate([("", "")]) == 0 and word_error_rate([("", "one")]) == math.inf


def test_the_rate_is_jiwers():
    jiwer = pytest.importorskip("jiwer")
    draw, words = random.Random(3), ["the", "a", "cat", "dog", "sat", "on", "mat", "red", "it's"]
    cases = [
        [(" ".join(draw.choices(words, k=draw.randint(1, 9))), " ".join(draw.choices(words, k=draw.randint(0, 9))))
         for _ in range(draw.randint(1, 6))]
        for _ in range(40)
    ]  # fmt: skip
    golden = json.loads(GOLDENS.read_text(encoding="utf-8"))
    cases += [[(pair["ref"], pair["hyp"]) for pair in golden[language] if pair["ref"].strip()] for language in golden]
    for pairs in cases:
        references, answers = [" ".join(one.split()) for one, _ in pairs], [" ".join(one.split()) for _, one in pairs]
        assert word_error_rate(pairs) == pytest.approx(jiwer.wer(references, answers), abs=1e-12)


def test_words_beside_each_other():
    assert align(list("abc"), list("axcd")) == [
        ("equal", "a", "a"), ("replace", "b", "x"), ("equal", "c", "c"), ("insert", "", "d"),
    ]  # fmt: skip
    assert align(["a", "b"], ["b"]) == [("delete", "a", ""), ("equal", "b", "b")]


def test_without_rapidfuzz_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    message = r"^Counting word errors needs rapidfuzz: pip install 'qwen2-audio\[eval\]'\.$"
    with pytest.raises(ConfigError, match=message):
        word_error_rate([("one", "one")])
