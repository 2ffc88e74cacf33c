"""The test of nano: a perfect listener gets everything right, a deaf one fails the bar."""

import json

import numpy as np
from recipes.nano.evaluate import BAR, Score, hear_kinds, report
from recipes.nano.mix import render_clip
from recipes.nano.sounds.kinds import NAMED, NAMES
from recipes.nano.words import ABSTAIN, WORDS


class Perfect:
    """Recognises the test clips by their samples."""

    def __init__(self, per_kind):
        clips = [render_clip("test", i) for i in range(per_kind * len(NAMES))]
        self.kinds = {wave.tobytes(): clip.kind for wave, clip in clips}

    def answer(self, messages, clips):
        return self.go_on("", clips)

    def go_on(self, prompt, clips):
        kind = self.kinds[clips[0].tobytes()]
        return f"I hear {WORDS[kind].phrases[0]}." if kind in WORDS else ABSTAIN[kind].says[0]


class Deaf:
    """Says the same of everything."""

    def answer(self, messages, clips):
        return self.go_on("", clips)

    def go_on(self, prompt, clips):
        return "I hear a dog barking."


def run(listener, folder):
    score = Score()
    confusion = hear_kinds(listener, 1, score, lambda line: None)
    return report(score, confusion, folder, 1.0), confusion


def test_a_perfect_listener_scores_one_and_a_deaf_one_fails(tmp_path):
    right, confusion = run(Perfect(1), tmp_path / "a")
    assert right == 1.0
    assert np.array_equal(confusion[:, :-1], np.eye(len(NAMES), dtype=int))
    wrong, _ = run(Deaf(), tmp_path / "b")
    assert wrong == 1 / len(NAMED) < BAR
    data = json.loads((tmp_path / "b" / "report.json").read_text())
    assert data["rows"]["abstain.recall"]["value"] == 0.0
    assert data["rows"]["kind.dog"] == {"right": 1, "n": 1, "value": 1.0}
    assert any(row["said"] == "I hear a dog barking." for row in data["wrong"])
    assert (tmp_path / "b" / "confusion.png").stat().st_size > 1000
