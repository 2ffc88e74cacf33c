"""Over the whole registry: a model that says the reference scores perfectly, and one that says nothing does not."""

import json

import pytest

from qwen2_audio.errors import EvaluationError
from qwen2_audio.evaluate.example import Prediction
from qwen2_audio.evaluate.registry.tasks import TASKS
from qwen2_audio.evaluate.score.judgement import Judgement
from qwen2_audio.evaluate.score.score import score

TEXTS = {
    "en": ("MISTER QUILTER PAID TWENTY DOLLARS, ISN'T IT", "And here is another one of them."),
    "zh": ("他花了20万元买了两百个苹果。", "今天是2024年3月15日，天气很好"),
    "yue": ("佢今日去咗香港買嘢", "我哋聽日再傾過啦"),
    "fr": ("L'été, c'est à 10h — d'accord ?", "Ça va bien, merci à vous tous."),
}
CHOICES = ("a dog barking", "rain", "a man", "a woman")
PERFECT = {"wer": 0, "cer": 0, "bleu": 100, "score": None}  # all others: 1
BEST_REPLY = {
    "airbench_chat": "9 10",
    "voicebench_open": "5",
    "voicebench_qa": "Yes",
    "openaudiobench_alpaca_eval": "Good. [[10]]",
    "openaudiobench_reasoning_qa": "得分是[5]",
    "openaudiobench_llama_questions": "the score is [Correct]",
    "openaudiobench_trivia_qa": '{"analysis": "x", "judgment": "correct"}',
    "openaudiobench_web_questions": '{"analysis": "x", "judgment": "correct"}',
    "qa": "Yes",
}
SCORED = sorted(set(TASKS) - {"nano"})


def rows(task):
    """(reference, choices, columns, right answer, wrong answer) of a few rows such as the task has."""
    scorer = task.scorer
    if scorer in ("wer", "cer", "bleu"):
        return [(text, (), {}, text, "") for text in TEXTS.get(task.language, TEXTS["en"])]
    if scorer == "accuracy":
        labels = ("neutral", "joy", "fear") if task.id == "meld" else ("Laughter", "Throat clearing", "Sniff")
        return [(label, (), {}, label, "no idea") for label in labels]
    if scorer in ("string_match", "airbench_foundation", "mmsu"):
        letter = scorer != "string_match"
        return [
            (
                choice,
                CHOICES,
                {"category": "x", "task": "sound", "modality": "sound"},
                "ABCD"[i] if letter else choice,
                "hm",
            )
            for i, choice in enumerate(CHOICES)
        ]
    if scorer == "voicebench_mcq":
        return [(letter, (), {}, letter, "hm") for letter in "ABCD"]
    if scorer == "voicebench_bbh":
        return [
            ("Yes", (), {"id": "navigate_1"}, "Yes", "hm"),
            ("(B)", (), {"id": "hyperbaton_2"}, "The answer is (B).", "hm"),
        ]
    if scorer == "voicebench_ifeval":
        asked = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}], "prompt": "Do not use commas."}
        return [(None, (), asked, "No commas here.", "One, two."), (None, (), asked, "None.", "a, b")]
    if scorer == "voicebench_harm":
        return [(None, (), {}, "I'm sorry, I cannot do that.", "Sure, here is how.")]
    if task.id == "qa":
        return [("Paris", (), {}, "paris.", "Rome"), ("a dog", ("a dog", "a cat"), {}, "a dog", "a cat")]
    return [("Paris is the capital.", (), {"question": "What?"}, "Paris is the capital.", "Rome it is")]


def predictions(task, *, right):
    sources = [name for name, _ in task.sources] or ["mine"]
    return [
        Prediction(
            key="k",
            task=task.id,
            id=f"{source}/{i}",
            source=source,
            audio="clip.wav",
            text=good if right else bad,
            reference=reference,
            choices=choices,
            group=f"g{i}",
            columns=columns,
        )
        for source in sources
        for i, (reference, choices, columns, good, bad) in enumerate(rows(task))
    ]


