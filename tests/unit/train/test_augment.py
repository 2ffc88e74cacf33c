import numpy as np
import pytest

from qwen2_audio.audio import mel
from qwen2_audio.errors import ConfigError
from qwen2_audio.train import augment
from qwen2_audio.train.config import AugmentConfig

ALL = AugmentConfig(
    speed=(0.9, 1.1),
    vtlp=(0.9, 1.1),
    gain_db=(-6.0, 6.0),
    noise=1.0,
    noise_snr_db=(5.0, 20.0),
    reverb=1.0,
    spec_augment=1.0,
)


def vary(waveform, config, *, seed=0, epoch=0, index=0):
    draw = augment.generator(seed, epoch, index)
    varied = augment.vary_waveform(waveform, config, draw)
    frames = mel.num_frames(len(varied))
    return varied, augment.vary_log_mel(mel.log_mel(varied), frames, config, draw)


def test_off_is_untouched(clip):
    varied, log_mel = vary(clip, AugmentConfig())
    assert np.array_equal(varied, clip)
    assert np.array_equal(log_mel, mel.log_mel(clip))


def test_the_same_seed_epoch_and_index_give_the_same_sound_and_others_another(clip):
    first = vary(clip, ALL)
    again = vary(clip, ALL)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    for other in ({"seed": 1}, {"epoch": 1}, {"index": 1}):
        assert not np.array_equal(first[0], vary(clip, ALL, **other)[0])


def test_the_sound_that_was_handed_in_is_not_changed(clip):
    before = clip.copy()
    vary(clip, ALL)
    assert np.array_equal(clip, before)


def test_speed_changes_length_and_pitch(clip):
    varied, _ = vary(clip, AugmentConfig(speed=(1.25, 1.25)))
    assert len(varied) == len(clip) / 1.25
    peak = np.abs(np.fft.rfft(varied)).argmax() * 16_000 / len(varied)
    assert abs(peak - 440 * 1.25) < 2


@pytest.mark.parametrize(("samples", "factor"), [(480_000, 0.9), (321, 1.1)])
def test_speed_never_makes_a_clip_unhearable(samples, factor):
    waveform = np.ones(samples, np.float32)
    assert len(augment.vary_waveform(waveform, AugmentConfig(speed=(factor, factor)), augment.generator(0, 0, 0))) == (
        samples
    )


def test_gain_and_noise_have_the_levels_asked_for(clip):
    louder, _ = vary(clip, AugmentConfig(gain_db=(6.0, 6.0)))
    assert np.allclose(louder, clip * 10 ** (6 / 20), atol=1e-6)
    noisy, _ = vary(clip, AugmentConfig(noise=1.0, noise_snr_db=(10.0, 10.0)))
    ratio = np.mean(clip.astype(float) ** 2) / np.mean((noisy - clip).astype(float) ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(10, abs=0.1)


def test_reverb_keeps_length_level_and_adds_a_tail(clip):
    burst = clip.copy()
    burst[4000:] = 0
    wet, _ = vary(burst, AugmentConfig(reverb=1.0))
    assert len(wet) == len(burst) and wet.dtype == np.float32
    assert np.sqrt(np.mean(wet**2)) == pytest.approx(np.sqrt(np.mean(burst**2)), rel=1e-3)
    assert np.abs(wet[4100:5000]).max() > 1e-3


def test_silence_survives_everything():
    varied, log_mel = vary(np.zeros(16_000, np.float32), ALL)
    assert np.isfinite(varied).all() and np.isfinite(log_mel).all()


def test_spec_augment_masks_bands_and_stretches_of_the_sound_only(clip):
    config = AugmentConfig(spec_augment=1.0)
    plain = mel.log_mel(clip)
    for index in range(20):
        _, masked = vary(clip, config, index=index)
        changed = masked != plain
        assert not changed[:, 100:].any()  # beyond the sound
        assert changed[:, :100].mean() < 0.9
    bands_only = AugmentConfig(spec_augment=1.0, time_masks=0, frequency_masks=1, frequency_mask_bins=27)
    rows = [(vary(clip, bands_only, index=i)[1] != plain)[:, :100].any(1) for i in range(20)]
    assert 0 < max(row.sum() for row in rows) <= 27
    assert all(np.diff(np.flatnonzero(row)).max(initial=1) == 1 for row in rows)


def test_a_warp_moves_every_frequency_by_its_factor():
    centres = np.linspace(0, 8000, 201) @ mel.mel_filters(128) / mel.mel_filters(128).sum(0)  # of the bins, in Hz
    log_mel = np.zeros((128, 3), np.float32)
    log_mel[np.abs(centres - 1500).argmin()] = 1.0
    for factor in (0.87, 1.15):
        moved = centres[augment.warp(log_mel, np.full(128, factor))[:, 1].argmax()]
        assert abs(moved / (1500 * factor) - 1) < 0.02
    assert np.allclose(augment.warp(log_mel, np.ones(128)), log_mel, atol=1e-5)


def test_vtlp_moves_the_tone_and_leaves_what_is_beyond_the_sound(clip):
    plain = mel.log_mel(clip)
    centres = augment.bin_centres(128)
    peak = centres[plain[:, 50].argmax()]
    found = []
    for index in range(20):
        _, moved = vary(clip, AugmentConfig(vtlp=(1.2, 1.2)), index=index)
        assert moved.dtype == np.float32 and np.array_equal(moved[:, 100:], plain[:, 100:])
        found.append(centres[moved[:, 50].argmax()] / peak)
    assert 1.1 < min(found) < max(found) < 1.3  # each formant goes a little its own way


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (AugmentConfig(speed=(0.0, 1.0)), "augment.speed is [0, 1]; expected [low, high] between 0.5 and 2"),
        (AugmentConfig(vtlp=(0.9, 3.0)), "augment.vtlp is [0.9, 3]"),
        (AugmentConfig(gain_db=(3.0, -3.0)), "augment.gain_db is [3, -3]"),
        (AugmentConfig(noise_snr_db=(0.0, 1000.0)), "augment.noise_snr_db"),
        (AugmentConfig(reverb=1.5), "augment.reverb is 1.5; expected a chance between 0 and 1"),
    ],
)
def test_senseless_settings_are_refused(config, sentence):
    with pytest.raises(ConfigError) as error:
        augment.check_config(config)
    assert sentence in str(error.value)
