"""IFEval's instructions, judges' replies, free answers: what counts and what does not."""

import sys

import pytest

from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate.example import Prediction
from qwen2_audio.evaluate.registry.tasks import TASKS
from qwen2_audio.evaluate.score.ifeval import INSTRUCTIONS, follows, sentences, variants
from qwen2_audio.evaluate.score.judged import references_of
from qwen2_audio.evaluate.score.judgement import Judgement
from qwen2_audio.evaluate.score.score import score
from qwen2_audio.evaluate.score.words import contains_reference, equals_reference, token_f1

AT_LEAST, LESS = "at least", "less than"
# Instruction, its arguments, a text that does it, one that does not.
INSTRUCTED = [
    ("keywords:existence", {"keywords": ["dog", "cat"]}, "A Dog and a cat.", "A dog."),
    ("keywords:frequency", {"keyword": "dog", "frequency": 2, "relation": AT_LEAST}, "dog Dog", "dog"),
    ("keywords:frequency", {"keyword": "dog", "frequency": 2, "relation": LESS}, "dog", "dog dog"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "concatenate", "A Cat."),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 2, "let_relation": AT_LEAST}, "Eve", "a bee"[:4]),
    ("language:response_language", {"language": "de"}, "Das ist ein schöner Tag für alle.", "It is a fine day for us."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": AT_LEAST}, "Mr. X ran. He fell.", "Mr X"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo", "one\n\ntwo"),
    ("length_constraints:number_words", {"num_words": 3, "relation": LESS}, "two words", "three words here"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "hello"},
        "One.\n\nHello, you.",
        "Hello.\n\nOne.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] of [town]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. More.", "Bye. More."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n- two", "* one\n* two\n* three"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "My answer is perhaps."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and *two*", "*one* and **"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        "Section 1\na",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<A title>>\ntext", "<< >>\ntext"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. Well.", "Well. Say it."),
    ("startend:end_checker", {"end_phrase": "The end."}, 'It was. "The end."', "The end. It was."),
    ("startend:quotation", {}, '"all of it"', '"not" all'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": AT_LEAST}, "ONE TWO", "ONE"),
    ("change_case:english_capital", {}, "THIS IS ALL IN CAPITAL LETTERS", "This is not all in capital letters"),
    ("change_case:english_lowercase", {}, "this is all in small letters", "this is not, I think, in small letters"),
    ("punctuation:no_comma", {}, "no comma; here", "a comma, here"),
]  # fmt: skip


def test_all_instructions_are_tried_here():
    assert {name for name, *_ in INSTRUCTED} == INSTRUCTIONS.keys() and len(INSTRUCTIONS) == 25


@pytest.mark.parametrize(("name", "arguments", "right", "wrong"), INSTRUCTED)
def test_an_instruction(name, arguments, right, wrong):
    assert follows(name, arguments, [right]) is True
    assert follows(name, arguments, [wrong]) is False
    assert follows(name, arguments, [" \n"]) is False, "an empty answer follows nothing"
    assert follows(name, arguments, [wrong, right]) is True


def test_languages_need_langdetect(monkeypatch):
    monkeypatch.setitem(sys.modules, "langdetect.detector_factory", None)
    with pytest.raises(ConfigError, match=r"^IFEval's instructions on languages need langdetect: pip install"):
        follows("language:response_language", {"language": "de"}, ["Das ist es."])


def test_the_loose_reading_has_eight_texts():
    assert variants("a\n*b*\nc") == ["a\n*b*\nc", "*b*\nc", "a\n*b*", "*b*", "a\nb\nc", "b\nc", "a\nb", "b"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One", 1),
        ("One. Two! Three?", 3),
        ("Dr. A met Mrs. B. They ran.", 2),
        ('He said "No." Then he left.', 2),
    ],
)
def test_sentences(text, count):
    assert sentences(text) == count


def test_ifeval_is_the_mean_of_four():
    columns = {
        "instruction_id_list": ["punctuation:no_comma", "startend:end_checker"],
        "kwargs": [{"end_phrase": None}, {"end_phrase": "Done.", "num_words": None}],
    }
    texts = [
        "One, two. Done.",
        "Hello, you.\nAll well. Done.",
    ]  # strict: 1 of 2 in both; loose: the second without its line 1
    rows = [
        Prediction("k", "voicebench-ifeval", str(n), "ifeval", "c", text, None, columns=columns)
        for n, text in enumerate(texts)
    ]
    figures = {name: one["value"] for name, one in score(TASKS["voicebench-ifeval"], rows)["metrics"].items()}
    assert figures == {
        "final": 0.4375, "strict_prompt": 0, "strict_instruction": 0.5, "loose_prompt": 0.5, "loose_instruction": 0.75,
    }  # fmt: skip


def test_an_unknown_instruction_is_skipped_with_its_reason():
    columns = {"instruction_id_list": ["new:thing"], "kwargs": [{}]}
    row = Prediction("k", "voicebench-ifeval", "1", "ifeval", "c", "x", None, columns=columns)
    assert score(TASKS["voicebench-ifeval"], [row])["skipped"] == {"unknown instruction": 1}


# Judges


