"""Sentences by pauses and by words' times; a window's segments with times and speakers."""

import numpy as np
import pytest

from qwen2_audio.longform.speakers import Turn
from qwen2_audio.longform.transcript import Segment, Word, split_words
from qwen2_audio.longform.windows import Window
from qwen2_audio.longform.word_times import WordSpan
from qwen2_audio.longform.word_times_pauses import by_pauses, by_words, sentences_of
from qwen2_audio.longform.word_times_segments import SegmentTimes

RATE = 16_000


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One two. Three? Four", ["One two.", " Three?", " Four"]),
        ("Dr. Brown met Mr. A. Smith.", ["Dr. Brown met Mr. A. Smith."]),
        ("He asked why? and left.", ["He asked why? and left."]),
        ('"Stop!" She ran.', ['"Stop!"', " She ran."]),
        ("你好。再见。", ["你好。", "再见。"]),
        ("It costs 2.50 now.", ["It costs 2.50 now."]),
    ],
)
def test_where_sentences_end(text, sentences):
    words = split_words(text)
    assert ["".join(words[first:end]) for first, end in sentences_of(words)] == sentences


def runs(*spans, seconds):
    samples = np.zeros(round(seconds * RATE), np.float32)
    for start, end in spans:
        part = slice(round(start * RATE), round(end * RATE))
        samples[part] = np.random.default_rng(0).uniform(-0.2, 0.2, part.stop - part.start)
    return samples


def test_sentences_begin_with_the_runs_of_sound_that_are_as_long_as_they():
    text = "The short one. A sentence that is said for three times as long as it. Again."
    samples = runs((0.2, 1.0), (1.6, 3.0), (3.2, 5.0), (5.9, 6.3), seconds=6.5)
    parts = by_pauses(Segment(10.0, 16.5, text, confidence=0.9), samples)
    assert [part.text for part in parts] == text.replace(". ", ".|").split("|")
    assert [part.start for part in parts] == pytest.approx([10.2, 11.6, 15.9], abs=0.03)
    assert [part.end for part in parts] == pytest.approx([11.0, 15.0, 16.3], abs=0.03)
    assert {part.timing for part in parts} == {"estimated"} and {part.confidence for part in parts} == {0.9}


def test_one_sentence_and_silence_stay_as_they_are():
    segment = Segment(0.0, 2.0, "Only one.")
    assert by_pauses(segment, runs((0.5, 1.5), seconds=2.0)) == [segment]
    segment = Segment(0.0, 2.0, "One. Two.")
    assert by_pauses(segment, np.zeros(2 * RATE, np.float32)) == [segment]


def timed(text, start, end, *tokens):
    return Word(text, start, end, 0.5, tokens=tokens)


def test_sentences_by_words_have_their_own_tokens():
    words = (
        timed("One", 1.0, 1.2, 7),
        timed(" two.", 1.2, 1.5, 8, 9),
        Word(" \u2014", None, None),
        timed(" Three.", 3.0, 3.4, 4),
    )
    first, second = by_words(Segment(0.5, 4.0, "One two. \u2014 Three.", words=words, tokens=(7, 8, 9, 4, 0)))
    assert (first.start, first.end, first.text, first.tokens) == (1.0, 1.5, "One two.", (7, 8, 9))
    assert (second.start, second.end, second.text, second.timing) == (3.0, 3.4, "\u2014 Three.", "aligned")
    (whole,) = by_words(Segment(0.5, 4.0, "One two", words=words[:2], tokens=(7, 8, 0)))
    assert (whole.start, whole.end, whole.tokens) == (1.0, 1.5, (7, 8, 0))


class Metronome:
    """A word a second."""

    def ensure_available(self):
        pass

    def words(self, samples, words, start=0.0):
        self.given = len(samples)
        return [WordSpan(start + n, start + n + 0.5, 0.9) if "x" not in word else None for n, word in enumerate(words)]


def test_a_windows_segments_get_the_times_of_their_words_and_the_speakers():
    timer, window = Metronome(), Window(2 * RATE, np.ones(8 * RATE, np.float32), np.zeros(0, np.float32))
    segments = [Segment(2.0, 5.0, "a b. C", confidence=0.9), Segment(6.0, 10.0, "d x")]
    turns = [(Turn(2.0, 3.9, "ann"), Turn(4.0, 9.0, "ben"))]
    found = SegmentTimes(timer, turns).applied(window, segments)
    assert [(s.text, s.start, s.end, s.speaker, s.timing) for s in found] == [
        ("a b.", 2.0, 3.5, "ann", "aligned"), ("C", 4.0, 4.5, "ben", "aligned"), ("d x", 5.5, 6.0, "ben", "aligned"),
    ]  # fmt: skip
    assert timer.given == round(4.5 * RATE)  # from the middle of the pause on
    assert [(word.text, word.start, word.speaker) for word in found[2].words] == [
        ("d", 5.5, "ben"),
        (" x", None, "ben"),
    ]
    assert SegmentTimes().applied(window, segments[1:]) == segments[1:]
    empty = Segment(2.0, 10.0, "", flags=("refusal",))
    assert SegmentTimes(timer).applied(window, [empty]) == [empty]
