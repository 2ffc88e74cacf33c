"""Transcripts as files, read back by the readers that people use."""

import io
import json
import os
from itertools import pairwise

import pysubs2
import pytest
import srt
import webvtt
from hypothesis import example, given
from hypothesis import strategies as st

from qwen2_audio.errors import ConfigError
from qwen2_audio.longform.cues import CueShape, cues_of
from qwen2_audio.longform.formats import FORMATS, format_of, formats_of, verbose_object, write
from qwen2_audio.longform.transcript import Segment, Transcript, Word, join_texts, main_language, split_words

WORDS = (Word(" a", 62.0, 62.2, 0.9), Word(" <", 62.2, 62.3, 0.8), Word(" b", 62.3, 63.0, None))
TALK = Transcript(
    (
        Segment(0.0, 1.2345, "Hello there.", "en", 0.97, tokens=(5, 6), avg_logprob=-0.03, no_speech_prob=0.01),
        Segment(2.0, 2.0004, 'He said "no" & c --> d', "en", flags=("repetition",), raw="'He said'"),
        Segment(62.0, 63.5, "a < b", "fr", words=WORDS, timing="aligned"),
        Segment(3661.5, 3662.0, "", "en"),
        Segment(360_000.0, 360_001.0, "a hundred hours\n\nlater"),
    ),
    360_002.5, "en", ((1.2345, 2.0),), ("A note.",), name="my talk.mp3",
)  # fmt: skip
TIMES = [(0, 1234), (2000, 2001), (62_000, 63_500), (360_000_000, 360_001_000)]
TEXTS = ["Hello there.", 'He said "no" & c --> d', "a < b", "a hundred hours\nlater"]


def test_srt():
    text = write(TALK, "srt")
    cues = list(srt.parse(text))
    assert [cue.index for cue in cues] == [1, 2, 3, 4]
    assert [(round(c.start.total_seconds() * 1000), round(c.end.total_seconds() * 1000)) for c in cues] == TIMES
    assert [cue.content for cue in cues] == [t.replace("-->", "->") for t in TEXTS]
    assert len(pysubs2.SSAFile.from_string(text)) == 4
    assert text.startswith("1\n00:00:00,000 --> 00:00:01,234\nHello there.\n\n2\n")
    assert "100:00:00,000" in text


def test_vtt():
    text = write(TALK, "vtt")
    cues = list(webvtt.from_buffer(io.StringIO(text)))
    assert [(c.start, c.end) for c in cues][:2] == [("00:00:00.000", "00:00:01.234"), ("00:00:02.000", "00:00:02.001")]
    assert 'He said "no" &amp; c --&gt; d' in text and "a &lt; b" in text
    assert len(cues) == 4 and len(pysubs2.SSAFile.from_string(text)) == 4
    assert "NOTE" not in text


def test_a_voice_in_vtt():
    talk = Transcript((Segment(0, 1, "Hi.", speaker="A & <B>"), Segment(0.5, 2, "Yes?", channel=1)), 2.0)
    text = write(talk, "vtt")
    assert "<v A &amp; &lt;B&gt;>Hi." in text and "<v Channel 2>Yes?" in text
    assert [cue.end for cue in webvtt.from_buffer(io.StringIO(text))] == ["00:00:00.500", "00:00:02.000"]
    assert write(talk, "txt") == "A & <B>: Hi.\nChannel 2: Yes?\n"


def test_tsv_txt_and_lrc():
    rows = [line.split("\t") for line in write(TALK, "tsv").splitlines()]
    assert rows[0] == ["start", "end", "text"]
    assert [(int(a), int(b)) for a, b, _ in rows[1:]] == TIMES
    assert rows[4][2] == "a hundred hours later"
    assert write(TALK, "txt").splitlines()[0] == "Hello there."
    assert write(TALK, "lrc").splitlines()[2:] == ["[01:02.00]a < b", "[6000:00.00]a hundred hours later"]


