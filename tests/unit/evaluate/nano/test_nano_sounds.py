"""The sounds: deterministic, sane, and split so that no test parameters enter training."""

import numpy as np
import pytest

from qwen2_audio.evaluate.nano import mix
from qwen2_audio.evaluate.nano.sounds import dsp
from qwen2_audio.evaluate.nano.sounds.kinds import KINDS, NAMED, NAMES, SPLITS, UNHEARD, draw_parameters, split_of


@pytest.mark.parametrize("kind", [*KINDS, UNHEARD], ids=lambda kind: kind.name)
def test_a_kind_renders_finite_sound_of_the_length_asked_for(kind):
    rng = np.random.default_rng(3)
    n = dsp.samples(kind.shortest)
    wave = kind.render(draw_parameters(kind, "train", rng), rng, n)
    assert wave.shape == (n,)
    assert np.isfinite(wave).all()
    assert kind.name == "silence" or np.abs(wave).max() > 0


def test_there_are_at_least_eighteen_kinds_and_five_ways_to_hear_nothing():
    assert len(NAMED) >= 18
    assert set(NAMES) - set(NAMED) == {"noise", "silence", "tone", "voice", "unknown"}


def test_the_same_seed_gives_the_same_clip_and_another_split_another_one():
    wave, clip = mix.render_clip("train", 2)
    again, same = mix.render_clip("train", 2)
    other, _ = mix.render_clip("test", 2)
    assert np.array_equal(wave, again)
    assert clip == same
    assert clip.kind == "bird"
    assert len(other) != len(wave) or not np.array_equal(other, wave)


def test_clips_stay_within_full_scale_and_state_their_level():
    for index in range(0, 81, 4):
        wave, clip = mix.render_clip("dev", index)
        assert wave.dtype == np.float32
        assert np.abs(wave).max() <= 1
        assert clip.seconds == pytest.approx(len(wave) / 16_000)
        rms = np.sqrt(np.mean(wave.astype(float) ** 2))
        assert clip.level_db == pytest.approx(20 * np.log10(max(rms, 1e-6)), abs=0.01)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_split_owns_parameters_and_draws_only_its_own(kind):
    rng = np.random.default_rng(0)
    owners = [split_of(kind.name, rng.random(len(kind.ranges))) for _ in range(400)]
    assert set(owners) == set(SPLITS)
    assert 0.5 < owners.count("train") / len(owners) < 0.85
    for split in SPLITS:
        for _ in range(5):
            drawn = draw_parameters(kind, split, rng)
            assert split_of(kind.name, _units(kind, drawn)) == split


def _units(kind, drawn):
    units = []
    for name, (low, high) in kind.ranges.items():
        value = drawn[name]
        units.append(np.log(value / low) / np.log(high / low) if low > 0 else (value - low) / (high - low))
    return np.array(units)


def test_seeds_differ_between_splits_and_indices():
    seeds = {mix.clip_seed(split, index) for split in SPLITS for index in range(1000)}
    assert len(seeds) == 3000
