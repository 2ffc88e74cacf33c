import pytest

from qwen2_audio.evaluate.calibration import calibration


def test_a_table_by_hand():
    """Two bins: 0.9 and 1.0 with one right of two, 0.5 twice with one right: gaps .45 and 0, each half of all."""
    found = calibration([0.9, 1.0, 0.55, 0.45], [True, False, True, False], [1.0, 0.5, 1.0, 0.5])
    assert [(b.low, b.count, b.right) for b in found.bins] == [(0.4, 1, 0.0), (0.5, 1, 1.0), (0.9, 2, 0.5)]
    assert found.ece == pytest.approx(0.25 * 0.45 + 0.25 * 0.45 + 0.5 * 0.45)
    assert (found.count, found.accuracy, found.label_mass) == (4, 0.5, 0.75)
    assert "4 decisions, 50.0% right, ECE 0.450" in found.lines()[-1]


def test_perfect():
    assert calibration([1.0] * 5, [True] * 5, [1.0] * 5).ece == 0


def test_nano_decides_about_sounds_it_never_met():
    """The command's own work, on a few clips: nano names its kinds of sound, and is sure of what is right."""
    import qwen2_audio as qa
    from qwen2_audio.evaluate.nano.decisions import decide_kinds

    found = decide_kinds(qa.load(device="cpu", dtype="float32"), 6)
    assert found.count == 6 and found.accuracy >= 4 / 6 and found.label_mass > 0.5
