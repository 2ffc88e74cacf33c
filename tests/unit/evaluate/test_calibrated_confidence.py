"""The confidence below which a transcript is doubtful: chosen on known texts, and written beside the checkpoint."""

import json
import math

import numpy as np
import pytest

from kit.scripted_listener import ScriptedListener
from qwen2_audio.errors import ConfigError, EvaluationError
from qwen2_audio.evaluate import calibrate as module
from qwen2_audio.evaluate.calibrate import Judged, Labelled, calibrate, judge, write_threshold
from qwen2_audio.longform.settings import TranscriptionSettings, read_settings


def rows(right, wrong):
    return [Judged(one, 0, 5) for one in right] + [Judged(one, 2, 5) for one in wrong]


def test_the_threshold_flags_the_most_wrong_ones_within_the_false_alarms():
    right, wrong = np.linspace(0.8, 0.99, 100), np.linspace(0.3, 0.9, 40)
    judged = rows(right, wrong)
    for share, flagged in ((0.05, 5), (0.0, 0), (0.1, 10), (0.5, 50)):
        found = calibrate(judged, false_alarms=share)
        assert found.flagged_right == sum(right < found.threshold) <= flagged
        more = found.threshold + 1.1e-4  # a larger one of four digits would flag more right ones, or no more wrong ones
        assert sum(right < more) > flagged or sum(wrong < more) == found.flagged_wrong
        assert found.flagged_wrong == sum(wrong < found.threshold)
    assert (found.rows, found.right, found.wrong) == (140, 100, 40)


def test_figures_by_hand():
    right, wrong = [0.9] * 15 + [0.7] * 5, [0.8] * 10 + [0.7] * 10
    found = calibrate(rows(right, wrong), false_alarms=0.25, left_out=3)
    assert (found.threshold, found.flagged_right, found.flagged_wrong, found.left_out) == (0.9, 5, 20, 3)
    # Pairs: 15 x 20 more confident, 5 x 10 less, 5 x 10 equal.
    assert found.auc == pytest.approx((300 + 25) / 400)
    assert sum(one.rows for one in found.bins) == 40 and sum(one.right for one in found.bins) == 20
    assert [one.low for one in found.bins] == sorted(one.low for one in found.bins)
    assert found.bins[0].word_errors == pytest.approx(found.bins[0].rows and (4 - found.bins[0].right) * 2 / 20)
    assert json.loads(json.dumps(found.to_dict()))["wrong"] == 20


def test_confidence_that_tells_nothing():
    draw = np.random.default_rng(0)
    found = calibrate(rows(draw.random(4000), draw.random(4000)))
    assert found.auc == pytest.approx(0.5, abs=0.03)
    assert found.unseen_wrong == pytest.approx(0.05, abs=0.02) and found.unseen_right == pytest.approx(0.05, abs=0.02)


def test_too_few_to_choose_by():
    with pytest.raises(EvaluationError, match=r"^3 of 33 transcripts are wrong; expected at least 20 right ones and"):
        calibrate(rows([0.9] * 30, [0.5] * 3))
    with pytest.raises(EvaluationError, match="are right;"):
        calibrate(rows([], [0.5] * 30))
    with pytest.raises(ConfigError, match=r"--false-alarms is 1\.5"):
        calibrate(rows([0.9] * 30, [0.5] * 30), false_alarms=1.5)


def test_transcripts_are_judged_word_by_word_as_they_come():
    texts = {10: "one two three", 20: "one to three four", 30: "and so " * 40, 40: "Nobody is speaking."}

    def answer(samples, params):
        number = round(100 * float(np.abs(samples).max()))
        return texts[number], "stop", math.log(number / 100)

    model = ScriptedListener(answer, delay=0.01)
    clips = [Labelled(np.full(16_000, number / 100, np.float32), ["one", "two", "three"]) for number in texts]
    steps = []
    settings = TranscriptionSettings(no_speech=("Nobody is speaking.",), min_confidence=0.15)
    judged, left_out = judge(model, settings, clips, str.split, lambda: steps.append(1))
    assert [(one.errors, one.words, one.right) for one in judged] == [(0, 3, True), (2, 3, False)]
    assert [one.confidence for one in judged] == pytest.approx([0.1, 0.2])  # the first, although it is flagged already
    assert left_out == 2 and len(steps) == 4 and len(model.asked) == 4  # loops and refusals are flagged without it
    assert all(params.temperature == 0 and text == "Transcribe the speech." for _, text, params, _ in model.asked)


def test_it_is_written_beside_the_checkpoint_and_nothing_else_changes(tmp_path):
    (tmp_path / "transcription.json").write_text('{"merge": false, "no_speech": ["Nobody."]}')
    assert write_threshold(tmp_path, 0.87, tmp_path / "other.json") == tmp_path / "transcription.json"
    assert read_settings(tmp_path) == TranscriptionSettings(merge=False, no_speech=("Nobody.",), min_confidence=0.87)
    (tmp_path / "empty").mkdir()
    assert write_threshold(tmp_path / "empty", 0.5, tmp_path / "o.json").is_file()
    assert read_settings(tmp_path / "empty").min_confidence == 0.5


def test_where_that_cannot_be_written_a_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "transcription.json").write_text('{"merge": false}')
    written = module.write_json

    def refuse(path, data):
        if path.name == "transcription.json":
            raise PermissionError(13, "Permission denied")
        written(path, data)

    monkeypatch.setattr(module, "write_json", refuse)
    elsewhere = tmp_path / "m.transcription.json"
    assert write_threshold(tmp_path, 0.87, elsewhere) == elsewhere
    assert json.loads(elsewhere.read_text()) == {"merge": False, "min_confidence": 0.87}
    with pytest.raises(ConfigError, match=r"cannot be written \(Permission denied\); name another file with --out"):
        write_threshold(tmp_path, 0.87, tmp_path / "x" / "transcription.json")
