"""Log-mels made by torch, on the CPU here, next to numpy's: values, golden values, clips end to end, refusals."""

import numpy as np
import pytest
import torch

from qwen2_audio.audio.mel import log_mel
from qwen2_audio.errors import AudioError, ConfigError
from qwen2_audio.inputs import prompt as prompts
from qwen2_audio.inputs.log_mel_torch import LogMels
from qwen2_audio.inputs.processor import Qwen2AudioProcessor


@pytest.fixture(scope="module")
def log_mels():
    return LogMels(torch.device("cpu"))


def speech_like(samples, seed):
    """Tones that come and go over noise, 60 dB between loud and soft."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 16000
    tone = np.sin(2 * np.pi * (200 + 300 * seed) * time) * (np.sin(2 * np.pi * 1.3 * time) > 0)
    return (0.4 * tone + 4e-4 * rng.standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 199, 200, 201, 400, 16000, 16001, 40321, 479_999, 480_000])
def test_what_numpy_makes(log_mels, samples):
    waveform = speech_like(samples, 1)
    (found,) = log_mels([waveform])
    expected = log_mel(waveform)
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_clips_of_any_lengths_together_as_alone(log_mels):
    waveforms = [speech_like(samples, seed) for seed, samples in enumerate([16000, 3, 0, 480_000, 5000])]
    for found, waveform in zip(log_mels(waveforms, 80), waveforms, strict=True):
        np.testing.assert_allclose(found, log_mel(waveform, num_mel_bins=80), rtol=0, atol=1e-5)
    assert log_mels([]) == []


def test_one_clip_always_gets_the_same_bits(log_mels):
    """Caches know a clip by them."""
    waveform = speech_like(30_000, 2)
    (first,), (second,) = log_mels([waveform]), log_mels([waveform.copy()])
    np.testing.assert_array_equal(first, second)


def test_silence(log_mels):
    assert np.all(log_mels([np.zeros(16000, np.float32)])[0] == -1.5)


def test_golden_sine(log_mels):
    time = np.arange(16000) / 16000
    (mel,) = log_mels([(0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)])
    assert mel.min() == pytest.approx(-0.514646, abs=1e-5)
    assert mel.max() == pytest.approx(1.485354, abs=1e-5)
    assert mel[0, :3] == pytest.approx([0.9075196, 0.39551204, -0.51464593], abs=1e-5)
    assert mel[17, 50] == pytest.approx(1.337491, abs=1e-5)
    assert mel[127, 99:102] == pytest.approx([-0.51464593, -0.23267841, -0.51464593], abs=1e-5)


def test_golden_ramp(log_mels):
    (mel,) = log_mels([np.linspace(-1, 1, 48000, dtype=np.float32)])
    assert mel.min() == pytest.approx(-0.378185, abs=1e-5)
    assert mel.max() == pytest.approx(1.621815, abs=1e-5)
    assert mel[0, :3] == pytest.approx([1.5229559, 1.5216788, 1.5202143], abs=1e-5)


@pytest.mark.parametrize("waveform", [np.zeros(480_001, np.float32), np.full(500, np.nan), np.zeros((2, 9))])
def test_what_log_mel_refuses(log_mels, waveform):
    with pytest.raises(AudioError):
        log_mels([np.zeros(5, np.float32), waveform])


def test_no_mel_bands_is_refused(log_mels):
    with pytest.raises(ConfigError, match="num_mel_bins is 0"):
        log_mels([np.zeros(100, np.float32)], 0)


def test_a_conversation_whose_log_mels_are_made_like_this(log_mels):
    """As a service on a GPU has them made: the same prompt, and keys that tell the same clips from others."""
    import qwen2_audio as qa

    processor = Qwen2AudioProcessor.from_pretrained(qa.nano_path())
    dog, bell = speech_like(20_000, 3), speech_like(31_000, 4)
    messages = [qa.user("Which of them?", audio=[dog, bell, dog])]
    ours, plain = prompts.build_prompt(messages, processor, None, log_mels), prompts.build_prompt(messages, processor)
    assert (ours.ids, ours.frames, ours.heard) == (plain.ids, plain.frames, plain.heard)
    for mine, theirs in zip(ours.clips, plain.clips, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
    assert ours.digests == prompts.build_prompt(messages, processor, None, log_mels).digests
