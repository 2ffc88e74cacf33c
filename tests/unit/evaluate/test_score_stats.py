"""Intervals, comparisons and signs of trouble: what they must find, and must not."""

import dataclasses
import math
import random

import numpy as np
import pytest
from scipy.stats import binomtest

from qwen2_audio.errors import EvaluationError
from qwen2_audio.evaluate.compare import compare
from qwen2_audio.evaluate.example import Prediction
from qwen2_audio.evaluate.registry.tasks import TASKS
from qwen2_audio.evaluate.score.echoes import has_echo, without_echo
from qwen2_audio.evaluate.score.health import health, is_loop, is_other_language
from qwen2_audio.evaluate.score.measure import accuracy
from qwen2_audio.evaluate.score.score import score
from qwen2_audio.evaluate.stats import intervals, mcnemar, paired, rows_needed

MELD = TASKS["meld"]


def emotions(right, *, source="meld_test", groups=None, task="meld"):
    groups = groups or [""] * len(right)
    return [
        Prediction("k", task, f"{row:04}", source, "c", "joy" if hit else "fear", "joy", group=groups[row])
        for row, hit in enumerate(right)
    ]


# Intervals


def test_an_interval_is_the_binomials_where_rows_are_independent():
    hits = [row % 5 != 0 for row in range(1000)]
    ((low, high),) = intervals([accuracy("a", hits)], range(1000), [None] * 1000)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 1000)
    assert low == pytest.approx(0.8 - half, abs=0.004) and high == pytest.approx(0.8 + half, abs=0.004)


