"""Speakers from RTTM."""

import pytest

from qwen2_audio.errors import ConfigError
from qwen2_audio.longform.speakers import Speakers, Turn, label_speakers, label_transcript
from qwen2_audio.longform.transcript import Segment, Transcript, Word

RTTM = """;; made by a diariser
SPEAKER call 1 0.00 2.50 <NA> <NA> ann <NA> <NA>
SPEAKER call 1 2.50 2.50 <NA> <NA> ben <NA> <NA>
SPKR-INFO other 1 <NA> <NA> <NA> unknown cleo <NA> <NA>
SPEAKER other 1 1.00 1.00 <NA> <NA> cleo
"""
TURNS = (Turn(0.0, 2.5, "ann"), Turn(2.5, 5.0, "ben"))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "who.rttm"
    path.write_text(RTTM)
    return path


def test_turns_by_the_sounds_name(path):
    speakers = Speakers.read(path)
    assert speakers.turns_of("/calls/call.wav", alone=True) == TURNS
    assert speakers.turns_of("other.mp3", alone=False) == (Turn(1.0, 2.0, "cleo"),)
    with pytest.raises(ConfigError, match=r"has no speakers of 'talk'; it has those of call, other"):
        speakers.turns_of("talk.wav", alone=True)
    path.write_text(RTTM.splitlines()[1])
    only = Speakers.read(path)
    assert only.turns_of("talk.wav", alone=True) == TURNS[:1]  # the only recording of the only sound
    with pytest.raises(ConfigError, match="has no speakers of 'talk'"):
        only.turns_of("talk.wav", alone=False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1\n00:00:01 --> 00:00:02\nhello\n", r"who.rttm, line 1 is '1'; expected RTTM"),
        ("SPEAKER call 1 a 2 <NA> <NA> ann", "line 1: start and duration are a and 2; expected seconds"),
        ("SPEAKER call 1 1 -2 <NA> <NA> ann", "expected seconds of 0 or more"),
        ("\n", "names no speaker"),
    ],
)
def test_what_is_no_rttm(path, text, sentence):
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        Speakers.read(path)
    with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
        Speakers.read(path.with_name("gone.rttm"))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="it is no text in UTF-8"):
        Speakers.read(path)


def test_segments_get_who_speaks_most_of_the_time():
    segments = [Segment(0.0, 2.0, "a"), Segment(2.0, 4.0, "b"), Segment(6.0, 7.0, "c")]
    assert [segment.speaker for segment in label_speakers(segments, TURNS)] == ["ann", "ben", None]


def test_a_segment_with_times_of_words_is_cut_where_the_speaker_changes(path):
    words = (Word("Are", 2.0, 2.2), Word(" you?", 2.2, 2.45), Word(" -", None, None), Word(" Yes.", 2.6, 3.0))
    talk = Transcript((Segment(1.9, 3.2, "Are you? - Yes.", words=words),), 5.0, name="call.wav")
    first, second = label_transcript(talk, Speakers.read(path)).segments
    assert (first.text, first.speaker, first.start, first.end) == ("Are you? -", "ann", 1.9, 2.45)
    assert (second.text, second.speaker, second.start, second.end) == ("Yes.", "ben", 2.6, 3.2)
    assert [word.speaker for word in (*first.words, *second.words)] == ["ann", "ann", "ann", "ben"]
