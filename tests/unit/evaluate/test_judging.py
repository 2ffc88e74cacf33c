"""Judges: what they are asked, how replies are read, what is kept, and what a bad judge does."""

import json
from dataclasses import replace

import pytest

from qwen2_audio.errors import EvaluationError
from qwen2_audio.evaluate.endpoint import EndpointDownError
from qwen2_audio.evaluate.example import Prediction
from qwen2_audio.evaluate.judge import forms
from qwen2_audio.evaluate.judge.judging import JUDGEMENTS, judge_answers, read_judgements, summary
from qwen2_audio.evaluate.question import Answer
from qwen2_audio.evaluate.registry.tasks import find_task

CHAT, OPEN = find_task("airbench-chat"), find_task("voicebench-alpaca")


def answered(number, text="A dog barks.", task=CHAT, **columns):
    columns = {"meta_info": "a dog, barking", "question": "What is it?", **columns}
    return Prediction(f"k{number}", task.id, f"row{number}", "sound_QA", "a.wav", text, "A dog.", columns=columns)


class Judge:
    """Gives `replies` in turn, and raises those that are errors."""

    name, fingerprint, in_flight = "judge", "abc", 2

    def __init__(self, *replies):
        self.replies, self.asked = list(replies), []

    def submit(self, question):
        self.asked.append(question)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

        def wait():
            if isinstance(reply, Exception):
                raise reply
            return Answer(reply, 2, "stop")

        return wait


def test_both_orders_are_asked_greedily_word_for_word(tmp_path):
    judge = Judge("7 9", "8 6")
    run = judge_answers(tmp_path, judge, [CHAT], [answered(1)])
    first, second = (question.prompt for question in judge.asked)
    assert "[The Start of Assistant 1s Answer]\nA dog.\n" in first
    assert (
        "[The Start of Assistant 2s Answer]\nA dog barks.\n" in first
        and "\na dog, barking\n[Question]\nWhat is it?\n" in first
    )
    assert "[The Start of Assistant 1s Answer]\nA dog barks.\n" in second
    assert all(question.params.temperature == 0 and question.waveform is None for question in judge.asked)
    assert (run.asked, run.kept, run.judge) == (2, 0, "judge@abc")
    (said,) = read_judgements(tmp_path, [CHAT], [answered(1)]).values()
    assert [(one.reply, one.swapped) for one in said] == [("7 9", False), ("8 6", True)]


def test_an_answer_that_holds_a_placeholder_stays_as_it_is():
    text = forms.FORMS["airbench_chat"].text(answered(1, "XQuestionX and XAssistant1X"), swapped=False)
    assert "XQuestionX and XAssistant1X\n[The End of Assistant 2s" in text
    text = forms.FORMS["airbench_chat"].text(answered(1, "XAssistant2X"), swapped=True)
    assert "[The Start of Assistant 1s Answer]\nXAssistant2X\n" in text


def test_replies_are_kept_and_not_asked_for_again(tmp_path):
    rows = [answered(1), answered(2)]
    judge_answers(tmp_path, Judge("7 9"), [CHAT], rows[:1])
    again = Judge("5 5")
    run = judge_answers(tmp_path, again, [CHAT], [rows[0], replace(rows[1], text="A cat.")])
    assert (run.asked, run.kept) == (2, 2) and len(again.asked) == 2
    same = replace(rows[0], id="row3")  # another row with the same question and the same answer
    run = judge_answers(tmp_path, again, [CHAT], [same])
    assert (run.asked, run.kept) == (0, 2) and len(again.asked) == 2
    (said,) = read_judgements(tmp_path, [CHAT], [same]).values()
    assert [one.id for one in said] == ["row3", "row3"]


def test_judgements_of_an_earlier_answer_do_not_count(tmp_path):
    judge_answers(tmp_path, Judge("7 9"), [CHAT], [answered(1)])
    assert read_judgements(tmp_path, [CHAT], [answered(1, "Something else.")]) == {}


def test_two_judges_are_kept_apart(tmp_path):
    judge_answers(tmp_path, Judge("7 9"), [CHAT], [answered(1)])
    other = Judge("1 2")
    other.name, other.fingerprint = "other", "endpoint:other"
    judge_answers(tmp_path, other, [CHAT], [answered(1)])
    found = read_judgements(tmp_path, [CHAT], [answered(1)])
    assert {name: said[0].reply for name, said in found.items()} == {"judge@abc": "7 9", "other": "1 2"}


