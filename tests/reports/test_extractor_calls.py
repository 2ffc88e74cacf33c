"""The feature extractor alone, as the reference's: other settings, paddings, dither, `pad`, `mel_filters`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qwen2_audio.audio.io import SoundWarning
from qwen2_audio.errors import AudioError, ConfigError
from qwen2_audio.inputs.feature_extractor import WhisperFeatureExtractor
from qwen2_audio.text.batch_feature import BatchFeature

# transformers says of settings that are only for tests that filters are empty.
pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
OTHER = {"feature_size": 10, "hop_length": 100, "chunk_length": 2, "sampling_rate": 4000, "n_fft": 200}


def clips(*lengths: int) -> list[np.ndarray]:
    return [(0.2 * np.random.default_rng(n).standard_normal(n)).astype(np.float32) for n in lengths]


@pytest.fixture(params=[{}, OTHER], ids=["official", "other"])
def both(request):
    """(ours, theirs)"""
    transformers = pytest.importorskip("transformers")
    settings = {"feature_size": 128, "return_attention_mask": True, **request.param}
    return WhisperFeatureExtractor(**settings), transformers.WhisperFeatureExtractor(**settings)


def test_settings_and_filters(both):
    ours, theirs = both
    assert ours.to_dict() == theirs.to_dict()
    np.testing.assert_allclose(ours.mel_filters, theirs.mel_filters, atol=1e-8)
    assert ours.mel_filters.shape == (1 + ours.n_fft // 2, ours.feature_size)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": True},
        {"padding": "longest", "pad_to_multiple_of": 480},
        {"padding": "max_length", "max_length": 2400},
        {"padding": "max_length", "max_length": 1001},
        {"padding": True, "do_normalize": True},
        {"truncation": False, "padding": "longest"},
    ],
)
def test_a_call(both, options):
    ours, theirs = both
    sound = clips(900, 1999, 1600)
    rate = {"sampling_rate": ours.sampling_rate, "return_attention_mask": True, "return_tensors": "pt"}
    found, expected = ours(sound, **options, **rate), theirs(sound, **options, **rate)
    assert found.input_features.shape == expected.input_features.shape
    torch.testing.assert_close(found.input_features, expected.input_features, atol=2e-5, rtol=0)
    assert torch.equal(found.attention_mask, expected.attention_mask)


def test_without_padding_clips_keep_their_lengths(both):
    ours, theirs = both
    sound = clips(900, 1601)
    found = ours(sound, padding=False)
    assert [feature.shape[1] for feature in found.input_features] == [n // ours.hop_length for n in (900, 1601)]
    for feature, clip in zip(found.input_features, sound, strict=True):
        expected = theirs([clip], padding=False, sampling_rate=ours.sampling_rate, return_tensors="np").input_features[
            0
        ]
        np.testing.assert_allclose(feature, expected, atol=2e-5)
    with pytest.raises(ValueError, match="do not make one tensor"):
        ours(sound, padding="do_not_pad", return_tensors="pt")


def test_the_whole_window_is_the_models(both):
    """The general way and the model's own give the same numbers."""
    ours, _ = both
    sound = clips(1600)
    window = ours(sound).input_features
    general = ours(sound, pad_to_multiple_of=1).input_features
    assert window.shape == general.shape == (1, ours.feature_size, ours.nb_max_frames)
    np.testing.assert_allclose(window, general, atol=1e-5)


def test_dither():
    sound = clips(1600)
    plain, noisy = WhisperFeatureExtractor(feature_size=80), WhisperFeatureExtractor(feature_size=80, dither=3e-5)
    np.random.seed(0)
    first = noisy(sound, padding=True).input_features
    np.random.seed(0)
    assert np.array_equal(noisy(sound, padding=True).input_features, first)
    difference = np.abs(first - plain(sound, padding=True).input_features)
    assert 1e-7 < difference.mean() < 1e-3


def test_what_is_cut_is_said():
    extractor = WhisperFeatureExtractor()
    with pytest.warns(SoundWarning, match=r"^Clip 1 lasts 0\.1 s; only its first 0\.05 s are heard"):
        assert extractor(clips(1600), padding=True, max_length=800).input_features.shape[-1] == 5


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"padding": "long"}, ConfigError, r"^padding is 'long'; expected True, 'longest', 'max_length', False or"),
        ({"sampling_rate": 8000}, AudioError, r"^sampling_rate is 8000, and samples given without a rate"),
        (
            {"padding": False, "max_length": 100},
            AudioError,
            r"^Found 100 samples; expected more than 200, half a frame",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::qwen2_audio.audio.io.SoundWarning")
def test_what_cannot_be(options, error, sentence):
    with pytest.raises(error, match=sentence):
        WhisperFeatureExtractor()(clips(1600), **options)


def test_files_at_another_rate_are_refused(tmp_path):
    with pytest.raises(AudioError, match=r"^This feature extractor takes 4000 Hz, and clips are read at 16000 Hz"):
        WhisperFeatureExtractor(**OTHER)([(np.zeros(800, np.float32), 16_000)])


# -- pad


def sequences(made: str, width: int) -> dict:
    rows = [np.random.default_rng(n).random((n, width)) for n in (4, 7)]
    if made == "lists":
        return {"input_features": [row.tolist() for row in rows]}
    return {"input_features": [torch.from_numpy(row) for row in rows] if made == "tensors" else rows}


@pytest.mark.parametrize("made", ["lists", "arrays", "tensors"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "max_length", "max_length": 9},
        {"padding": "max_length", "max_length": 5, "truncation": True},
        {"padding": "longest", "pad_to_multiple_of": 5, "return_tensors": "np"},
        {"return_attention_mask": False},
        {"padding": True, "return_tensors": "pt"},
    ],
)
def test_pad(made, options):
    transformers = pytest.importorskip("transformers")
    settings = {"feature_size": 3, "return_attention_mask": True}
    found = WhisperFeatureExtractor(**settings).pad(BatchFeature(sequences(made, 3)), **options)
    theirs = transformers.WhisperFeatureExtractor(**settings)
    expected = theirs.pad(transformers.BatchFeature(sequences(made, 3)), **options)
    assert list(found) == list(expected)
    for name in expected:
        assert type(found[name]) is type(expected[name])
        assert found[name].dtype == expected[name].dtype
        assert np.array_equal(found[name], expected[name])


def test_pad_a_list_of_mappings_and_what_cannot_be():
    extractor = WhisperFeatureExtractor()
    rows = [{"input_features": [0.5]}, {"input_features": [0.5, 1.0]}]
    batch = extractor.pad(rows, return_tensors="pt")
    assert batch.input_features.tolist() == [[0.5, 0.0], [0.5, 1.0]]
    assert batch.attention_mask.tolist() == [[1, 0], [1, 1]]
    longer = extractor.pad(rows, padding="max_length", max_length=1).input_features
    assert [len(row) for row in longer] == [1, 2]
    for options in ({"padding": "max_length"}, {"truncation": True}):
        with pytest.raises(ConfigError, match=r"needs a length; pass max_length= as well\.$"):
            extractor.pad(rows, **options)
    with pytest.raises(ConfigError, match=r"^pad\(\) found \['x'\]; expected a mapping with 'input_features'\.$"):
        extractor.pad({"x": [[1.0]]})
