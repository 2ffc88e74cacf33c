"""The second part of nano's examination: its rows, what is right, and that the first part does not change by it."""

import shutil

import pytest

from qwen2_audio.evaluate.nano.mix import SPEECH, Clip
from qwen2_audio.evaluate.nano.people_questions import people_questions
from qwen2_audio.evaluate.nano.questions import Question, answers_right, claims_no_wrong_fact
from qwen2_audio.evaluate.nano.tally import Tally
from qwen2_audio.evaluate.nano.world.facts import CHAT
from qwen2_audio.evaluate.nano.world.talk import SELF

ROWS = {
    "nano.people.typed.accuracy", "nano.people.talk.accuracy", "nano.people.sum.accuracy",
    "nano.people.number.accuracy", "nano.people.statement.accuracy", "nano.people.words.exact",
    "nano.people.lists.wer", "nano.people.part.nothing",
    "nano.people.part.accuracy", "nano.people.notes.accuracy", "nano.people.transcript.accuracy",
}  # fmt: skip


@pytest.mark.skipif(shutil.which("espeak-ng") is None or shutil.which("flite") is None, reason="needs speech")
def test_who_knows_all_has_every_row_right_and_who_says_nothing_one():
    right, silent, asked = Tally(), Tally(), list(people_questions(2))
    for question in asked:
        right.add(question, question.truth)
        silent.add(question, "Nothing.")
    rows = {row["name"]: row for row in right.rows()}
    assert set(rows) == ROWS  # and no row of the first part
    assert all(row["n"] == 2 and row["value"] == float("wer" not in name) for name, row in rows.items())
    assert {row["name"] for row in silent.rows() if row["value"] == 1 and "wer" not in row["name"]} == {
        "nano.people.part.nothing"
    }
    clips = [[p for p in q.messages[0]["content"] if p["type"] == "audio"] for q in asked]
    assert sum(map(len, clips)) == len(asked) - 6 and all(len(one) < 2 for one in clips)


def test_what_it_says_of_itself_today_is_right_where_it_was_taught_otherwise():
    assert answers_right(SELF, CHAT[1].answer) and answers_right(CHAT[1].answer, CHAT[1].answer)
    assert claims_no_wrong_fact(SELF, CHAT[1].answer)
    assert not answers_right(SELF, CHAT[0].answer) and not claims_no_wrong_fact(CHAT[0].answer, CHAT[1].answer)
    who = Clip(SPEECH, 1.0, -20.0, "Who are you?", "chat", CHAT[1].answer, "man")
    tally = Tally()
    tally.add(Question(("nano.voice_chat.accuracy",), [], who, who.answer, answers_right), SELF)
    rows = {row["name"]: row["value"] for row in tally.rows()}
    assert rows["nano.voice_chat.accuracy"] == 1 and rows["nano.voice_chat.wrong_fact_rate"] == 0
