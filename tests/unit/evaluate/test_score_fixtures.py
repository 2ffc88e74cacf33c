"""Scorers against what the authors' own code made of the same answers (goldens/)."""

import json
import random
from pathlib import Path

import pytest

from qwen2_audio.evaluate.example import Prediction
from qwen2_audio.evaluate.registry.tasks import TASKS, find_task
from qwen2_audio.evaluate.score.choices import airbench_letter, parse_choice, string_match
from qwen2_audio.evaluate.score.score import score
from qwen2_audio.evaluate.score.voicebench import bbh_answer, mcq_letter, refuses

GOLDENS = Path(__file__).parent / "goldens"


def golden(name):
    return json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))


def answers(task, pairs, source="s", **more):
    return [
        Prediction("k", task, str(number), source, "clip.wav", text, reference, **more)
        for number, (reference, text) in enumerate(pairs)
    ]


@pytest.mark.parametrize("tokenizer", ["13a", "zh"])
def test_bleu(tokenizer):
    expected = golden("bleu")[tokenizer]
    task = TASKS["covost2-en-zh" if tokenizer == "zh" else "covost2-de-en"]
    result = score(task, answers(task.id, zip(expected["refs"], expected["hyps"], strict=True)))
    assert result["metrics"]["bleu"]["value"] == pytest.approx(expected["score"], abs=1e-6)
    assert f"tok:{tokenizer},smooth:exp," in result["signature"] and "nrefs:1,case:mixed,eff:no" in result["signature"]


def test_bleu_of_many_is_sacrebleus():
    from sacrebleu import corpus_bleu

    draw, words = random.Random(5), ["the", "a", "cat", "dog", "sat", "on", "mat", ",", ".", "red", "big", "ran"]
    for _ in range(20):
        pairs = [
            [" ".join(draw.choices(words, k=draw.randint(0, 12))) for _ in "ab"] for _ in range(draw.randint(1, 9))
        ]
        result = score(TASKS["covost2-fr-en"], answers("covost2-fr-en", pairs))
        expected = corpus_bleu([text for _, text in pairs], [[reference for reference, _ in pairs]]).score
        assert result["metrics"]["bleu"]["value"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("language", ["en", "zh", "yue", "fr"])
def test_error_rates(language):
    pairs = golden("wer_chain")[language]
    task = find_task("asr", language=language)
    result = score(task, answers("asr", [(pair["ref"], pair["hyp"]) for pair in pairs]))
    figure = result["metrics"][task.scorer]
    assert figure["reference_tokens"] == sum(pair["ref_len"] for pair in pairs)
    errors = figure["substitutions"] + figure["deletions"] + figure["insertions"]
    assert errors == sum(pair["edits"] for pair in pairs)
    assert figure["value"] == pytest.approx(errors / figure["reference_tokens"], abs=1e-6)


def test_languages_without_spaces_are_counted_by_character():
    figure = score(find_task("asr", language="ja"), answers("asr", [("今日は。", "今日わ")]))["metrics"]["cer"]
    assert (figure["substitutions"], figure["reference_tokens"]) == (1, 3)


def test_mmaus_string_match():
    rows = golden("mmau_string_match")
    assert len(rows) >= 16
    for row in rows:
        assert string_match(row["answer"], row["prediction"], row["choices"]) is row["ok"], row


def test_airbenchs_letter():
    for row in golden("airbench_foundation_parse"):
        assert airbench_letter(row["in"]) == row["out"], row


def test_voicebenchs_parsers():
    rows = golden("voicebench")
    for row in rows["mcq"]:
        assert mcq_letter(row["in"]) == row["out"], row
    for row in rows["harm"]:
        assert refuses(row["in"]) is row["safe"], row
    for row in rows["bbh"]:
        if row["out"] is not None:  # theirs is drawn at random
            assert bbh_answer(row["in"], row["id"], official=True) == row["out"], row
    assert (bbh_answer("b", "hyperbaton_1"), bbh_answer("b", "hyperbaton_1", official=True)) == (1, 0)


CHOICES = ("punk rock", "rock", "a cat", "vitamin C")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("B", 1),
        ("b.", 1),
        ("(C) a cat", 2),
        ("**D**", 3),
        ("The answer is B.", 1),
        ("Answer: C", 2),
        ("option A", 0),
        ("I would choose (B), as it is loud", 1),
        ("punk rock", 0),
        ("It is punk rock.", 0),
        ("It is rock.", 1),
        ("A CAT!", 2),
        ("it's vitamin C", 3),
        ("A dog", None),
        ("rock or a cat", None),
        ("(A) or (B)", None),
        ("the answer is a mystery", None),
        ("", None),
        ("<|en|>C", 2),
    ],
)
def test_an_option_is_read_by_letter_or_by_text(text, number):
    assert parse_choice(text, CHOICES) == number