def chat(texts=("a", "b")):
    names = {"speech_QA": "speech_QA", "speech_and_sound_QA": "speech_and_sound_QA"}
    return [
        Prediction("k", "airbench-chat", str(n), source, "c", text, "ref", columns={"task_name": source})
        for n, (text, source) in enumerate(zip(texts, names, strict=True))
    ]


def said(id, reply, *, swapped=False, judge="j"):
    return Judgement("airbench-chat", id, judge, reply, swapped=swapped)


def test_airbench_is_the_mean_of_both_orders():
    replies = [said("0", "8 6"), said("0", "4 9", swapped=True), said("1", "7 9"), said("1", "no marks", swapped=True)]
    result = score(TASKS["airbench-chat"], chat(), {"j": replies})
    figures = {name: one["value"] for name, one in result["metrics"].items()}
    # As they stand: model 6 and 9, reference 8 and 7. Exchanged: model 4, reference 9.
    assert figures["score@j"] == pytest.approx((7.5 + 4) / 2)
    assert figures["reference_score@j"] == pytest.approx((7.5 + 9) / 2)
    assert figures["win_rate@j"] == pytest.approx((0.5 + 0) / 2)
    assert figures["read@j"] == pytest.approx(3 / 4)
    assert result["primary"] == "score@j" and set(result["by"]["part"]) == {"speech", "mixed"}
    speech = {(one["by"], one["source"]): one["value"] for one in result["goldens"]}
    assert speech["paper", "speech"] == pytest.approx(5) and speech["paper", "mixed"] == pytest.approx(9)


def test_two_judges_share_no_column():
    replies = {"big": [said("0", "8 6", judge="big")], "small": [said("0", "2 1", judge="small")]}
    figures = score(TASKS["airbench-chat"], chat(), replies)["metrics"]
    assert (figures["score@big"]["value"], figures["score@small"]["value"]) == (6, 1)
    assert "score" not in figures


def test_another_tasks_judgements_do_not_count():
    other = Judgement("voicebench-alpaca", "0", "j", "5")
    result = score(TASKS["airbench-chat"], chat(), {"j": [other]})
    assert result["primary"] == "answered" and result["judged"].startswith("no")


def test_a_majority_of_replies_decides_and_unread_ones_leave_the_count():
    task = TASKS["openaudiobench-llama"]
    rows = [Prediction("k", task.id, str(n), "llama_questions", "c", "x", "Paris") for n in range(3)]
    words = ("Correct", "Correct", "Incorrect")
    replies = [Judgement(task.id, "0", "j", f"the score is [{word}]", sample=n) for n, word in enumerate(words)]
    replies += [Judgement(task.id, "1", "j", "the score is [Incorrect]", sample=n) for n in range(2)]
    replies += [Judgement(task.id, "2", "j", "I cannot say.")]
    figures = {name: one["value"] for name, one in score(task, rows, {"j": replies})["metrics"].items()}
    assert figures["accuracy_judge@j"] == 0.5 and figures["read@j"] == pytest.approx(5 / 6)


# Free answers


@pytest.mark.parametrize(
    ("answer", "reference", "equal", "contained", "f1"),
    [
        ("The Eiffel Tower.", "Eiffel tower", True, True, 1),
        ("It is the Eiffel Tower in Paris", "Eiffel Tower", False, True, 4 / 8),
        ("a tower of Eiffel", "Eiffel Tower", False, False, 4 / 5),
        ("巴黎。", "巴黎", True, True, 1),
        ("ＡＢＣ", "abc", True, True, 1),
        ("the", "a", False, False, 0),
        ("", "x", False, False, 0),
        ("category", "cat", False, False, 0),
    ],
)
def test_words_of_a_reference(answer, reference, equal, contained, f1):
    assert equals_reference(answer, [reference]) is equal
    assert contains_reference(answer, [reference]) is contained
    assert token_f1(answer, [reference]) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("text", "references"),
    [
        ('["Paris", "City of Light"]', ["Paris", "City of Light"]),
        ("['Paris', \"L'Aigle\"]", ["Paris", "L'Aigle"]),
        ("Paris", ["Paris"]),
        ("[inaudible]", ["[inaudible]"]),
        ("", []),
    ],
)
def test_several_right_answers(text, references):
    assert references_of(Prediction("k", "qa", "1", "s", "c", "x", text)) == references


def test_own_questions_with_and_without_choices():
    choices = ("a dog", "a cat")
    rows = [
        Prediction("k", "qa", "1", "mine", "c", "B", "a cat", choices=choices),
        Prediction("k", "qa", "2", "mine", "c", "neither", "a dog", choices=choices),
        Prediction("k", "qa", "3", "mine", "c", "It is Paris.", "Paris"),
    ]
    figures = {name: one["value"] for name, one in score(TASKS["qa"], rows)["metrics"].items()}
    assert figures["accuracy_parsed"] == 0.5 and figures["accuracy_on_parsed"] == 1
    assert figures["accuracy_with_random"] == pytest.approx(0.75)
    assert figures["exact_match"] == 0 and figures["contains_reference"] == pytest.approx(1 / 3, abs=1e-6)
