"""Sounds of any length to transcripts, with a model that knows its windows by heart."""

import gc
import math
import threading

import numpy as np
import pytest

from kit.scripted_listener import ScriptedListener
from qwen2_audio.errors import AudioError, ConfigError
from qwen2_audio.longform import transcribe as module
from qwen2_audio.longform.asking import Task
from qwen2_audio.longform.settings import TranscriptionSettings
from qwen2_audio.longform.transcribe import Finished, Listening, Progress, transcribe
from qwen2_audio.longform.vad import FRAME

RATE = 16_000
ONE_EACH = TranscriptionSettings(merge=False)


class Loud:
    """Stands in for the detector: a frame is speech where it is loud."""

    def __init__(self):
        self.rest = np.zeros(0, np.float32)

    def push(self, samples):
        samples = np.concatenate([self.rest, samples])
        count = len(samples) // FRAME
        self.rest = samples[count * FRAME :]
        return np.where(np.abs(samples[: count * FRAME]).reshape(-1, FRAME).max(axis=1) > 0.05, 0.9, 0.01).astype("f4")

    def finish(self):
        return self.push(np.zeros(-len(self.rest) % FRAME, np.float32))


@pytest.fixture(autouse=True)
def _loud(monkeypatch):
    monkeypatch.setattr(module, "speech_detector", Loud)