def test_json_has_whispers_names_and_more():
    value = json.loads(write(TALK, "json"))
    whisper = {
        "id",
        "seek",
        "start",
        "end",
        "text",
        "tokens",
        "temperature",
        "avg_logprob",
        "compression_ratio",
        "no_speech_prob",
    }
    assert whisper <= set(value["segments"][0])
    assert value["text"] == TALK.text and value["language"] == "en" and value["notes"] == ["A note."]
    assert value["skipped"] == [{"start": 1.234, "end": 2.0}] or value["skipped"] == [{"start": 1.235, "end": 2.0}]
    assert value["segments"][1]["flags"] == ["repetition"] and value["segments"][1]["raw"] == "'He said'"
    assert value["segments"][2]["words"][0] == {"word": " a", "start": 62.0, "end": 62.2, "probability": 0.9}
    assert value == TALK.to_dict()


def test_verbose_json():
    from openai.types.audio import TranscriptionVerbose

    value = verbose_object(TALK, words=True)
    parsed = TranscriptionVerbose.model_validate(value)
    assert [word.word for word in parsed.words] == ["a", "<", "b"]
    assert [s.start for s in parsed.segments] == sorted(s.start for s in parsed.segments)
    assert "words" not in verbose_object(TALK)
    assert json.loads(write(TALK, "verbose_json")) == value


def test_textgrid(tmp_path):
    textgrid = pytest.importorskip("praatio.textgrid")
    path = TALK.save(tmp_path / "talk.TextGrid")
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True)
    assert grid.tierNames == ("segments", "words")
    segments = grid.getTier("segments").entries
    assert segments[0].start == 0 and segments[-1].end == grid.maxTimestamp == 360_002.5
    assert all(a.end == b.start for a, b in pairwise(segments))
    assert [e.label for e in segments if e.label] == [t.replace("\n", " ") for t in TEXTS]
    assert [e.label for e in grid.getTier("words").entries if e.label] == ["a", "<", "b"]


def test_ctm():
    assert write(TALK, "ctm").splitlines() == [
        "my_talk 1 62.000 0.200 a 0.900",
        "my_talk 1 62.200 0.100 < 0.800",
        "my_talk 1 62.300 0.700 b",
    ]
    with pytest.raises(ConfigError, match="ctm holds a time for each word, and this transcript has none"):
        write(Transcript((Segment(0, 1, "a"),), 1.0), "ctm")


def test_a_silent_sound():
    silent = Transcript((), 3.0)
    assert write(silent, "srt") == "" and write(silent, "vtt") == "WEBVTT\n" and write(silent, "ctm") == ""
    assert json.loads(write(silent, "json"))["segments"] == []


def test_save(tmp_path):
    assert TALK.save(tmp_path / "talk.srt").read_bytes() == write(TALK, "srt").encode()
    assert (TALK.save(str(tmp_path / "talk"), "vtt")).read_text() == write(TALK, "vtt")
    with pytest.raises(ConfigError, match=r"talk.doc ends in none of .srt, .vtt"):
        TALK.save(tmp_path / "talk.doc")
    with pytest.raises(ConfigError, match=r"'stt' is no format of transcripts.*srt"):
        TALK.save(tmp_path / "talk.srt", "stt")
    assert sorted(os.listdir(tmp_path)) == ["talk", "talk.srt"]


def test_a_disk_that_fills_leaves_the_old_file(tmp_path, monkeypatch):
    from pathlib import Path

    path = TALK.save(tmp_path / "talk.srt")

    def full(self, text, **_):
        self.open("w").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        Transcript((), 1.0).save(path)
    assert path.read_bytes() == write(TALK, "srt").encode() and os.listdir(tmp_path) == ["talk.srt"]


def test_names_of_formats():
    assert formats_of(["srt,VTT", "json"]) == ["srt", "vtt", "json"]
    assert formats_of(["all"]) == ["txt", "vtt", "srt", "tsv", "json"]
    with pytest.raises(ConfigError, match=r"'sbv' is no format of transcripts; expected all, or some of srt"):
        formats_of(["sbv"])
    from pathlib import Path

    assert format_of(Path("a.VERBOSE.json")) == "verbose_json" and format_of(Path("a.json")) == "json"


