"""Field-like sounds: of every kind and sort, deterministic, within full scale, split by parameters."""

import numpy as np
import pytest

from qwen2_audio.evaluate.nano.field import field_sound, render_field
from qwen2_audio.evaluate.nano.sounds import dsp
from qwen2_audio.evaluate.nano.sounds.field_kinds import SORTS
from qwen2_audio.evaluate.nano.sounds.kinds import NAMES, draw_parameters

ALL_SORTS = [sort for sorts in SORTS.values() for sort in sorts]


@pytest.mark.parametrize("sort", ALL_SORTS, ids=lambda sort: sort.name.replace(" ", "-"))
def test_every_sort_renders_finite_sound_in_each_split(sort):
    for split in ("train", "dev", "test"):
        rng = np.random.default_rng(1)
        n = dsp.samples(sort.shortest)
        wave = sort.render(draw_parameters(sort, split, rng), rng, n)
        assert wave.shape == (n,)
        assert np.isfinite(wave).all()
        assert np.sqrt(np.mean(wave**2)) > 1e-3


def test_the_wider_sorts_are_of_the_kinds_that_real_recordings_were_missed_of():
    assert set(SORTS) == {"water", "bell", "engine", "footsteps", "applause", "alarm", "phone", "drum"}
    assert len({sort.name for sort in ALL_SORTS}) == len(ALL_SORTS)


@pytest.mark.parametrize("kind", NAMES)
def test_a_field_sound_stays_within_full_scale_and_comes_again_from_its_seed(kind):
    for seed in range(3):
        wave = field_sound(kind, np.random.default_rng(seed), "train")
        assert wave.dtype == np.float32
        assert 0.3 * dsp.RATE <= len(wave) <= 12 * dsp.RATE
        assert np.isfinite(wave).all()
        assert np.abs(wave).max() <= 1
        assert np.array_equal(wave, field_sound(kind, np.random.default_rng(seed), "train"))


def test_field_sounds_differ_by_split_and_by_index():
    wave, clip = render_field("test", 0, "bell")
    assert clip.kind == "bell"
    assert clip.seconds == len(wave) / dsp.RATE
    for other, _ in (render_field("test", 1, "bell"), render_field("train", 0, "bell")):
        assert len(other) != len(wave) or not np.array_equal(other, wave)


@pytest.mark.parametrize(("kind", "split"), [("siron", "train"), ("bell", "validation")])
def test_another_kind_or_split_is_refused(kind, split):
    with pytest.raises(ValueError, match=kind if kind == "siron" else split):
        field_sound(kind, np.random.default_rng(0), split)
