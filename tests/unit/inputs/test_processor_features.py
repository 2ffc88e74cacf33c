import json

import numpy as np
import pytest
import torch

from qwen2_audio.audio.io import SoundWarning, load
from qwen2_audio.errors import AudioError, ConfigError
from qwen2_audio.inputs.feature_extractor import FIXED, WhisperFeatureExtractor, clips_in


def test_official_settings():
    extractor = WhisperFeatureExtractor()
    assert (extractor.feature_size, extractor.sampling_rate, extractor.hop_length, extractor.n_fft) == (
        128,
        16000,
        160,
        400,
    )
    assert (extractor.chunk_length, extractor.n_samples, extractor.nb_max_frames) == (30, 480000, 3000)
    with pytest.raises(AttributeError, match=r"^The feature extractor has no 'hop'\.$"):
        extractor.hop  # noqa: B018


def test_files_of_both_generations(tmp_path):
    WhisperFeatureExtractor(feature_size=80, my_note="kept").save_pretrained(tmp_path / "a")
    data = json.loads((tmp_path / "a" / "preprocessor_config.json").read_text())
    assert data["feature_extractor_type"] == "WhisperFeatureExtractor"
    assert data["my_note"] == "kept"
    again = WhisperFeatureExtractor.from_pretrained(tmp_path / "a")
    assert {**again.to_dict(), "processor_class": "Qwen2AudioProcessor"} == data
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "processor_config.json").write_text(json.dumps({"feature_extractor": data}))
    assert WhisperFeatureExtractor.from_pretrained(tmp_path / "b").feature_size == 80
    (tmp_path / "c").mkdir()
    with pytest.raises(
        ConfigError, match=r"has no preprocessor_config\.json; expected the folder of a Qwen2-Audio check"
    ):
        WhisperFeatureExtractor.from_pretrained(tmp_path / "c")


@pytest.mark.parametrize("name", FIXED)
def test_settings_the_model_is_not_given_clips_with_are_named(name):
    with pytest.raises(
        ConfigError, match=rf"^preprocessor_config\.json sets {name} to 7; the model is given clips with .* only\."
    ):
        WhisperFeatureExtractor(**{name: 7}).check_front_end()


@pytest.mark.parametrize("name", ["sampling_rate", "hop_length", "n_fft", "chunk_length"])
def test_settings_that_are_no_whole_numbers_are_refused(name):
    for value in (0, 2.5, "7"):
        with pytest.raises(ConfigError, match=rf"^{name} is .*; expected a whole number from 1 up\.$"):
            WhisperFeatureExtractor(**{name: value})


@pytest.mark.parametrize("size", [0, "128", True, 12.5])
def test_a_bad_number_of_mel_bins_is_refused(size):
    with pytest.raises(ConfigError, match=r"^feature_size is .*; expected the number of mel bins, such as 128\.$"):
        WhisperFeatureExtractor(feature_size=size)


def test_features_and_mask():
    batch = WhisperFeatureExtractor()([np.zeros(16000), np.zeros(161)], sampling_rate=16000, return_tensors="pt")
    assert batch.input_features.shape == (2, 128, 3000)
    assert batch.input_features.dtype == torch.float32
    assert (batch.input_features == -1.5).all()  # silence
    assert batch.attention_mask.dtype == torch.int32
    assert batch.attention_mask.sum(-1).tolist() == [100, 2]
    assert list(WhisperFeatureExtractor(feature_size=80)(np.zeros(160), return_attention_mask=False)) == [
        "input_features"
    ]


def test_a_2d_array_is_a_batch_of_rows():
    rows = np.linspace(-1, 1, 3200).reshape(2, 1600)
    batch = WhisperFeatureExtractor()(rows)
    assert batch.input_features.shape == (2, 128, 3000)
    assert np.array_equal(batch.input_features[1], WhisperFeatureExtractor()(rows[1]).input_features[0])


def test_another_rate_is_refused():
    with pytest.raises(
        AudioError, match=r"^sampling_rate is 8000, and samples given without a rate are taken to be at 16000 Hz"
    ):
        WhisperFeatureExtractor()(np.zeros(800), sampling_rate=8000)


@pytest.mark.parametrize("rate", [16000, 16000.0, np.float32(16000), np.int64(16000)])
def test_a_rate_of_any_number_type_makes_one_clip(rate):
    assert len(clips_in((np.zeros(800), rate))) == 1


def test_what_is_one_clip_and_what_are_several():
    array = np.zeros(3)
    assert [len(clips_in(form)) for form in (array, "a.wav", b"", (array, 8000), ([0.1, 0.2], 8000), [0.1, 0.2])] == [
        1
    ] * 6
    assert [len(clips_in(form)) for form in ([array, array], (array, array), ["a", "b"], [[0.1], [0.2]])] == [2] * 4
    assert len(clips_in([[array, (array, 8000)], ["a"]])) == 3
    assert clips_in([]) == []
    assert clips_in((0.1, 0.2)) == clips_in([0.1, 0.2]) == [[0.1, 0.2]]


@pytest.mark.parametrize(
    ("audio", "sentence"),
    [
        ([100, -3000, 7] * 300, r"dtype int64 is not of samples this package knows; .* divide it to -1\.\.1 yourself"),
        ([[100, -3000, 7] * 300], "dtype int64 is not of samples this package knows"),
        ((16000, np.zeros(800)), r"Found \(rate, array\); expected \(array, rate\), such as \(samples, 44100\)"),
        ((16000, [0.1, 0.2]), r"Found \(rate, array\); expected \(array, rate\)"),
        (("a.wav", 16000), r"Found a tuple of 2; expected \(array, rate\)"),
        ([0.1, "a"], "is not of samples this package knows"),
        ([0.1, None], "is not of samples this package knows"),
        ([0.1, [0.2, 0.3]], "rows of different lengths; expected numbers of one sound"),
        ([0.1, float("nan")], "holds NaN or infinite samples"),
        ([20000.0, -3.0], r"reaches 20,000; expected samples between -1 and 1\. Divide them by their full scale"),
    ],
)
def test_numbers_are_checked_as_load_checks_them(audio, sentence):
    with pytest.raises(AudioError, match=sentence):
        WhisperFeatureExtractor()(audio)


def test_a_list_of_16_bit_samples_is_scaled():
    samples = (np.sin(np.arange(800)) * 9000).astype(np.int16)
    extractor = WhisperFeatureExtractor()
    assert np.array_equal(extractor(list(samples)).input_features, extractor(samples).input_features)
    assert np.array_equal(load(clips_in(list(samples))[0]), load(samples))


def test_what_is_cut_is_said_by_the_extractor_too():
    clips = [np.zeros(100), np.zeros(31 * 16000)]
    with pytest.warns(SoundWarning, match=r"^Clip 2 lasts 31\.0 s; only its first 30 s are heard, 1\.0 s are") as seen:
        WhisperFeatureExtractor()(clips)
    assert [one.filename for one in seen] == [__file__]
