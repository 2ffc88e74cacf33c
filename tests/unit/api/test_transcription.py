"""`m.transcribe` and `m.translate` on the bundled checkpoint: a recording says what its utterances say alone."""

import numpy as np
import pytest

import qwen2_audio as qa
from qwen2_audio.audio.io import load
from qwen2_audio.errors import AudioError, ConfigError
from qwen2_audio.longform.settings import TranscriptionSettings
from qwen2_audio.longform.transcript import Segment, Transcript

RATE = 16_000
CLIPS = ("capital", "command", "sum")


@pytest.fixture(scope="module")
def nano():
    return qa.load()


@pytest.fixture(scope="module")
def utterances():
    return [load(qa.nano_path() / "clips" / f"{name}.wav") for name in CLIPS]


@pytest.fixture(scope="module")
def recording(utterances):
    pause = np.zeros(round(1.2 * RATE), np.float32)
    return np.concatenate([part for clip in utterances for part in (pause, clip)] + [pause])


def test_a_recording_says_what_its_utterances_say_alone(nano, utterances, recording):
    talk = nano.transcribe(recording)
    assert isinstance(talk, Transcript) and len(talk.segments) == len(CLIPS)
    alone = [segment.text for clip in utterances for segment in nano.transcribe(clip).segments]
    assert [segment.text for segment in talk.segments] == alone and all(alone)
    assert talk.seconds == pytest.approx(len(recording) / RATE)
    heard = talk.seconds - sum(end - start for start, end in talk.skipped)
    assert 0.5 * talk.seconds < heard < talk.seconds
    assert all(segment.confidence > 0.5 and not segment.flags for segment in talk.segments)


def test_the_answers_of_chat(nano, utterances):
    question = qa.SamplingParams(temperature=0.0, repetition_penalty=1.0)
    (talk,) = [nano.transcribe(utterances[0], everything=True)]
    answer = nano.chat([qa.user("Transcribe the speech.", audio=utterances[0])], question)
    assert talk.text == answer.text.strip() and talk.segments[0].end == pytest.approx(
        len(utterances[0]) / RATE, abs=0.5
    )


def test_streams(nano, recording, utterances):
    segments = nano.transcribe(recording, stream=True)
    first = next(segments)
    assert isinstance(first, Segment)
    assert [s.text for s in (first, *segments)] == [s.text for s in nano.transcribe(recording).segments]
    both = list(nano.transcribe([recording, utterances[0]], stream=True))
    assert [type(each) for each in both] == [Transcript, Transcript]
    assert [t.text for t in both] == [t.text for t in nano.transcribe([recording, utterances[0]])]


def test_saves(nano, recording, tmp_path):
    path = nano.transcribe(recording).save(tmp_path / "talk.srt")
    assert path.read_text().count("-->") == len(CLIPS)


def test_translation_asks_for_the_language(nano, utterances):
    talk = nano.translate(utterances[0], to="english")
    assert (talk.task, talk.language) == ("translate", "en")
    with pytest.raises(ConfigError, match="to is 'auto'; expected the language to translate into"):
        nano.translate(utterances[0], to="auto")
    with pytest.raises(ConfigError, match="language is 'xx'; expected one of ar"):
        nano.translate(utterances[0], to="xx")


def test_silence_and_what_cannot_be_read(nano, recording):
    silent = nano.transcribe(np.zeros(3 * RATE, np.float32))
    assert (silent.text, silent.segments, silent.skipped) == ("", (), ((0.0, 3.0),))
    with pytest.raises(AudioError, match="No such file"):
        nano.transcribe("gone.wav")
    with pytest.raises(AudioError, match="No such file"):
        nano.transcribe([recording, "gone.wav"])
    with pytest.raises(ConfigError, match="empty list"):
        nano.transcribe([])


def test_forms_of_sound(nano, utterances):
    text = nano.transcribe(utterances[0]).text
    assert nano.transcribe((utterances[0], RATE)).text == text
    assert nano.transcribe({"array": utterances[0], "sampling_rate": RATE}).text == text
    assert nano.transcribe(str(qa.nano_path() / "clips" / "capital.wav")).text == text
    (talk,) = nano.transcribe([str(qa.nano_path() / "clips" / "capital.wav")])
    assert talk.name.endswith("capital.wav")


def test_nano_hears_one_utterance_a_window(nano):
    assert nano.transcription.merge is False and "Nobody is speaking." in nano.transcription.no_speech
    assert TranscriptionSettings().merge
