import numpy as np
import pytest

from qwen2_audio.errors import AudioError
from qwen2_audio.inputs.clip import clip_from_waveform, load_clip


@pytest.mark.parametrize(("samples", "tokens"), [(321, 1), (16_000, 25), (480_000, 750)])
def test_a_clip_counts_25_tokens_a_second(samples, tokens):
    sound = load_clip(np.zeros(samples, np.float32))
    assert (sound.heard.seconds, sound.heard.tokens) == (samples / 16_000, tokens)


def test_more_than_a_window_is_refused_with_its_seconds(wav_file):
    path = wav_file("talk.wav", 31.5)
    with pytest.raises(AudioError, match=r"talk\.wav lasts 31\.5 s, and 30 s are heard at a time") as refusal:
        load_clip(path)
    assert "Split it into clips of at most 30 s and pass them as a list" in str(refusal.value)
    assert "or ask with long='parts', which hears it window by window" in str(refusal.value)
    assert "Qwen2AudioProcessor keeps the first 30 s" in str(refusal.value)


def test_one_sample_beyond_the_tolerance_is_refused_too():
    with pytest.raises(AudioError, match=r"Clip 3 lasts 30\.1001 s"):
        load_clip(np.zeros(481_601, np.float32), 3)


def test_a_clip_too_short_to_be_heard_is_refused():
    with pytest.raises(AudioError, match=r"Clip 2 has 320 samples \(20 ms\): too short, it makes 0 audio tokens"):
        load_clip(np.zeros(320, np.float32), 2)


def test_decoded_samples_become_a_clip_under_the_same_rules_and_are_not_copied():
    samples = np.zeros(16_000, np.float32)
    clip = clip_from_waveform(samples, "Clip 2")
    assert clip.waveform is samples and clip.heard == load_clip(samples).heard
    for bad in (np.zeros(481_601, np.float32), np.zeros(320, np.float32)):
        with pytest.raises(AudioError) as expected:
            load_clip(bad, 2)
        with pytest.raises(AudioError) as raised:
            clip_from_waveform(bad, "Clip 2")
        assert str(raised.value) == str(expected.value)
