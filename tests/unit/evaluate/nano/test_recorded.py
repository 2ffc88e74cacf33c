"""Recordings as devices make them: lengths, bands and levels that stay within what is said of them."""

import numpy as np
import pytest

from qwen2_audio.evaluate.nano import recorded
from qwen2_audio.evaluate.nano.sounds import dsp


@pytest.fixture
def voice():
    """A second and a half of two buzzing words with a gap between."""
    tone = dsp.buzz(np.full(24_000, 140.0), 40, 0.6)
    tone[9_000:13_000] = 0
    return tone


def test_the_same_generator_makes_the_same_recording(voice):
    first, again = (recorded.recorded(voice, np.random.default_rng(3), [voice]) for _ in range(2))
    assert np.array_equal(first, again) and first.dtype == np.float32


def test_recordings_are_finite_heard_and_hardly_longer(voice):
    for seed in range(60):
        made = recorded.recorded(voice, np.random.default_rng(seed), [voice])
        assert np.isfinite(made).all() and 0.005 < np.abs(made).max() <= 1
        assert 0.7 * len(voice) < len(made) < 1.2 * len(voice) + dsp.RATE * (2 * recorded.LONGEST_SILENCE + 0.7)


def test_some_microphones_have_no_highs(voice):
    def share_above(x, hertz):
        power = np.abs(np.fft.rfft(x)) ** 2
        return power[int(hertz * len(x) / dsp.RATE) :].sum() / power.sum()

    shares = [share_above(recorded.through_microphone(voice, np.random.default_rng(seed)), 4500) for seed in range(40)]
    whole = share_above(voice, 4500)
    assert min(shares) < 0.02 * whole and max(shares) > 0.9 * whole


def test_a_hesitation_is_silence_inside(voice):
    made = [recorded.hesitant(voice, np.random.default_rng(seed)) for seed in range(60)]
    longer = [one for one in made if len(one) > len(voice)]
    assert 2 <= len(longer) <= 20
    for one in longer:
        extra = len(one) - len(voice)
        at = next(i for i in range(len(voice)) if one[i] != voice[i])
        assert 0.14 * dsp.RATE < extra < 0.71 * dsp.RATE and not one[at - 1 : at].any()


def test_gain_control_lifts_what_is_quiet():
    quiet = np.concatenate([np.sin(np.arange(16_000)), 0.05 * np.sin(np.arange(16_000))])
    lifted = recorded.gain_controlled(quiet, np.random.default_rng(0))
    assert np.abs(lifted[20_000:]).max() / np.abs(lifted[4_000:12_000]).max() > 0.08


def test_short_words_are_never_cut_away():
    word = np.ones(int(0.31 * dsp.RATE))
    assert all(len(recorded.cut_close(word, np.random.default_rng(seed))) > 0.29 * dsp.RATE for seed in range(30))
