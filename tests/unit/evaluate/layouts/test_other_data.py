"""Data of another split or task, and rows that are not as they should be: one sentence that says what was found."""

import json
from collections import Counter
from pathlib import Path

import pytest

from kit import corpora_official, corpora_questions, corpora_speech, corpora_tables
from kit.corpora import FORMS
from kit.corpora_official import write_lines
from kit.damaged_clips import write_clip
from qwen2_audio.errors import DatasetError
from qwen2_audio.evaluate.layouts.find import find, find_examples
from qwen2_audio.evaluate.registry.tasks import find_task


def rows(task, data, **options):
    return list(find_examples(find_task(task, **options), data))


def refused(task, data):
    with pytest.raises(DatasetError) as caught:
        rows(task, data)
    sentence = str(caught.value)
    assert "\n" not in sentence and task in sentence
    return sentence


def test_another_split_of_the_tree(tmp_path):
    data = corpora_speech.librispeech_tree(tmp_path, True)
    for split in ("test-clean", "test-other", "dev-other"):
        for path in sorted((data / split).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    assert "dev-clean" in refused("librispeech-test-clean", data)
    assert len(rows("librispeech-dev-clean", data)) == 8


def test_the_folder_of_a_split_itself(tmp_path):
    data = corpora_speech.librispeech_tree(tmp_path, True)
    assert len(rows("librispeech-test-other", data / "test-other")) == 8
    assert "test-other" in refused("librispeech-test-clean", data / "test-other")


def test_the_folder_above_a_tree(tmp_path):
    corpora_speech.librispeech_tree(tmp_path, True)
    assert {example.source for example in rows("librispeech-test-clean", tmp_path)} == {"librispeech_test_clean"}


def test_a_folder_of_one_channel_and_split(tmp_path):
    data = corpora_speech.aishell2_tree(tmp_path, True)
    assert {e.source for e in rows("aishell2-mic", data / "Mic" / "test")} == {"aishell2_Mic_test"}
    assert "aishell2_iOS_test" in refused("aishell2-ios", data / "Mic" / "test")


def test_the_list_of_another_task(tmp_path):
    data = corpora_official.official(
        tmp_path, True, "librispeech_eval", corpora_official.librispeech_rows("librispeech_dev_clean"), None
    )
    sentence = refused("librispeech-test-clean", data)
    assert "librispeech_dev_clean (8)" in sentence and "expected librispeech_test_clean" in sentence
    assert "librispeech_dev_clean (8)" in refused("meld", data)


def test_another_language(tmp_path):
    data = corpora_speech.common_voice_tree(tmp_path, True)
    assert "fr" in refused("cv15-en", data / "fr")
    data = corpora_speech.fleurs_tree(tmp_path, True)
    assert "test.tsv" in refused("fleurs-zh", data / "yue_hant_hk")


def test_another_direction(tmp_path):
    data = corpora_speech.covost2_tree(tmp_path, True)
    for path in data.glob("covost_v2.zh-CN_en.*"):
        path.unlink()
    assert "covost_v2" in refused("covost2-zh-en", data)
    assert len(rows("covost2-en-zh", data)) == 16


def test_another_subset_of_tables(tmp_path):
    pytest.importorskip("pyarrow")
    data = corpora_tables.voicebench_hub(tmp_path / "vb", True)
    assert "sd-qa" in refused("voicebench-bbh", data / "sd-qa")
    assert len(rows("voicebench-mmsu", data)) == 16
    assert len(rows("voicebench-alpaca", data / "alpacaeval_full")) == 8
    data = corpora_tables.covost_hub(tmp_path / "covost", True)
    assert "es" in refused("covost2-es-en", data)


def test_languages_that_are_called_alike(tmp_path):
    pytest.importorskip("pyarrow")
    for locale in ("zh-TW", "zh-HK", "en", "yue"):
        table = [{"sentence": locale, "locale": locale}]
        corpora_tables.write_parquet(tmp_path / "fr" / locale / "test-00000-of-00001.parquet", table, True)
        corpora_tables.write_parquet(tmp_path / "fr" / locale / "validated-00000-of-00001.parquet", table, True)
    assert "found en/test" in refused("cv15-zh", tmp_path / "fr")
    assert "found en/test" in refused("cv15-fr", tmp_path / "fr")  # names below the folder count more than its own
    assert [example.reference for example in rows("cv15-en", tmp_path / "fr")] == ["en"]
    assert [example.reference for example in rows("cv15-yue", tmp_path / "fr" / "yue")] == ["yue"]


def test_the_direction_nearest_to_the_file_counts(tmp_path):
    pytest.importorskip("pyarrow")
    for pair in ("zh-CN_en", "en_zh-CN"):
        corpora_tables.write_parquet(tmp_path / "en_zh" / pair / "test.parquet", [{"translation": pair}], True)
    assert [example.reference for example in rows("covost2-zh-en", tmp_path / "en_zh")] == ["zh-CN_en"]
    assert [example.reference for example in rows("covost2-en-zh", tmp_path / "en_zh")] == ["en_zh-CN"]


def test_one_folder_with_everything_in_it(tmp_path):
    """`eval run paper --data FOLDER`: each task finds its own among all the others."""
    root = tmp_path / "all"
    tasks = {}
    for form in FORMS:
        if (
            form.layout == "manifest"
            or form.needs_pyarrow
            or form.build.__name__ in ("v1", "v2", "meld_wav_tree", "chat")
        ):
            continue
        form.build(root / form.layout, True)
        tasks[form.task] = form
    lists = corpora_official.librispeech_rows("librispeech_dev_clean")
    corpora_official.official(root, True, "librispeech_eval", lists, None)
    for task, form in tasks.items():
        if task in ("librispeech-dev-clean", "mmau-mini-v1"):
            continue
        assert Counter(e.source for e in rows(task, root)) == dict.fromkeys(form.sources, 8), task
    assert len(rows("librispeech-dev-clean", root)) == 8


def test_one_folder_with_all_tables(tmp_path):
    pytest.importorskip("pyarrow")
    root = tmp_path / "all"
    tasks = {}
    for form in FORMS:
        if form.needs_pyarrow and form.build.__name__ not in ("librispeech_paths", "librispeech_disk"):
            name = {"cv15": "common_voice_15_0", "voicebench": "VoiceBench"}.get(form.task.split("-")[0])
            folder = root / (name or form.task.split("-")[0])
            if not folder.exists():
                form.build(folder, True)
            tasks[form.task] = form
    for task, form in tasks.items():
        assert Counter(e.source for e in rows(task, root)) == dict.fromkeys(form.sources, 8), task
    refused("aishell2-mic", root)


def test_one_table_of_a_benchmark_of_many(tmp_path):
    pytest.importorskip("pyarrow")
    data = corpora_tables.voicebench_hub(tmp_path, True) / "sd-qa" / "usa-00000-of-00001.parquet"
    assert {example.source for example in rows("voicebench-sdqa", data)} == {"sd-qa_usa"}
    assert "usa" in refused("voicebench-bbh", data)


def test_a_table_that_holds_several_parts(tmp_path):
    pytest.importorskip("pyarrow")
    parts = [f"librispeech_{split}_{kind}" for split in ("dev", "test") for kind in ("clean", "other")]
    texts = [{"gt": f"TEXT {i}", "source": parts[i % 4]} for i in range(8)]
    corpora_tables.write_parquet(tmp_path / "data" / "all.parquet", texts, True)
    examples = rows("librispeech-test-clean", tmp_path / "data")
    assert [example.reference for example in examples] == ["TEXT 2", "TEXT 6"]


def test_parts_whose_rows_have_no_ids_have_the_same_ones_with_and_without_the_others(tmp_path):
    pytest.importorskip("pyarrow")
    data = corpora_tables.meld_hub(tmp_path, True)
    both = {example.id for example in rows("meld", data)}
    (data / "data" / "test-00000-of-00001.parquet").unlink()
    alone = {example.id for example in rows("meld", data)}
    assert len(both) == 16 and alone < both


def test_a_file_that_is_not_there(tmp_path):
    assert "There is no file or folder" in refused("meld", tmp_path / "gone")


def test_a_folder_with_nothing_in_it(tmp_path):
    assert "holds nothing that is read as MELD" in refused("meld", tmp_path)


def test_a_list_of_another_version_of_mmau(tmp_path):
    data = corpora_questions.mmau_test_tree(tmp_path, True)
    assert "another split" in refused("mmau-mini", data)


def test_the_official_prompt_wins_and_an_absent_one_is_the_tasks(tmp_path):
    source = "librispeech_test_clean"
    lists = corpora_official.librispeech_rows(source)
    own = corpora_official.official(tmp_path / "a", True, "librispeech_eval", lists, "Write it down:")
    assert {example.prompt for example in rows("librispeech-test-clean", own)} == {"Write it down:"}
    none = corpora_official.official(tmp_path / "b", True, "librispeech_eval", lists, None)
    official = "Detect the language and recognize the speech: <|en|>"
    assert {example.prompt for example in rows("librispeech-test-clean", none)} == {official}


def test_an_official_list_of_names_that_we_have_not_seen(tmp_path):
    lists = [(audio, gt, "commonvoice15_yue_TEST") for audio, gt, _ in corpora_official.voice_rows("yue", "x")]
    data = corpora_official.official(tmp_path, True, "cv15_asr_yue_eval", lists, None)
    assert Counter(example.source for example in rows("cv15-yue", data)) == {"commonvoice15_yue_TEST": 8}


def test_a_spoken_benchmark_does_not_give_its_text_to_the_model(tmp_path):
    pytest.importorskip("pyarrow")
    examples = rows("voicebench-common", corpora_tables.voicebench_hub(tmp_path, True))
    assert {example.prompt for example in examples} == {None}
    assert [example.columns["question"] for example in examples] == [f"Say {i}." for i in range(8)]


def test_the_chat_list_without_its_placeholder(tmp_path):
    examples = rows("airbench-chat", corpora_official.chat(tmp_path, True))
    assert [example.prompt for example in examples] == [f"What is said in clip {i}?" for i in range(8)]
    assert [example.id for example in examples] == [str(7 + i) for i in range(8)]


def test_questions_of_airbench_stand_in_their_prompt(tmp_path):
    examples = rows("airbench-foundation", corpora_questions.airbench_foundation_tree(tmp_path, True))
    assert examples[0].prompt.endswith("What is it, 0?\nA. a dog\nB. a cat\nC. the rain\nD. a door")
    assert examples[1].prompt.endswith("What is it, 1?\nA. a dog\nB. a cat\nC. None\nD. None")
    assert examples[0].reference == "a dog" and examples[1].choices == ("a dog", "a cat")


def test_airbenchs_grounding_clips_are_flac_files_though_its_list_says_wav(tmp_path):
    found = find(find_task("airbench-foundation"), corpora_questions.airbench_foundation_tree(tmp_path, True))
    assert {Path(e.sound.source).suffix for e in found.examples if "Grounding" in e.source} == {".flac"}
    assert not found.finder.repairs  # known beforehand, and not found by searching


def test_a_letter_is_read_as_its_choice(tmp_path):
    examples = rows("qa", corpora_questions.qa_lines(tmp_path, True))
    assert {example.reference for example in examples} == {"a cat"}


@pytest.mark.parametrize(("task", "missing"), [("asr", "text"), ("qa", "question")])
def test_a_row_without_what_it_needs(tmp_path, task, missing):
    write_clip(tmp_path / "a.wav", 0)
    data = write_lines(tmp_path / "list.jsonl", [{"audio": "a.wav", "speaker": "x"}])
    with pytest.raises(DatasetError, match=rf"^list\.jsonl, line 1 has no {missing}; .*found audio, speaker\.$"):
        rows(task, data)


def test_a_row_whose_text_is_empty_is_kept(tmp_path):
    write_clip(tmp_path / "a.wav", 0)
    data = write_lines(tmp_path / "list.jsonl", [{"audio": "a.wav", "text": ""}])
    assert [example.reference for example in rows("asr", data)] == [""]


def test_a_row_without_a_sound(tmp_path):
    data = write_lines(tmp_path / "list.jsonl", [{"adio": "a.wav", "text": "x"}])
    with pytest.raises(
        DatasetError, match=r"^list\.jsonl, line 1: no column names a sound; .* Did you mean 'audio'\?$"
    ):
        rows("asr", data)


def test_ids_that_are_not_unique_become_so(tmp_path):
    write_clip(tmp_path / "a.wav", 0)
    data = write_lines(tmp_path / "list.jsonl", [{"audio": "a.wav", "text": str(i), "id": "same"} for i in range(3)])
    assert [example.id for example in rows("asr", data)] == ["same", "same#2", "same#3"]


def test_the_language_of_asr_decides_its_prompt(tmp_path):
    data = corpora_questions.nemo(tmp_path, True)
    assert {example.prompt for example in rows("asr", data, language="fr")} == {
        "Detect the language and recognize the speech: <|fr|>"
    }


def test_dev_clips_are_not_taken_for_test_clips_of_the_same_name(tmp_path):
    """MELD's dia0_utt0 is in every split; with the test clips alone, dev rows have none."""
    lists = [row for source in ("meld_test", "meld_dev") for row in corpora_official.meld_rows(source)]
    data = corpora_official.official(tmp_path, True, "meld_eval", lists, None)
    for path in (tmp_path / "MELD" / "dev_splits_complete_wav").iterdir():
        path.unlink()
    examples = rows("meld", data)
    found = Counter(e.source for e in examples if Path(e.sound.source).is_file())
    assert found == {"meld_test": 8}


def test_official_paths_are_repaired(tmp_path):
    """_wav folders, mp4 in place of wav, other first folders, a leading /test/."""
    lists = corpora_official.meld_rows("meld_test")
    folder = tmp_path / "mine" / "output_repeated_splits_test"
    for i in range(8):
        write_clip(folder / f"dia{i // 2}_utt{i % 2}.mp4", i, True)
    lines = [{"audio": audio, "gt": gt, "source": source} for audio, gt, source in lists]
    data = write_lines(tmp_path / "meld_eval.jsonl", lines)
    names = [Path(example.sound.source).name for example in rows("meld", data)]
    assert names == [f"dia{i // 2}_utt{i % 2}.mp4" for i in range(8)]
    assert all(Path(example.sound.source).is_file() for example in rows("meld", data))


def test_meld_rows_keep_their_quotation_marks(tmp_path):
    examples = rows("meld", corpora_speech.meld_tree(tmp_path, True))
    assert examples[0].columns["Utterance"] == '"Oh, hi," number 0'
    json.dumps([dict(example.columns) for example in examples])