def test_texts_of_scripts_without_blanks_are_joined_without():
    assert join_texts(["你好。", "世界", "Hello", "", " there "]) == "你好。世界 Hello there"
    assert split_words("Hi 你好 you") == ["Hi", " 你", "好", " you"]
    assert main_language([Segment(0, 9, "a", "en"), Segment(9, 10, "b", "fr"), Segment(10, 99, "", "de")]) == "en"


SENTENCE = (
    "The quick brown fox, who was hungry, jumps over the lazy dog. It was a cold day in the north, and nobody saw it."
)


def test_cues_that_a_viewer_can_read():
    talk = Transcript((Segment(10.0, 20.0, SENTENCE),), 30.0)
    cues = cues_of(talk, CueShape(max_line_width=42, max_line_count=2, max_seconds=7))
    assert " ".join(line for cue in cues for line in cue.lines) == SENTENCE
    assert all(len(line) <= 42 for cue in cues for line in cue.lines) and all(len(cue.lines) <= 2 for cue in cues)
    assert cues[0].lines[-1].endswith("dog.")  # it ends with the sentence, and not where it is full
    assert cues[0].start == 10_000 and cues[-1].end == 20_000 and all(cue.estimated for cue in cues)
    assert "NOTE Some times are estimated" in write(talk, "vtt", CueShape(max_seconds=4))
    balanced = cues_of(
        Transcript((Segment(0, 3, "one two three four five six seven eight nine ten"),), 3.0), CueShape(40, 2)
    )
    assert balanced[0].lines == ("one two three four five", "six seven eight nine ten")


def test_cues_by_known_times_of_words():
    words = tuple(Word(f" w{n}.", n * 1.0, n * 1.0 + 0.5) for n in range(6))
    talk = Transcript((Segment(0, 6, " w0. w1. w2. w3. w4. w5.", words=words),), 6.0)
    cues = cues_of(talk, CueShape(max_seconds=2.6))
    assert [(cue.start, cue.end) for cue in cues] == [(0, 2500), (3000, 5500)]
    assert not any(cue.estimated for cue in cues)


def test_a_cue_stays_to_be_read_where_there_is_time():
    talk = Transcript((Segment(0, 1, "x" * 40), Segment(1.5, 2, "y" * 40)), 9.0)
    first, last = cues_of(talk, CueShape(max_characters_per_second=20))
    assert (first.end, last.end) == (1500, 3500)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"max_line_width": 0}, "max_line_width is 0; expected a number above 0"),
        ({"max_line_count": 2}, "max_line_count needs max_line_width"),
    ],
)
def test_shapes_that_cannot_work(values, sentence):
    with pytest.raises(ConfigError, match=sentence):
        CueShape(**values)


segments = st.lists(
    st.builds(
        lambda start, length, text, channel: Segment(start, start + length, text, channel=channel),
        st.floats(0, 5000), st.floats(0, 40), st.text(max_size=80), st.sampled_from([None, 0, 1]),
    ),
    max_size=8,
)  # fmt: skip
shapes = st.one_of(
    st.none(),
    st.builds(CueShape, st.integers(5, 50), st.integers(1, 3), st.floats(0.5, 9), st.none() | st.floats(5, 30)),
)


@example(segments=[Segment(0.0, 4.0, "0\x850"), Segment(0.0, 0.0, "0")], shape=CueShape(5, 1, 1.0, 5.0))
@given(segments=segments, shape=shapes)
def test_any_transcript_can_be_read_back(segments, shape):
    talk = Transcript(tuple(segments), 6000.0)
    cues = cues_of(talk, shape)
    assert all(a.end <= b.start or a.end == a.start + 1 for a, b in pairwise(cues))
    assert all(cue.end > cue.start and cue.lines and all(cue.lines) for cue in cues)
    assert [cue.start for cue in cues] == sorted(cue.start for cue in cues)
    assert len(list(webvtt.from_buffer(io.StringIO(write(talk, "vtt", shape))))) == len(cues)
    assert len(list(srt.parse(write(talk, "srt", shape)))) == len(cues)
    for format in FORMATS:
        if format != "ctm":
            assert isinstance(write(talk, format, shape), str)
    letters = "".join("".join(cue.lines) for cue in cues)
    spoken = "".join(s.text for s in sorted(segments, key=lambda s: s.start))
    assert "".join(letters.split()) == "".join(spoken.split())