def test_rows_of_one_speaker_count_as_one():
    """Ten speakers, each all right or all wrong: a hundred rows each tell no more than one."""
    hits = [row // 100 % 2 == 0 for row in range(1000)]
    ((low, high),) = intervals([accuracy("a", hits)], range(1000), [row // 100 for row in range(1000)])
    ((near_low, near_high),) = intervals([accuracy("a", hits)], range(1000), [None] * 1000)
    assert high - low > 8 * (near_high - near_low)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    draw, covered = np.random.default_rng(1), 0
    for _ in range(200):
        hits = draw.random(150) < 0.7
        ((low, high),) = intervals([accuracy("a", hits)], range(150), [None] * 150, draws=300)
        covered += low <= 0.7 <= high
    assert 180 <= covered <= 199


def test_the_seed_is_fixed_and_one_group_has_no_interval():
    hits = [True, False, True]
    once, again = (intervals([accuracy("a", hits)], range(3), [None] * 3) for _ in range(2))
    assert once == again
    assert intervals([accuracy("a", hits)], range(3), ["one"] * 3) == [None]


def test_groups_of_two_sources_are_two():
    groups = ["dia0"] * 4
    rows = emotions([True, False] * 2, groups=groups) + emotions([True] * 4, source="meld_dev", groups=groups)
    rows = [dataclasses.replace(row, id=f"{row.source}/{row.id}") for row in rows]
    result = score(MELD, rows)
    assert result["groups"] == 2 and result["sources"]["meld_dev"]["groups"] == 1
    assert result["metrics"]["accuracy_strict"]["low"] is not None
    assert result["sources"]["meld_dev"]["metrics"]["accuracy_strict"]["low"] is None


# Two runs


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (7, 3), (40, 60), (1200, 1000)])
def test_mcnemar_is_the_exact_binomial_test(gained, lost):
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_a_paired_difference_is_surer_than_two_intervals():
    first = [row % 2 == 0 for row in range(400)]
    second = [hit or row % 20 == 1 for row, hit in enumerate(first)]  # 20 more right, none less
    change = paired(accuracy("a", first), accuracy("a", second), [None] * 400)
    assert change.difference == pytest.approx(0.05) and change.low > 0.02 and change.p < 0.01
    ((_, high),) = intervals([accuracy("a", first)], range(400), [None] * 400)
    assert high > 0.5 + change.difference - 0.01, "by themselves the two would overlap"
    none = paired(accuracy("a", first), accuracy("a", first), [None] * 400)
    assert none.difference == 0 and none.p == 1


def test_runs_are_compared_on_their_common_rows():
    draw = random.Random(2)
    first = [draw.random() < 0.5 for _ in range(100)]
    second = [hit if row % 10 else not hit for row, hit in enumerate(first)]
    result = compare(MELD, emotions(first), emotions(second)[:90])
    assert (result["common"], result["only_first"], result["only_second"]) == (90, 10, 0)
    flips = result["metrics"]["accuracy_strict"]["mcnemar"]
    assert flips["gained"] + flips["lost"] == 9 == result["better"] + result["worse"] == result["other_text"]
    assert flips["gained"] == result["better"] and flips["p"] == pytest.approx(mcnemar(flips["gained"], flips["lost"]))
    assert {(flip["first"], flip["second"]) for flip in result["flips"]} <= {("joy", "fear"), ("fear", "joy")}
    assert result["metrics"]["accuracy_strict"]["rows_to_tell"] > 90


def test_fewer_errors_are_better():
    task = TASKS["librispeech-test-clean"]
    rows = [Prediction("k", task.id, str(row), "s", "c", "good old", "GOOD OLD DAYS") for row in range(4)]
    better = [dataclasses.replace(row, text="good old days") for row in rows]
    result = compare(task, rows, better)
    assert (result["better"], result["worse"]) == (4, 0)
    assert result["metrics"]["wer"]["difference"] == pytest.approx(-1 / 3, abs=1e-6)


def test_other_data_is_refused():
    with pytest.raises(EvaluationError, match=r"^The two runs of meld have no row in common; expected the same data"):
        compare(MELD, emotions([True]), [])
    other = [dataclasses.replace(row, reference="anger") for row in emotions([True])]
    expected = r"^Row 0000 of meld has the reference 'joy' in the first run and 'anger' in the second; expected"
    with pytest.raises(EvaluationError, match=expected):
        compare(MELD, emotions([True]), other)


def test_a_row_that_failed_in_one_run_counts_in_neither():
    second = emotions([True, True, True])
    second[1] = dataclasses.replace(second[1], text="", error="The clip is damaged.")
    result = compare(MELD, emotions([True, False, True]), second)
    assert (result["common"], result["failed"]) == (2, 1)
    assert result["metrics"]["accuracy_strict"]["difference"] == 0


def test_rows_needed_grow_with_the_square():
    assert rows_needed(100, 0.1, 0.05) == 400


# Goldens


def test_a_published_figure_is_as_far_as_its_noise_says():
    hits = [row < 2870 for row in range(5000)]  # 57.4 %, and the paper has 55.3 with a band of 1.9
    (golden,) = (one for one in score(MELD, emotions(hits))["goldens"] if one["by"] == "paper")
    assert golden["metric"] == "accuracy_strict" and golden["difference"] == pytest.approx(0.021)
    assert golden["noise"] == 0.019 and golden["distance"] == pytest.approx(0.021 / 0.019, abs=1e-4)
    assert "rows_needed" not in golden


def test_of_a_small_sample_the_own_interval_is_the_noise():
    result = score(MELD, emotions([row % 2 == 0 for row in range(500)]))
    (golden,) = (one for one in result["goldens"] if one["by"] == "paper")
    assert golden["noise"] > 0.03 and abs(golden["distance"]) == pytest.approx(0.053 / golden["noise"], abs=1e-3)
    assert 2000 < golden["rows_needed"] < 3000


def test_a_figure_of_one_part_is_held_against_that_part():
    task, choices = TASKS["mmar"], ("rock", "rain")
    rows = [
        Prediction("k", "mmar", f"{part}{row}", "mmar", "c", "rock" if row else "rain", "rock", choices=choices,
                   columns={"modality": part})
        for part in ("sound", "music") for row in range(3)
    ]  # fmt: skip
    found = {(one["by"], one["source"]): one["value"] for one in score(task, rows)["goldens"]}
    assert found == {("README", ""): 0.666667, ("README", "sound"): 0.666667, ("README", "music"): 0.666667}


# Signs of trouble


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("and so on " * 8, True),
        ("Well, " + "ha" * 20, True),
        ("很好" * 20, True),
        ("it goes on and on and on and on", False),
        ("It was the best of times, it was the worst of times.", False),
        ("ha ha ha", False),
        ("a much longer sentence that comes back. " * 4, True),
        ("", False),
    ],
)
def test_loops(text, loops):
    assert is_loop(text) is loops