def test_some_nonsense_is_told_and_all_nonsense_is_an_error(tmp_path):
    run = judge_answers(tmp_path, Judge("7 9", "I cannot judge this."), [CHAT], [answered(1)])
    assert summary(run)[1] == "1 of them hold no score and are left out, such as 'I cannot judge this.' on row1."
    with pytest.raises(
        EvaluationError, match=r"judge@abc gave no score in any of 2 replies; the first is 'Great!'\. They"
    ):
        judge_answers(tmp_path, Judge("Great!"), [CHAT], [answered(2, "Woof.")])


def test_a_judge_that_is_down_loses_no_reply(tmp_path):
    rows = [answered(number, f"answer {number}") for number in range(3)]
    down = EndpointDownError("The judge does not answer.")
    with pytest.raises(EndpointDownError):
        judge_answers(tmp_path, Judge("7 9", "7 8", "7 7", down), [CHAT], rows)
    lines = (tmp_path / JUDGEMENTS).read_text().splitlines()
    assert [json.loads(line)["reply"] for line in lines] == ["7 9", "7 8", "7 7"]
    (tmp_path / JUDGEMENTS).write_text("\n".join(lines) + '\n{"key": "torn')
    run = judge_answers(tmp_path, Judge("5 5"), [CHAT], rows)
    assert (run.asked, run.kept) == (3, 3)


def test_rows_without_an_answer_and_tasks_without_a_judge(tmp_path):
    failed = replace(answered(1), text="", error="No such file.")
    with pytest.raises(EvaluationError, match="is for a judge"):
        judge_answers(tmp_path, Judge("7 9"), [CHAT], [failed, answered(2, "  ")])
    with pytest.raises(EvaluationError, match="is for a judge: meld"):
        judge_answers(tmp_path, Judge("7 9"), [find_task("meld")], [answered(1, task=find_task("meld"))])


def test_voicebench_asks_with_its_system_prompt(tmp_path):
    judge = Judge("4")
    judge_answers(tmp_path, judge, [OPEN], [answered(1, task=OPEN, prompt="Name a dog.")])
    (asked,) = judge.asked
    assert asked.system.startswith("You are a helpful assistant who tries")
    assert "### [Instruction]: Name a dog.\n### [Response]: A dog barks.\n" in asked.prompt


@pytest.mark.parametrize(
    ("parse", "reply", "value"),
    [
        (forms.parse_two, "7 9", (7, 9)), (forms.parse_two, " 10 0\n", (10, 0)), (forms.parse_two, "7  9", None),
        (forms.parse_two, "11 3", None), (forms.parse_two, "7.5 8", None), (forms.parse_two, "Scores: 7 9", None),
        (forms.parse_one_to_five, "4", (4,)), (forms.parse_one_to_five, "4.5 ", (4.5,)),
        (forms.parse_one_to_five, "I say [[3]].", (3,)), (forms.parse_one_to_five, "7", None),
        (forms.parse_one_to_five, "four", None),
        (forms.parse_yes_no, "Yes.", (1,)), (forms.parse_yes_no, "no", (0,)), (forms.parse_yes_no, "Yes and no", None),
        (forms.parse_rating, "Rating: [[7]]", (70,)), (forms.parse_rating, "[[3]] no, [[8]]", (80,)),
        (forms.parse_rating, "[[12]]", None), (forms.parse_rating, "7", None),
        (forms.parse_points, "因此得4分，得分是[4]", (80,)), (forms.parse_points, "[6]", None),
        (forms.parse_the_score, "equivalent, the score is [Correct]", (1,)),
        (forms.parse_the_score, "The score is [incorrect].", (0,)), (forms.parse_the_score, "Correct", None),
        (forms.parse_judgment, '{"analysis": "it is", "judgment": "correct"}', (1,)),
        (forms.parse_judgment, "```json\n{\"analysis\": \"no\", \"judgment\": \"incorrect\"}\n```", (0,)),
        (forms.parse_judgment, "{'analysis': 'x', 'judgment': 'correct'}", (1,)),
        (forms.parse_judgment, '{"judgment": "perhaps"}', None), (forms.parse_judgment, "correct", None),
    ],
)  # fmt: skip
def test_replies_are_read_as_the_authors_read_them(parse, reply, value):
    assert parse(reply) == value


def test_doubled_braces_become_single_ones():
    form = forms.FORMS["openaudiobench_trivia_qa"]
    text = form.text(answered(1, task=find_task("openaudiobench-trivia")), swapped=False)
    assert '{"analysis"' in text and "{{" not in text and "}}" not in text
