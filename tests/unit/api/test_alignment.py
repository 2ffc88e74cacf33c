"""Times of words on the bundled checkpoint: of transcripts, and of texts that are known."""

import numpy as np
import pytest

import qwen2_audio as qa
from qwen2_audio.audio.io import load
from qwen2_audio.errors import ConfigError
from qwen2_audio.longform.transcript import Transcript

RATE = 16_000
TEXTS = {"capital": "What is the capital of France?", "command": "Say hello to Anna.", "sum": "What is two plus two?"}


@pytest.fixture(scope="module")
def nano():
    return qa.load()


@pytest.fixture(scope="module")
def clips():
    return {name: load(qa.nano_path() / "clips" / f"{name}.wav") for name in ("capital", "command", "sum")}


@pytest.fixture(scope="module")
def recording(clips):
    """The three with pauses of 1.2 s, and where each begins."""
    pause, parts, starts, position = np.zeros(round(1.2 * RATE), np.float32), [], [], 0
    for clip in clips.values():
        parts += [pause, clip]
        starts.append((position + len(pause)) / RATE)
        position += len(pause) + len(clip)
    return np.concatenate([*parts, pause]), starts


@pytest.fixture(scope="module")
def talk(nano, recording):
    return nano.transcribe(recording[0], word_timestamps=True)


def test_transcripts_have_words_with_times(nano, talk, recording, clips):
    samples, starts = recording
    assert [segment.timing for segment in talk.segments] == ["aligned"] * 3
    for segment, start, clip in zip(talk.segments, starts, clips.values(), strict=True):
        times = [time for word in segment.words for time in (word.start, word.end)]
        assert times == sorted(times) and "".join(word.text for word in segment.words).split() == segment.text.split()
        assert start - 0.01 <= times[0] < start + 0.4 and segment.start == times[0]
        assert start + len(clip) / RATE - 0.5 < times[-1] <= start + len(clip) / RATE + 0.1 and segment.end == times[-1]
        assert all(0 < word.confidence <= 1 for word in segment.words)
    assert all(word.start is None for word in nano.transcribe(samples).words)


def test_a_known_text_gets_the_times_of_its_transcript(nano, talk, recording, tmp_path):
    """Over all windows laid end to end, the words lie where each window alone has them."""
    lines = [segment.text for segment in talk.segments]
    aligned = nano.align(recording[0], "\n".join(lines))
    assert isinstance(aligned, Transcript) and [segment.text for segment in aligned.segments] == lines
    assert [word.start for word in aligned.words] == pytest.approx([word.start for word in talk.words], abs=0.03)
    assert all(word.confidence > 0.0003 for word in aligned.words) and aligned.notes == talk.notes
    assert aligned.save(tmp_path / "talk.ctm").read_text().count("\n") == len(talk.words)
    assert nano.align(recording[0], " ".join(lines)).words[3].start == aligned.words[3].start


def test_words_that_are_not_said_have_no_times(nano, clips, talk):
    text = f"{talk.segments[0].text} Zigzag quixotic fuzzy jukebox."
    aligned = nano.align(clips["capital"], text)
    lost = [word.text for word in aligned.words if word.start is None]
    assert len(lost) >= 2 and aligned.notes == (
        f"{len(lost)} of {len(aligned.words)} words were not found in the sound, and have no times.",
    )


def test_what_cannot_be_aligned(nano, clips, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="The text has no words"):
        nano.align(clips["sum"], "... \u2014")
    with pytest.raises(ConfigError, match="s of speech, too little for 1500 letters"):
        nano.align(clips["sum"], "hello " * 300)
    with pytest.raises(ConfigError, match=r"align\(\) got list as text"):
        nano.align(clips["sum"], ["hello"])
    with pytest.raises(ConfigError, match="There is no aligner"):
        qa.load("nano", aligner=tmp_path / "gone.safetensors")


def test_without_an_aligner_word_times_are_refused_before_anything_is_computed(nano, clips, monkeypatch):
    from qwen2_audio.longform.word_times import Aligner

    service = nano.service()
    monkeypatch.setattr(service, "aligner", Aligner(nano.model.audio_tower, None, "this one"))
    monkeypatch.setattr(service, "submit", lambda *_, **__: pytest.fail("it was asked"))
    with pytest.raises(ConfigError, match="Times of words need an aligner, and this one has none"):
        nano.transcribe(clips["sum"], word_timestamps=True)
    with pytest.raises(ConfigError, match="Times of words need an aligner"):
        nano.align("gone.wav", "hello")


def test_speakers(nano, recording, tmp_path):
    samples, starts = recording
    path = tmp_path / "who.rttm"
    turns = (0.0, starts[1], "ann"), (starts[1], 9.0, "ben")
    path.write_text("".join(f"SPEAKER talk 1 {at} {long} <NA> <NA> {name} <NA> <NA>\n" for at, long, name in turns))
    talk = nano.transcribe(samples, word_timestamps=True, speakers=path)
    assert [segment.speaker for segment in talk.segments] == ["ann", "ben", "ben"]
    assert {word.speaker for word in talk.segments[1].words} == {"ben"}
    assert nano.align(samples, talk.text, speakers=path).segments[0].speaker == "ann"
    with pytest.raises(ConfigError, match="has no speakers of 'Sound 1'"):
        nano.transcribe([samples, samples], speakers=path)