def sound(*levels, seconds=2.0, gap=1.0):
    """Utterances of these levels with pauses around them: a window's peak says which it is."""
    random = np.random.default_rng(0)
    parts = [np.full(round(gap * RATE), 1e-3)]
    for level in levels:
        noise = random.uniform(-level, level, round(seconds * RATE))
        noise[:: RATE // 4] = level
        parts += [noise, np.full(round(gap * RATE), 1e-3)]
    return np.concatenate(parts).astype(np.float32)


def number(samples):
    return f"number {round(100 * float(np.abs(samples).max()))}"


def run(model, *sources, task=None, settings=ONE_EACH, listening=None):
    named = [(source, f"sound {n}") for n, source in enumerate(sources, 1)]
    return list(transcribe(model, named, task or Task(), settings, listening))


def transcripts(events):
    return [event.transcript for event in events if isinstance(event, Finished)]


def by_peak(samples, params):
    return number(samples)


def test_windows_in_order_with_their_times():
    (talk,) = transcripts(run(ScriptedListener(lambda s, p: number(s), delay=0.01), sound(0.2, 0.3, 0.4)))
    assert talk.text == "number 20 number 30 number 40"
    assert [s.start for s in talk.segments] == pytest.approx([1, 4, 7], abs=0.04)
    assert [s.end for s in talk.segments] == pytest.approx([3, 6, 9], abs=0.04)
    assert talk.seconds == 10 and talk.language is None and talk.name == "sound 1"
    heard = 3 * (2 + 2 * 0.2)
    assert sum(end - start for start, end in talk.skipped) == pytest.approx(10 - heard, abs=0.15)


def test_what_each_window_is_asked():
    model = ScriptedListener(by_peak)
    run(model, sound(0.2), task=Task("de", None, "Names: Käthe"))
    ((samples, text, params, raw),) = model.asked
    assert text == "Context: Names: Käthe\nThe speech is in German. Transcribe the speech." and not raw
    assert params.temperature == 0 and params.repetition_penalty == 1.0
    assert params.max_tokens == 24 + math.ceil(12 * len(samples) / RATE)
    run(model, sound(0.2), task=Task(None, "fr"))
    assert model.asked[-1][1] == "Write down the French translation of what is said."
    run(model, sound(0.2), settings=TranscriptionSettings(transcribe="Write it down."))
    assert model.asked[-1][1] == "Write it down."


def test_a_base_checkpoint_is_asked_its_official_prompt():
    model = ScriptedListener(lambda s, p: "<|fr|>bonjour")
    model.is_base = True
    (talk,) = transcripts(run(model, sound(0.2)))
    assert model.asked[0][1] == "Detect the language and recognize the speech:" and model.asked[0][3]
    assert (talk.text, talk.language, talk.segments[0].raw) == ("bonjour", "fr", "<|fr|>bonjour")
    run(model, sound(0.2), task=Task("fr"))
    assert model.asked[-1][1] == "Detect the language and recognize the speech: <|fr|>"
    with pytest.raises(ConfigError, match="one wording only"):
        transcribe(model, [("gone.wav", "a")], Task(prompt="names"), ONE_EACH)


def test_confidence_of_segments_and_words():
    (talk,) = transcripts(run(ScriptedListener(lambda s, p: ("two words", "stop", math.log(0.5))), sound(0.2)))
    (segment,) = talk.segments
    assert segment.confidence == pytest.approx(0.5) and segment.avg_logprob == pytest.approx(math.log(0.5))
    assert [(w.text, w.start) for w in segment.words] == [("two", None), (" words", None)]
    assert segment.words[0].confidence == pytest.approx(0.5)
    assert segment.no_speech_prob == pytest.approx(0.1, abs=1e-5)
    doubtful = TranscriptionSettings(merge=False, min_confidence=0.6)
    (talk,) = transcripts(
        run(ScriptedListener(lambda s, p: ("two words", "stop", math.log(0.5))), sound(0.2), settings=doubtful)
    )
    assert talk.segments[0].flags == ("low_confidence",)


def test_nobody_speaks_by_the_checkpoints_own_words():
    settings = TranscriptionSettings(merge=False, no_speech=("Nobody is speaking.",))
    model = ScriptedListener(lambda s, p: "Nobody is speaking. I only hear noise.")
    (talk,) = transcripts(run(model, sound(0.2), settings=settings))
    (segment,) = talk.segments
    assert (talk.text, segment.flags) == ("", ("refusal",))
    assert segment.raw == "Nobody is speaking. I only hear noise."


def test_digital_silence_is_not_asked_about():
    model = ScriptedListener(by_peak)
    (talk,) = transcripts(run(model, np.zeros(5 * RATE, np.float32), listening=Listening(everything=True)))
    assert model.asked == [] and [s.flags for s in talk.segments] == [("silence",)] and talk.skipped == ()


def test_a_loop_is_asked_again_in_halves():
    def loops(samples, params):
        return "and so " * 40 if len(samples) > 2 * RATE else number(samples)

    model = ScriptedListener(loops)
    (talk,) = transcripts(run(model, sound(0.2, seconds=3.0)))
    assert talk.text == "number 20 number 20" and [s.flags for s in talk.segments] == [(), ()]
    first, second = talk.segments
    assert first.raw == second.raw == ("and so " * 40).strip()  # the first answer is kept
    assert first.end <= second.start and len(model.asked[0][0]) > 3 * RATE
    assert len(model.asked) == 3 and all(asked[2].temperature == 0 for asked in model.asked)


def test_a_half_that_loops_is_asked_warmer_with_a_fixed_seed():
    def loops(samples, params):
        return number(samples) if params.temperature >= 0.4 else "and so " * 40

    model = ScriptedListener(loops)
    (talk,) = transcripts(run(model, sound(0.2, seconds=3.0)))
    assert talk.text == "number 20 number 20" and {s.temperature for s in talk.segments} == {0.4}
    assert [asked[2].temperature for asked in model.asked] == [0, 0, 0, 0.2, 0.4, 0.2, 0.4]
    assert len({asked[2].seed for asked in model.asked}) == 1


def test_a_short_window_is_asked_warmer_at_once():
    def loops(samples, params):
        return number(samples) if params.temperature else ("and so " * 40, "length", -0.1)

    model = ScriptedListener(loops)
    (talk,) = transcripts(run(model, sound(0.2, seconds=0.5)))
    assert [asked[2].temperature for asked in model.asked] == [0, 0.2]
    assert talk.segments[0].raw == ("and so " * 40).strip() and talk.segments[0].flags == ()


def test_a_text_in_another_language_than_asked_for_is_flagged_and_not_asked_again():
    model = ScriptedListener(lambda s, p: "this is what we have in the house")
    (talk,) = transcripts(run(model, sound(0.2), task=Task("fr")))
    assert talk.segments[0].flags == ("language",) and len(model.asked) == 1
    (talk,) = transcripts(run(model, sound(0.2), task=Task("fr", "en")))
    assert talk.segments[0].flags == ()


def test_a_segment_in_another_language_than_all_the_others():
    def polyglot(samples, params):
        return "c'est que vous êtes dans le jardin" if "30" in number(samples) else "this is what we have in the house"

    events = run(ScriptedListener(polyglot), sound(*[0.2] * 12, 0.3))
    (talk,) = transcripts(events)
    assert [s.flags for s in talk.segments] == [()] * 12 + [("language",)] and talk.language == "en"


def test_a_loop_that_stays_is_kept_and_flagged():
    text = "and so " * 40
    model = ScriptedListener(lambda s, p: (text, "length", -0.1))
    (talk,) = transcripts(run(model, sound(0.2, seconds=3.0)))
    assert all({"repetition", "length"} <= set(s.flags) for s in talk.segments)
    assert text.strip() in talk.text
    (talk,) = transcripts(run(model, sound(0.2, seconds=3.0), task=Task(recover=False)))
    assert len(talk.segments) == 1


def test_all_windows_of_all_sounds_are_one_batch():
    model = ScriptedListener(by_peak, delay=0.05)
    talks = transcripts(run(model, sound(0.2, 0.3), sound(0.4), sound(0.5, 0.6)))
    assert [t.text for t in talks] == ["number 20 number 30", "number 40", "number 50 number 60"]
    assert model.most_open == 5


def test_segments_come_before_the_sound_is_read_to_its_end():
    model = ScriptedListener(by_peak)
    read = []

    class Blocks:
        seconds, notes = None, ()

        def __init__(self, *_, **__):
            pass

        def blocks(self):
            for level in range(100):
                read.append(level)
                yield [sound(0.2 + level / 200, seconds=9.0)]

    module_stream, module.SoundStream = module.SoundStream, Blocks
    try:
        events = transcribe(model, [("x", "x")], Task(), ONE_EACH)
        assert isinstance(next(events), Progress) and len(read) < 10
        events.close()
    finally:
        module.SoundStream = module_stream


def test_only_some_windows_are_asked_ahead_and_closing_cancels_them(monkeypatch):
    monkeypatch.setattr(module, "MAX_PENDING", 3)
    model = ScriptedListener(by_peak, delay=0.2)
    events = transcribe(model, [(sound(*[0.2] * 9), "a")], Task(), ONE_EACH)
    next(events)
    assert model.most_open == 3
    events.close()
    assert len(model.cancelled) >= 3
    del events
    gc.collect()


def test_a_full_queue_is_waited_for():
    model = ScriptedListener(by_peak, delay=0.02, room=1)
    (talk,) = transcripts(run(model, sound(0.2, 0.3, 0.4)))
    assert talk.text == "number 20 number 30 number 40" and model.most_open == 1


def test_a_sound_that_cannot_be_read_ends_only_itself():
    events = run(ScriptedListener(by_peak), sound(0.2), "gone.wav", sound(0.3))
    ends = [event for event in events if isinstance(event, Finished)]
    assert [end.source for end in ends] == [0, 1, 2]
    assert isinstance(ends[1].error, AudioError) and "No such file: 'gone.wav'" in str(ends[1].error)
    assert ends[0].transcript.text == "number 20" and ends[2].transcript.text == "number 30"


def test_what_was_read_before_an_error_is_kept():
    samples = np.concatenate([sound(0.2, 0.3), sound(0.4)])

    class Breaks(module.SoundStream):
        def blocks(self):
            yield [samples]
            raise AudioError("It breaks off.")

    original, module.SoundStream = module.SoundStream, Breaks
    try:
        (*_, end) = run(ScriptedListener(by_peak), "x")
    finally:
        module.SoundStream = original
    assert str(end.error) == "It breaks off." and end.transcript.text == "number 20 number 30 number 40"


def test_a_window_that_the_model_fails_on_ends_its_sound():
    def fails(samples, params):
        if number(samples) == "number 30":
            raise MemoryError("out of memory")
        return number(samples)

    first, second = [
        e for e in run(ScriptedListener(fails), sound(0.2, 0.3, 0.4), sound(0.5)) if isinstance(e, Finished)
    ]
    assert isinstance(first.error, MemoryError) and first.transcript.text == "number 20"
    assert second.error is None and second.transcript.text == "number 50"


def test_one_speaker_a_channel():
    left, right = sound(0.2, 0.0001, 0.3), sound(0.0001, 0.4, 0.0001)
    stereo = np.stack([left, right])
    (talk,) = transcripts(run(ScriptedListener(by_peak), (stereo, RATE), listening=Listening(split_channels=True)))
    assert [(s.text, s.channel) for s in talk.segments] == [("number 20", 0), ("number 40", 1), ("number 30", 0)]
    assert all(end - start < 0.9 for start, end in talk.skipped)  # what one channel holds is not skipped


def test_what_all_channels_skip():
    spans = [[(0, 10), (20, 30), (40, 50)], [(5, 25), (26, 45), (49, 60)], [(0, 100)]]
    assert module._common(spans) == [(5, 10), (20, 25), (26, 30), (40, 45), (49, 50)]
    assert module._common([]) == [] and module._common([[(1, 2)], []]) == []
    many = [(2 * n, 2 * n + 1) for n in range(100_000)]  # a day of calls, in a moment
    assert module._common([many, many]) == many


def test_without_a_detector_everything_is_heard_and_it_is_said(monkeypatch):
    monkeypatch.setattr(module, "speech_detector", lambda: None)
    monkeypatch.setattr(module, "missing_reason", lambda: "There is no detector.")
    (talk,) = transcripts(run(ScriptedListener(by_peak), sound(0.2, 0.3)))
    assert talk.skipped == () and talk.text == "number 30" and talk.notes == ("There is no detector.",)


def test_ten_hours_of_noise_take_bounded_memory(monkeypatch):
    """No window, nothing kept: an hour here, block by block."""
    kept = []

    class Noise(module.SoundStream):
        def blocks(self):
            block = np.full(60 * RATE, 0.01, np.float32)
            for _ in range(60):
                kept.append(sum(len(w._sound._samples) for s in sources for w in s.windowers))
                yield [block]

    sources = []
    original = module._Source

    def made(*args, **options):
        sources.append(original(*args, **options))
        return sources[-1]

    monkeypatch.setattr(module, "_Source", made)
    monkeypatch.setattr(module, "SoundStream", Noise)
    (end,) = run(ScriptedListener(by_peak), "x")
    assert end.transcript.segments == () and end.transcript.skipped == ((0, 3600),)
    assert max(kept) < 2 * RATE


def test_threads_are_not_left_behind():
    before = threading.active_count()
    run(ScriptedListener(by_peak), sound(0.2))
    assert threading.active_count() == before