@pytest.mark.parametrize(
    ("text", "language", "other"),
    [
        ("hello", "en", False),
        ("你好", "en", True),
        ("你好世界 ok", "en", True),
        ("hello", "zh", True),
        ("今天用iPhone打电话给他了吗", "zh", False),
        ("<|en|>今天天气", "zh", False),
        ("L'été", "fr", False),
        ("123 !", "zh", False),
        ("Привет", "ru", False),
    ],
)
def test_other_languages(text, language, other):
    assert is_other_language(text, language) is other


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("The original content of this audio is: 'one two'.", "one two"),
        ("The original content of this audio is 'one two'", "one two"),
        ("The speech says: one two", "one two"),
        ("The content of the audio is: \"one two\"", "one two"),
        ("Sure, here is the transcript: one two", "one two"),
        ("The speech says: 'one' she said to him", "'one' she said to him"),
        ("这段音频的原始内容是：'一二'", "一二"),
        ("The man says he is tired", None),
        ("The audience: it was large", None),
        ("One two", None),
    ],
)  # fmt: skip
def test_sentences_around_a_transcript(text, inside):
    assert has_echo(text) is (inside is not None)
    assert without_echo(text) == (text if inside is None else inside)


def test_a_lenient_rate_stands_beside_the_strict_one():
    task = TASKS["librispeech-test-clean"]
    row = Prediction(
        "k", task.id, "1", "s", "c", "The original content of this audio is: 'one two three'", "ONE TWO THREE"
    )
    figures = score(task, [row])["metrics"]
    assert figures["wer"]["value"] > 1 and figures["wer_lenient"]["value"] == 0


def test_health_counts():
    rows = emotions([True, True, False, True])
    rows[0] = dataclasses.replace(rows[0], finish_reason="length", text="so it is " * 9)
    rows[1] = dataclasses.replace(rows[1], text=" ", seconds=35.0, heard=30.0)
    rows[2] = dataclasses.replace(rows[2], error="The clip is damaged.", text="")
    rows[3] = dataclasses.replace(rows[3], seconds=35.0)  # somebody else's file, which does not say what was heard
    result = score(MELD, rows)
    assert result["health"] == {
        "answers": 3,
        "length_cap": {"n": 1, "share": 0.333333},
        "empty": {"n": 1, "share": 0.333333},
        "loop": {"n": 1, "share": 0.333333},
        "other_language": {"n": 0, "share": 0.0},
        "cut_clip": {"n": 1, "share": 0.333333},
    }
    assert "|long:cut-1|" in result["signature"]
    assert "prefix_echo" in health(rows, "en", transcribes=True)


def test_three_accuracies_and_the_confusion():
    said = [" joy", "joy ", "happy", "the speaker is angry", "sad or happy", "neutral"]
    rows = [Prediction("k", "meld", str(n), "meld_test", "c", text, "joy") for n, text in enumerate(said)]
    result = score(MELD, rows)
    figures = {name: figure["value"] for name, figure in result["metrics"].items()}
    assert figures["accuracy_strict"] == pytest.approx(1 / 6, abs=1e-6)
    assert figures["accuracy_folded"] == pytest.approx(2 / 6, abs=1e-6)
    assert figures["accuracy_mapped"] == pytest.approx(3 / 6, abs=1e-6)
    matrix = dict(zip(result["confusion"]["labels"], result["confusion"]["matrix"], strict=True))
    assert matrix["joy"] == [1, 3, 1, 0, 0, 0, 0, 1] and sum(map(sum, matrix.values())) == 6
    assert (result["no_label"], result["majority_label"], result["majority_accuracy"]) == (1, "joy", 1.0)
    assert figures["macro_f1"] == pytest.approx(2 * 3 / (6 + 3), abs=1e-6)


def test_what_is_not_parsed_is_wrong_and_never_guessed():
    rows = [
        Prediction("k", "mmsu", str(n), "mmsu", "c", text, "rain", choices=("rain", "wind", "fire", "a bird"))
        for n, text in enumerate(["A", "B", "", "The weather is bad", "rain"])
    ]
    result = score(TASKS["mmsu"], rows)
    figures = {name: figure["value"] for name, figure in result["metrics"].items()}
    # "rain" and the sentence are in a wrong form, and leave the authors' denominator; the empty answer stays in it.
    assert figures["accuracy_official"] == pytest.approx(1 / 3, abs=1e-6)
    assert figures["accuracy_of_all"] == pytest.approx(1 / 5)
    assert figures["accuracy_parsed"] == pytest.approx(2 / 5)
    assert figures["accuracy_on_parsed"] == pytest.approx(2 / 3, abs=1e-6)
    assert figures["accuracy_with_random"] == pytest.approx((2 + 2 / 4) / 5)
    assert (result["unparsed"], result["random_guess"]) == (2, 0.25)


def test_a_row_whose_answer_is_none_of_its_choices_is_told():
    row = Prediction("k", "mmar", "1", "mmar", "c", "rain", "hail", choices=("rain", "wind"))
    assert score(TASKS["mmar"], [row])["skipped"] == {"reference is none of the choices": 1}
