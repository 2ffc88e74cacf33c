"""Questions about long recordings are worded as the package words them; a part that holds no answer is said to."""

import numpy as np
import pytest

from qwen2_audio.evaluate.nano.long_recordings import (
    NOTHING,
    about_notes,
    about_transcript,
    ask_part,
    part_sentence,
    said_about,
    topics,
)
from qwen2_audio.evaluate.nano.mix import SPEECH, STRANGE, Clip
from qwen2_audio.evaluate.nano.people_questions import same_answer
from qwen2_audio.evaluate.nano.questions import abstains
from qwen2_audio.evaluate.nano.words import kinds_named
from qwen2_audio.longform.questions import notes, parts, wording
from qwen2_audio.longform.questions.recordings import Conversation, Recording
from qwen2_audio.longform.settings import TranscriptionSettings
from qwen2_audio.longform.windows import Window
from qwen2_audio.types import Part

SAID = Clip(SPEECH, 2.0, -20.0, "Ben lost a red car in the garden.", "happening", "Thank you.", "man")
LONG = Conversation(
    [{"role": "user", "content": [{"type": "audio", "audio": "x.wav"}, {"type": "text", "text": "What is said?"}]}],
    {},
    [Recording(1, 0, 0, "x.wav", "x", 60.0)],
)


def test_a_part_is_asked_about_word_for_word_as_the_package_does():
    window = Window(7 * 16_000, np.zeros(21 * 16_000, np.float32), speech=1.0)
    (message,) = parts.messages_about(LONG, 1, window, TranscriptionSettings())
    asked = [part["text"] for part in message["content"] if "text" in part]
    assert asked[0] == "What is said?"
    mine = part_sentence(np.random.default_rng(0))
    start, end = mine.split("from ")[1].split(" of ")[0].split(" to ")
    assert mine == wording.PART.format(start=start, end=end)
    assert asked[1] == mine.replace(f"{start} to {end}", "0:07 to 0:28")


def test_notes_are_put_word_for_word_as_the_package_does():
    head, question, tail, _ = about_notes(np.random.default_rng(0), "train")
    lines = [line for line in head.split("\n") if line.startswith("[")]
    given = [Part(0.0, 1.0, line.split("] ")[1]) for line in lines]
    (message,) = notes.messages_with(LONG, given, 60.0)
    asked = [part["text"] for part in message["content"]]
    assert len(asked) == 3 and question and tail == asked[2]
    mine, theirs = head.split("\n"), asked[0].split("\n")
    assert mine[0].split(" of ")[0] == theirs[0].split(" of ")[0] and mine[0].endswith(theirs[0][-46:])
    assert [line.split("] ")[-1] for line in mine[1:]] == [line.split("] ")[-1] for line in theirs[1:]]


@pytest.mark.parametrize("kind", ["dog", "noise", "silence", STRANGE])
def test_a_part_without_words_holds_nothing_that_was_said(kind):
    rng, answers = np.random.default_rng(1), set()
    for _ in range(200):
        question, answer = ask_part(Clip(kind, 2.0, -20.0), rng)
        answers.add(answer)
        assert "about" not in question or answer == NOTHING
    assert all(answer == NOTHING or abstains(answer) or kinds_named(answer) == {"dog"} for answer in answers)
    assert NOTHING in answers and (len(answers) > 1) == (kind in ("dog", STRANGE))


def test_a_part_with_words_answers_what_is_in_it_alone():
    rng = np.random.default_rng(2)
    asked = [ask_part(SAID, rng) for _ in range(400)]
    for question, answer in asked:
        if "about" in question:
            assert (answer == SAID.text) == any(name in question for name in ("Ben", "the car", "the garden"))
    assert {answer for _, answer in asked} >= {NOTHING, SAID.text, "I hear a man speaking."}


def test_what_is_said_about_a_thing_is_the_sentences_that_name_it():
    texts = ["Ben met Tom. The car is red.", "Tom sleeps.", "Tom sleeps."]
    assert said_about(texts, "tom") == "Ben met Tom. Tom sleeps."
    assert said_about(texts, "car") == "The car is red." and said_about(texts, "bag") == NOTHING
    assert topics("The cars are in Rome.") == ["rome"]


def test_the_answer_from_notes_has_all_of_them_once():
    rng = np.random.default_rng(3)
    for _ in range(150):
        head, question, _, answer = about_notes(rng, "test")
        texts = [line.split("] ")[1] for line in head.split("\n") if line.startswith("[")]
        if kinds_named(texts[0]) and "." in texts[0] and not topics(texts[0]):
            assert kinds_named(answer) == set.union(*map(kinds_named, texts))
        if "about" in question and "What is it in" not in question:
            assert answer == " ".join(dict.fromkeys(texts))
        assert len(texts) > 1


def test_the_answer_from_a_transcript_is_in_it_or_nothing():
    rng, found = np.random.default_rng(4), []
    for _ in range(150):
        head, _, answer = about_transcript(rng, "test")
        found.append(answer)
        assert answer == NOTHING or all(f"{one.rstrip('.?')}" in head for one in answer.split(". "))
        assert head.startswith("What is said in a recording of ") and head.endswith("\n\n")
    assert 0 < found.count(NOTHING) < 100


def test_a_sound_may_be_called_by_any_of_its_names():
    truth = "I hear a dog barking and a bell tolling."
    assert same_answer("This is the sound of a barking dog and a bell.", truth)
    assert not same_answer("I hear a dog barking.", truth) and not same_answer("A dog and a bell.", truth)
    assert not same_answer("I hear a man speaking.", "I hear a woman speaking.")
    assert same_answer("nothing", NOTHING) and not same_answer("I hear a dog barking.", NOTHING)
