"""The rows of real recordings: read from a manifest, judged, left out with a reason, refused where it is broken."""

import json
import shutil

import numpy as np
import pytest

from qwen2_audio.errors import EvaluationError
from qwen2_audio.evaluate.nano import examination, lifelike
from qwen2_audio.evaluate.nano.mix import SPEECH, STRANGE, Clip
from qwen2_audio.evaluate.nano.questions import Question, abstains, same_words
from qwen2_audio.evaluate.nano.real_world import ROWS, missing, real_questions
from qwen2_audio.evaluate.nano.sounds.kinds import NAMED
from qwen2_audio.evaluate.nano.tally import LIFELIKE_BARS, Tally

ENTRIES = (
    ("numbers", "seven"), ("words", "Thursday"), ("joined_numbers", "two five"), ("joined_words", "my dog"),
    ("outside", "de: hat"), ("sound", "bell"),
)  # fmt: skip
DECLINED = "I hear a voice, but I cannot make out the words."


@pytest.fixture
def folder(tmp_path, write_tone):
    """A manifest with a recording of each set."""
    lines = []
    for number, (name, truth) in enumerate(ENTRIES):
        write_tone(tmp_path / f"{number}.wav")
        lines.append(json.dumps({"path": f"{number}.wav", "set": name, "truth": truth, "package": "p", "licence": "l"}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def write_tone():
    import wave

    def write(path):
        samples = (8000 * np.sin(np.arange(4000) / 5)).astype("<i2")
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 16_000, len(samples), "NONE", ""))
            file.writeframes(samples.tobytes())

    return write


def test_every_set_of_the_manifest_becomes_a_question_of_its_rows(folder):
    asked = list(real_questions(folder))
    assert [question.rows for question in asked] == [ROWS[name] for name, _ in ENTRIES]
    assert [question.clip.kind for question in asked] == [SPEECH] * 4 + [STRANGE, "bell"]
    assert asked[4].judge is abstains and asked[0].judge is same_words


def test_who_hears_all_meets_every_bar_and_a_row_counts_what_it_says(folder):
    right, deaf = Tally(), Tally()
    for question in real_questions(folder):
        right.add(question, "I hear a bell tolling." if question.truth == "bell" else question.truth)
        deaf.add(question, DECLINED)
    rows, declined = ({row["name"]: row for row in tally.rows()} for tally in (right, deaf))
    assert set(rows) <= set(LIFELIKE_BARS)
    assert all(row["met"] for row in rows.values())
    assert rows["nano.real_speech.exact"]["n"] == 4
    assert rows["nano.real_speech.numbers"]["n"] == rows["nano.real_speech.words"]["n"] == 1
    assert declined["nano.real_speech.wer"]["value"] == 1.0  # all left out, not ten words put in for one
    assert declined["nano.real_speech.declines_known"] | {"met": False} == declined["nano.real_speech.declines_known"]
    assert declined["nano.real_speech.declines"]["value"] == declined["nano.real_speech.declines_known"]["value"] == 1.0


def test_the_older_rate_of_wrong_abstentions_takes_no_notice_of_the_new_rows():
    tally = Tally()
    for row in ("nano.real_speech.wer", "nano.neural_voice.wer", "nano.joined.wer", "nano.sound_field.accuracy"):
        tally.add(Question((row,), [], Clip(SPEECH, 1, -20.0), "seven", same_words), DECLINED)
    assert "nano.abstain.false_rate" not in tally.right
    tally.add(Question(("nano.asr.wer",), [], Clip(SPEECH, 1, -20.0), "seven", same_words), DECLINED)
    assert tally.right["nano.abstain.false_rate"] == [True]


@pytest.mark.parametrize(
    "line",
    ["no object", '{"set": "words", "truth": "key"}', '{"set": "wrds", "path": "0.wav", "truth": "key"}', "[1]"],
    ids=["text", "no-path", "set", "list"],
)  # fmt: skip
def test_a_broken_manifest_is_refused_by_line(folder, line):
    with (folder / "manifest.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(EvaluationError, match=r"Line 7 of .*is no recording"):
        list(real_questions(folder))


def test_rows_that_cannot_be_had_are_left_out_with_a_reason(monkeypatch, tmp_path):
    said = []
    for name in ("questions", "people_questions", "field_questions", "joined_questions"):
        monkeypatch.setattr(examination, name, lambda count: iter(()))
    monkeypatch.setenv("NANO_KOKORO", str(tmp_path))
    assert list(examination.all_questions(3, tmp_path, said.append)) == []
    assert said[0].startswith("nano.neural_voice.wer is left out: ")
    assert said[1] == f"The rows nano.real_speech and nano.real_sound are left out: {missing(tmp_path)}"
    assert "python -m recipes.nano.real_world" in said[1]


def test_rows_that_can_be_had_are_asked(monkeypatch, folder):
    for name in ("questions", "people_questions", "field_questions", "joined_questions"):
        monkeypatch.setattr(examination, name, lambda count: iter(()))
    monkeypatch.setattr(lifelike.kokoro, "available", lambda: None)
    monkeypatch.setattr(lifelike.kokoro, "say", lambda text, voice, speed: np.full(1000, 0.1, np.float32))
    said = []
    asked = list(examination.all_questions(6, folder, said.append))
    assert [question.rows[0] for question in asked[:2]] == ["nano.neural_voice.wer"] * 2
    assert asked[0].clip.voice != asked[1].clip.voice
    assert len(asked) == 2 + len(ENTRIES) and not said


@pytest.mark.skipif(shutil.which("espeak-ng") is None or shutil.which("flite") is None, reason="needs speech")
def test_a_window_holds_several_sentences_and_comes_again_from_its_seed():
    wave, clip = lifelike.render_joined(0, 3)
    again, same = lifelike.render_joined(0, 3)
    assert np.array_equal(wave, again) and clip == same
    assert len(wave) <= 29 * 16_000 and wave.dtype == np.float32
    assert sum(clip.text.count(end) for end in ".?!") >= 3


def test_field_questions_ask_for_every_kind_as_often():
    asked = list(lifelike.field_questions(1))
    assert [question.truth for question in asked] == list(NAMED)
    assert {question.rows for question in asked} == {("nano.sound_field.accuracy",)}
