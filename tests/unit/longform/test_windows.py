"""Windows of a long sound: every sample heard or skipped, once; cut where it does no harm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2_audio.errors import ConfigError
from qwen2_audio.longform.settings import TranscriptionSettings, read_settings
from qwen2_audio.longform.vad import FRAME
from qwen2_audio.longform.windows import SHORTEST, Windower

RATE = 16_000
LIMIT = 30 * RATE
DEFAULT = TranscriptionSettings()


class Marked:
    """Stands in for the detector: what is louder than 0.1 is speech."""

    def __init__(self):
        self.rest = np.zeros(0, np.float32)

    def push(self, samples):
        samples = np.concatenate([self.rest, samples])
        count = len(samples) // FRAME
        self.rest = samples[count * FRAME :]
        return (np.abs(samples[: count * FRAME]).reshape(-1, FRAME).max(axis=1) > 0.1).astype(np.float32)

    def finish(self):
        return self.push(np.zeros(-len(self.rest) % FRAME, np.float32))


def sound(*parts, seed=0):
    """(seconds, amplitude) one after the other, as noise with a little everywhere."""
    random = np.random.default_rng(seed)
    return np.concatenate(
        [random.uniform(-1, 1, round(seconds * RATE)).astype(np.float32) * max(level, 1e-4) for seconds, level in parts]
    )


def windows_of(samples, config=DEFAULT, *, detector="marked", everything=False, by_runs=False, blocks=()):
    windower = Windower(config, Marked() if detector else None, everything=everything, by_runs=by_runs)
    windows = []
    for block in np.split(samples, sorted(blocks)):
        windows += windower.push(block)
    windows += windower.finish()
    check(samples, windows, windower)
    return windows, windower.skipped


def check(samples, windows, windower):
    """Windows are in order and disjoint, hold the sound's own samples, and with what was skipped are all of it."""
    spans = sorted([(w.start, w.end) for w in windows] + windower.skipped)
    assert [w.start for w in windows] == sorted(w.start for w in windows)
    assert windower.skipped == sorted(windower.skipped)
    assert windower.total == len(samples)
    position = 0
    for start, end in spans:
        assert start == position and end > start
        position = end
    assert position == len(samples)
    for window in windows:
        assert SHORTEST <= len(window.samples) <= LIMIT
        np.testing.assert_array_equal(window.samples, samples[window.start : window.end])
        if len(window.speech):
            assert len(window.speech) == -(-window.end // FRAME) - window.start // FRAME
        if len(window.samples) > 2 * RATE:
            first, second = window.halves()
            np.testing.assert_array_equal(np.concatenate([first.samples, second.samples]), window.samples)
            assert second.start == first.end
            for half in (first, second) if len(window.speech) else ():
                assert len(half.speech) == -(-half.end // FRAME) - half.start // FRAME


def test_runs_near_each_other_share_a_window():
    samples = sound((1, 0), (2, 0.5), (1.5, 0), (3, 0.5), (2.6, 0), (1, 0.5), (4, 0))
    windows, skipped = windows_of(samples)
    assert [w.start / RATE for w in windows] == pytest.approx([0.8, 9.9], abs=0.04)
    assert [w.end / RATE for w in windows] == pytest.approx([7.7, 11.3], abs=0.04)
    assert len(skipped) == 3


def test_a_checkpoint_that_hears_one_utterance_a_window():
    samples = sound((1, 0), (2, 0.5), (1.5, 0), (3, 0.5), (0.5, 0), (1, 0.5), (0.2, 0), (1, 0.5), (1, 0))
    windows, _ = windows_of(samples, TranscriptionSettings(merge=False))
    assert [round(w.seconds, 1) for w in windows] == [2.4, 3.4, 2.6]  # a pause of 0.2 s is inside an utterance


def test_padding_never_reaches_into_a_neighbour():
    windows, skipped = windows_of(sound((1, 0.5), (0.36, 0), (1, 0.5)), TranscriptionSettings(merge=False))
    assert len(windows) == 2 and skipped == []
    assert windows[0].end == windows[1].start == pytest.approx(1.18 * RATE, abs=FRAME)


class Scripted(Marked):
    """Frames with these probabilities, then 0."""

    def __init__(self, *probabilities):
        super().__init__()
        self.script = list(probabilities)

    def push(self, samples):
        frames = super().push(samples)
        script, self.script = self.script[: len(frames)], self.script[len(frames) :]
        return np.array(script + [0.0] * (len(frames) - len(script)), np.float32)


def test_speech_begins_at_a_half_and_goes_on_above_a_third():
    script = [0.4] * 30 + [0.6] + [0.4] * 30 + [0.3] * 30
    windower = Windower(TranscriptionSettings(pad=0), Scripted(*script))
    windower.push(sound((4, 0)))
    (window,) = windower.finish()
    assert (window.start, window.end) == (30 * FRAME, 61 * FRAME)


def test_a_click_is_no_speech():
    windows, skipped = windows_of(sound((1, 0), (0.03, 0.5), (1, 0)))
    assert windows == [] and skipped == [(0, round(2.03 * RATE))]


def test_a_window_holds_at_most_30_s():
    windows, _ = windows_of(sound(*[(4, 0.5), (1, 0)] * 20))
    assert max(w.seconds for w in windows) <= 30
    assert min(w.seconds for w in windows[:-1]) > 24


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("detector", [True, False])
def test_long_sound_is_cut_in_its_pauses(everything, detector):
    """Speech without a pause of 0.3 s: each cut lies in one of the short ones."""
    samples = sound(*[(2.3, 0.5), (0.25, 0)] * 100)
    windows, skipped = windows_of(samples, everything=everything, detector=detector)
    for window in windows[:-1]:
        assert (window.end / RATE) % 2.55 > 2.3, window.end
        assert (25 if detector else 20) <= window.seconds <= 30
    assert sum(end - start for start, end in skipped) < RATE


def test_everything_is_heard_without_a_detector():
    windows, skipped = windows_of(sound((70, 0)), detector=False)
    assert skipped == [] and len(windows) == 3


def test_silence_is_skipped_and_said():
    assert windows_of(sound((700, 0))) == ([], [(0, 700 * RATE)])


@pytest.mark.parametrize("everything", [True, False])
def test_a_segmenters_30_016_s_are_one_window(everything):
    samples = sound((30.016, 0.5))
    windows, skipped = windows_of(samples, everything=everything)
    assert [len(w.samples) for w in windows] == [LIMIT]
    assert skipped == [(LIMIT, len(samples))]


@pytest.mark.parametrize("seconds", [30.0, 30.1, 30.11, 60.3])
def test_lengths_about_the_limit(seconds):
    windows, _ = windows_of(sound((seconds, 0.5)), everything=True)
    assert len(windows) == {30.0: 1, 30.1: 1, 30.11: 2, 60.3: 3}[seconds]


def test_a_run_that_ends_within_the_limit_is_not_cut():
    (window, *_), _ = windows_of(sound((1, 0), (29.4, 0.5), (3, 0)))
    assert window.seconds == pytest.approx(29.8, abs=0.07)


parts = st.lists(
    st.tuples(st.one_of(st.floats(0.01, 2), st.floats(0.1, 70)), st.sampled_from([0.0, 0.0, 0.05, 0.5])),
    min_size=1,
    max_size=12,
)


def every_second_is_accounted_for(data, parts, merge, seconds, detector, everything):
    samples = sound(*parts, seed=len(parts))
    config = TranscriptionSettings(merge=merge, window_seconds=seconds)
    whole, skipped = windows_of(samples, config, detector=detector, everything=everything)
    blocks = data.draw(st.lists(st.integers(0, len(samples)), max_size=5))
    cut, _ = windows_of(samples, config, detector=detector, everything=everything, blocks=blocks)
    assert [(w.start, w.end) for w in cut] == [(w.start, w.end) for w in whole]
    if everything or not detector:
        assert sum(end - start for start, end in skipped) <= 0.1 * RATE
        return
    runs = np.abs(samples) > 0.1  # what the detector calls speech is in a window, clicks apart
    for start, end in skipped:
        loud = np.flatnonzero(runs[start:end])
        assert len(loud) == 0 or loud[-1] - loud[0] < 0.1 * RATE + 2 * FRAME or end - start <= 1600


arguments = {
    "data": st.data(), "parts": parts, "merge": st.booleans(), "seconds": st.sampled_from([30.0, 8.0]),
    "detector": st.booleans(), "everything": st.booleans(),
}  # fmt: skip
test_every_second_is_accounted_for = settings(max_examples=40)(given(**arguments)(every_second_is_accounted_for))
test_every_second_of_1000_files_is_accounted_for = pytest.mark.exhaustive(
    settings(max_examples=1000)(given(**arguments)(every_second_is_accounted_for))
)


def test_by_runs_nothing_is_skipped_and_speech_has_its_windows():
    samples = sound((1, 0), (2, 0.5), (1.5, 0.05), (3, 0.5), (70, 0.05), (1, 0.5), (0.01, 0))
    one_each = TranscriptionSettings(merge=False)
    speech, _ = windows_of(samples, one_each)
    all_of_it, skipped = windows_of(samples, one_each, everything=True, by_runs=True)
    assert skipped == [] and len(all_of_it) == len(speech) + 5  # the pauses, the second of which is cut twice
    spans = {(window.start, window.end) for window in all_of_it}
    assert spans >= {(window.start, window.end) for window in speech}


@settings(max_examples=25)
@given(parts=parts, merge=st.booleans(), seconds=st.sampled_from([30.0, 8.0]), pad=st.sampled_from([0.0, 0.19, 0.2]))
def test_by_runs_every_sample_is_in_one_window(parts, merge, seconds, pad):
    samples = sound(*parts, seed=len(parts))
    config = TranscriptionSettings(merge=merge, window_seconds=seconds, pad=pad)
    windows, skipped = windows_of(samples, config, everything=True, by_runs=True)
    assert sum(end - start for start, end in skipped) < SHORTEST
    again, _ = windows_of(samples, config, everything=True, by_runs=True, blocks=[len(samples) // 3])
    assert [(w.start, w.end) for w in again] == [(w.start, w.end) for w in windows]


@pytest.mark.parametrize("by_runs", [False, True])
def test_memory_is_bounded(by_runs):
    """Four hours of silence, then of speech: never more than a window and what is looked at together is kept."""
    windower = Windower(DEFAULT, Marked(), everything=by_runs, by_runs=by_runs)
    block, most = np.zeros(60 * RATE, np.float32), 0
    for minute in range(240):
        windower.push(block if minute < 120 else block + 0.5)
        most = max(most, len(windower._sound._samples) + sum(map(len, windower._incoming)))
    assert most < 60 * RATE


def test_settings_are_read_from_the_checkpoint(tmp_path):
    assert read_settings(tmp_path) == TranscriptionSettings()
    (tmp_path / "transcription.json").write_text('{"merge": false, "no_speech": ["Nobody speaks."]}')
    assert read_settings(tmp_path) == TranscriptionSettings(merge=False, no_speech=("Nobody speaks.",))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"window": 30}', r"transcription.json has the key 'window', which is not known"),
        ('{"window_seconds": 31}', "window_seconds is 31; expected seconds between 1 and 30"),
        ('{"merge_gap": "2"}', "merge_gap is '2'; expected seconds between 0 and 60"),
        ('{"merge": 1}', "merge is 1; expected true or false"),
        ('{"min_confidence": 2}', "min_confidence is 2; expected a probability"),
        ("{", "is not valid JSON"),
    ],
)
def test_settings_that_cannot_work(text, sentence, tmp_path):
    (tmp_path / "transcription.json").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read_settings(tmp_path)