def judged(task, answers):
    if task.scorer not in BEST_REPLY:
        return {}
    orders = (
        ((False, "9 10"), (True, "10 9")) if task.scorer == "airbench_chat" else ((False, BEST_REPLY[task.scorer]),)
    )
    return {
        "judge": [
            Judgement(task.id, one.id, "judge", reply, swapped=swapped) for one in answers for swapped, reply in orders
        ]
    }


@pytest.mark.parametrize("name", SCORED)
def test_the_reference_is_a_perfect_answer(name):
    task = TASKS[name]
    if task.language == "yue":
        pytest.importorskip("zhconv", reason="Cantonese needs it")
    answers = predictions(task, right=True)
    if name == "mmau-test":
        answers = [Prediction(**{**vars(one), "reference": None}) for one in answers]
        result = score(task, answers)
        assert result["scored"] == 0 and result["skipped"] == {"no reference": len(answers)}
        return
    result = score(task, answers, judged(task, answers))
    primary = result["primary"].partition("@")[0]
    best = (
        {"airbench_chat": 10, "voicebench_open": 5}.get(task.scorer, 100)
        if primary == "score"
        else PERFECT.get(primary, 1)
    )
    for part in (result, *result["sources"].values(), *(one for by in result["by"].values() for one in by.values())):
        assert part["metrics"][result["primary"]]["value"] == pytest.approx(best)
        figures = {metric: figure["value"] for metric, figure in part["metrics"].items() if "@" not in metric}
        for metric, value in figures.items():
            if metric not in ("accuracy_letter",):
                assert value == pytest.approx(PERFECT.get(metric.split("_")[0], 1)), metric
    assert result["scored"] == result["n"] == len(answers)


@pytest.mark.parametrize("name", [name for name in SCORED if name != "mmau-test"])
def test_a_wrong_answer_is_not(name):
    task = TASKS[name]
    if task.language == "yue":
        pytest.importorskip("zhconv", reason="Cantonese needs it")
    result = score(task, predictions(task, right=False))
    figure = result["metrics"][result["primary"]]
    if result["primary"] == "answered":  # nobody judged
        assert result["judged"].startswith("no")
    elif figure["better"] == "lower":
        assert figure["value"] == 1
    else:
        assert figure["value"] is None or figure["value"] < 0.6  # None: no answer was in a form that counts
        assert result["metrics"].get("accuracy_parsed", {"value": 0})["value"] < 0.6


@pytest.mark.parametrize("name", SCORED)
def test_equal_answers_in_any_order_give_equal_bytes(name):
    task = TASKS[name]
    if task.language == "yue":
        pytest.importorskip("zhconv", reason="Cantonese needs it")
    answers = predictions(task, right=True)
    answers[0] = Prediction(**{**vars(answers[0]), "text": "", "error": "The clip is damaged."})
    one, other = (
        json.dumps(score(task, some, judged(task, some)), ensure_ascii=False) for some in (answers, answers[::-1])
    )
    assert one == other
    assert json.loads(one)["skipped"]["no answer"] == 1


def test_answers_to_another_task_are_refused():
    answers = predictions(TASKS["meld"], right=True)
    with pytest.raises(
        EvaluationError, match=r"^Row meld_dev/0 is an answer to meld, not to vocalsound; name its own task\.$"
    ):
        score(TASKS["vocalsound"], answers)
    with pytest.raises(
        EvaluationError, match=r"^nano is scored while it is run, and not from a file of its answers\.$"
    ):
        score(TASKS["nano"], [])


@pytest.mark.parametrize("name", SCORED)
def test_nothing_to_score_is_no_crash(name):
    if TASKS[name].language == "yue":
        pytest.importorskip("zhconv", reason="Cantonese needs it")
    result = score(TASKS[name], [])
    assert result["n"] == 0 and all(figure["value"] is None for figure in result["metrics"].values())
