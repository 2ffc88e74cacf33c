"""The test of nano: one who hears all gets everything right, a deaf one fails the bars."""

import json
import shutil
import sys

import numpy as np
import pytest

from qwen2_audio.evaluate.nano.mix import SPEECH, Clip
from qwen2_audio.evaluate.nano.questions import Question, abstains, names_kind, names_sex, questions, same_words
from qwen2_audio.evaluate.nano.report import write_report
from qwen2_audio.evaluate.nano.tally import BARS, Tally
from qwen2_audio.evaluate.nano.words import WORDS

SAID = Clip(SPEECH, 2.0, -20.0, "What is one plus one?", "arithmetic", "One plus one is two.", "woman", "espeak f4")


def asked(row, clip, truth, judge=same_words):
    return Question((row,), [], clip, truth, judge)


def perfect(question):
    clip = question.clip
    if question.judge is names_kind:
        return f"This is the sound of {WORDS[clip.kind].phrases[0]}."
    if question.judge is names_sex:
        return f"The speaker is a {clip.sex}."
    if question.judge is abstains:
        return question.truth or "I do not know this sound."
    return f"I hear {WORDS[clip.background].phrases[0]}." if "background" in question.rows[0] else question.truth


@pytest.mark.skipif(shutil.which("espeak-ng") is None or shutil.which("flite") is None, reason="needs speech")
def test_a_perfect_listener_meets_every_bar_and_a_deaf_one_few(tmp_path):
    right, deaf = Tally(), Tally()
    for question in questions(3):
        right.add(question, perfect(question))
        deaf.add(question, "I hear a voice, but I cannot make out the words.")
    assert write_report(right, deaf, tmp_path).met
    assert not write_report(deaf, None, tmp_path / "deaf").met
    data = json.loads((tmp_path / "report.json").read_text())
    rows = {row["name"]: row for row in data["rows"]}
    assert set(BARS) <= set(rows)
    assert all(rows[name]["met"] for name in BARS)
    assert rows["nano.asr.wer"]["value"] == 0.0 and rows["nano.asr.wer"]["before_dpo"] > 0.8
    assert rows["nano.abstain.false_rate"]["before_dpo"] == 1.0
    assert rows["nano.voice_chat.wrong_fact_rate"]["before_dpo"] == 0.0  # an abstention is no wrong fact
    assert rows["nano.sound.accuracy"]["n"] >= 22
    assert not data["wrong"]
    assert (tmp_path / "confusion.png").stat().st_size > 1000


def test_words_are_counted_over_all_sentences_without_case_and_stops():
    tally = Tally()
    tally.add(asked("nano.asr.wer", SAID, "What is one plus one?"), "what is one plus ONE")
    tally.add(asked("nano.asr.wer", SAID, "Turn on the light."), "Turn off the light.")
    (row,) = [row for row in tally.rows() if row["name"] == "nano.asr.wer"]
    assert row["value"] == pytest.approx(1 / 9, abs=1e-4) and row["n"] == 2 and not row["met"]
    assert tally.wrong[0]["said"] == "Turn off the light."


def test_a_wrong_fact_is_neither_the_truth_nor_an_abstention():
    tally = Tally()
    for said in ("One plus one is two.", "One plus one is three.", "I hear a voice, but I cannot make out the words."):
        tally.add(asked("nano.voice_chat.accuracy", SAID, SAID.answer), said)
    rows = {row["name"]: row["value"] for row in tally.rows()}
    assert rows["nano.voice_chat.accuracy"] == rows["nano.voice_chat.wrong_fact_rate"] == pytest.approx(1 / 3, abs=1e-4)
    assert rows["nano.abstain.false_rate"] == pytest.approx(1 / 3, abs=1e-4)


def test_the_confusion_matrix_has_a_column_for_answers_that_name_none_or_several():
    tally = Tally()
    dog = Clip("dog", 1.0, -20.0)
    for said in ("I hear a dog barking.", "I hear a cat meowing.", "A dog, or a cat."):
        tally.add(asked("nano.sound.accuracy", dog, "dog", names_kind), said)
    assert np.flatnonzero(tally.confusion[0]).tolist() == [0, 1, tally.confusion.shape[1] - 1]


def test_without_matplotlib_the_figures_are_written_and_the_plot_is_not(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    tally = Tally()
    tally.add(asked("nano.asr.wer", SAID, SAID.text), SAID.text)
    assert write_report(tally, None, tmp_path).plot is None
    assert json.loads((tmp_path / "report.json").read_text())["rows"][0]["value"] == 0.0
    assert not (tmp_path / "confusion.png").exists()
