"""The table of benchmarks: complete, consistent, true to the lists that were seen; what does not fit a checkpoint."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate.layouts.find import LAYOUTS
from qwen2_audio.evaluate.prompts.prompt import fill, find_prompt, prompts, question_prompt
from qwen2_audio.evaluate.registry.tasks import GROUPS, TASKS, find_task, find_tasks
from qwen2_audio.evaluate.registry.warnings import CheckpointFacts, warnings_for
from qwen2_audio.evaluate.score.scorers import SCORERS

GOLDENS = Path(__file__).parent / "goldens"
PAPER = {  # SPEC 10.1: the paper's own figures, as printed
    "librispeech-dev-clean": 1.3, "librispeech-dev-other": 3.4, "librispeech-test-clean": 1.6,
    "librispeech-test-other": 3.6,
    "aishell2-mic": 3.0, "aishell2-ios": 3.0, "aishell2-android": 2.9,
    "cv15-en": 8.6, "cv15-zh": 6.9, "cv15-yue": 5.9, "cv15-fr": 9.6, "fleurs-zh": 7.5,
    "covost2-en-de": 29.9, "covost2-de-en": 35.2, "covost2-en-zh": 45.2, "covost2-zh-en": 24.4, "covost2-es-en": 40.0,
    "covost2-fr-en": 38.5, "covost2-it-en": 36.3, "meld": 55.3, "vocalsound": 93.92,
}  # fmt: skip


def test_the_papers_table():
    assert set(GROUPS["paper"]) == PAPER.keys() | {"airbench-chat"}
    for name, printed in PAPER.items():
        (golden,) = [golden for golden in TASKS[name].goldens if golden.by == "paper"]
        scale = 1 if TASKS[name].scorer == "bleu" else 100
        assert golden.value * scale == pytest.approx(printed), name
    chat = {golden.source: golden.value for golden in TASKS["airbench-chat"].goldens if golden.by == "paper"}
    assert chat == {"speech": 7.18, "sound": 6.99, "music": 6.79, "mixed": 6.77}


def test_rows_of_the_lists_that_were_seen():
    known = json.loads((GOLDENS / "denominators.json").read_text())
    rows = {source: count for task in TASKS.values() for source, count in task.sources}
    for group in ("librispeech", "aishell2"):
        assert {source: rows[source] for source in known[group]["sources"]} == {
            source: counts[0] for source, counts in known[group]["sources"].items()
        }


def test_sizes_of_what_users_quote():
    size = {name: sum(count for _, count in task.sources) for name, task in TASKS.items()}
    expected = {"airbench-foundation": 21426, "airbench-chat": 2200, "mmau-mini": 1000, "mmau-test": 9000, "mmar": 1000}
    expected |= {"mmsu": 5000, "meld": 3719, "vocalsound": 5454, "fleurs-zh": 945, "voicebench-sdqa": 11 * 553}
    assert {name: size[name] for name in expected} == expected
    assert sum(count for name, count in size.items() if name.startswith("openaudiobench")) == 2701


@pytest.mark.parametrize("task", TASKS.values(), ids=str)
def test_every_name_in_a_task_is_known(task):
    assert task.scorer in SCORERS or task.id == "nano"
    assert set(task.layouts) <= set(LAYOUTS)
    assert task.prompt is None or task.prompt in prompts()
    assert task.where and task.title
    if task.checkpoint == "base":
        assert task.decoding.repetition_penalty == 1.0 and task.decoding.temperature == 0 and task.system is None


def test_only_refusals_and_nano_are_not_asked_whether_they_hear():
    assert {task.id for task in TASKS.values() if task.deaf is None} == {"voicebench-advbench", "nano"}


def test_transcription_in_any_language():
    assert find_task("asr").prompt == "asr_en" and find_task("asr").scorer == "wer"
    chinese = find_task("asr", language="zh")
    assert (chinese.prompt, chinese.scorer, chinese.language) == ("asr_zh", "cer", "zh")
    italian = find_task("asr", language="it")
    assert question_prompt(italian.prompt) == "Detect the language and recognize the speech: <|it|>"
    assert find_task("asr", language="ja").scorer == "cer"


def test_lists_of_tasks():
    assert [task.id for task in find_tasks("meld, mmar,meld")] == ["meld", "mmar"]
    assert len(find_tasks("paper,meld")) == 22
    with pytest.raises(ConfigError, match=r"^There is no task 'melt'\. Did you mean 'meld'\? `qwen2-audio eval list`"):
        find_tasks("melt")
    with pytest.raises(
        ConfigError, match=r"^No task in ' , '; expected ids separated by commas, or one of paper, instr"
    ):
        find_tasks(" , ")
    with pytest.raises(ConfigError, match=r"^meld is in 'en', not 'fr'; only the task asr takes a language\.$"):
        find_task("meld", language="fr")


# Prompts


def test_prompts_are_the_authors_word_for_word():
    assert find_prompt("asr_en").text == "Detect the language and recognize the speech: <|en|>"
    assert find_prompt("st_en_zh").text == "Detect the language and translate the speech into Mandarin: <|en|>"
    assert find_prompt("vsc").text == "Classify the human vocal sound to VocalSound in English:"
    judges = [
        "airbench_chat_judge",
        "airbench_foundation",
        "mmsu",
        "openaudiobench_alpaca_eval",
        "openaudiobench_llama_questions",
    ]
    judges += [
        "openaudiobench_reasoning_qa",
        "openaudiobench_trivia_qa",
        "openaudiobench_web_questions",
        "voicebench_meta_prompt_open",
        "voicebench_meta_prompt_qa",
    ]
    texts = "\n\n".join(find_prompt(key).text for key in judges)
    assert hashlib.sha256(texts.encode()).hexdigest()[:16] == "945def2337d15c04", "of the same texts in shared/data"
    assert find_prompt("airbench_chat_judge").licence == "Apache-2.0"
    assert all(prompt.source for prompt in prompts().values())
    with pytest.raises(ConfigError, match=r"^There is no prompt 'asr_em'\. Did you mean 'asr_en'\?$"):
        find_prompt("asr_em")


def test_a_question_is_set_into_its_prompt():
    choices = ("a {question}", "b")
    assert question_prompt("mmau_authors", "What?", choices) == (
        "What?  Select one option from the provided choices.\n['a {question}', 'b']."
    )
    assert question_prompt("mmar", "What?", choices).endswith("choices:\na {question}\nb")
    assert question_prompt("airbench_foundation", "What?", choices).endswith(
        "\nWhat?\nA. a {question}\nB. b\nC. None\nD. None"
    )
    assert question_prompt("question", "What?") == "What?"
    assert question_prompt("question", "What?", choices) == "What?\nA. a {question}\nB. b"
    assert question_prompt("Say {question}", "What?") == "Say {question}"
    assert fill("{a} {b} {c}", {"a": "{b}", "b": "x"}) == "{b} x {c}"


# What does not fit


def test_a_checkpoint_that_fits_is_told_nothing():
    base = CheckpointFacts("base", 1.0, "none")
    assert warnings_for(TASKS["meld"], base) == []
    assert warnings_for(TASKS["mmar"], CheckpointFacts("instruct", 1.1, "official")) == []
    assert warnings_for(TASKS["meld"], CheckpointFacts()) == []


@pytest.mark.parametrize(
    ("task", "facts", "said"),
    [
        (
            "meld",
            CheckpointFacts("instruct"),
            "meld is a task of the base checkpoint, and this is an Instruct one: it adds",
        ),
        (
            "mmar",
            CheckpointFacts("base"),
            "mmar is a task of the Instruct checkpoint, and this is a base one: it follows no",
        ),
        (
            "meld",
            CheckpointFacts("base", 1.1),
            "with repetition_penalty 1 officially, and here with 1.1: it drops words",
        ),
        ("mmar", CheckpointFacts("instruct", 1.0), "officially, and here with 1: answers may repeat themselves"),
        (
            "mmar",
            CheckpointFacts("instruct", 1.1, "foreign"),
            "asked in Qwen2-Audio's chat template, and this checkpoint has",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_its_effect(task, facts, said):
    (sentence,) = warnings_for(TASKS[task], facts)
    assert said in sentence and sentence.endswith(".")


def test_an_own_task_fits_every_checkpoint():
    assert warnings_for(dataclasses.replace(TASKS["qa"]), CheckpointFacts("base", None, "none")) == []
