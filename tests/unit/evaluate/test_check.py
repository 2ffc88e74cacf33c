"""`check` finds what is wrong with a benchmark's data, and tells what is right."""

import hashlib
import json
from collections import Counter
from dataclasses import replace

import pytest

from kit import corpora_official, corpora_questions, corpora_speech, corpora_tables
from kit.corpora import FORMS
from kit.corpora_official import write_lines
from kit.damaged_clips import write_clip
from qwen2_audio.cli.main import main
from qwen2_audio.evaluate import check as checks
from qwen2_audio.evaluate.check import check
from qwen2_audio.evaluate.registry.tasks import find_task


def status(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(["eval", "check", *arguments])
    return caught.value.code


@pytest.mark.parametrize("form", [f for f in FORMS if f.build.__name__ != "v1"], ids=lambda form: form.name)
def test_every_kind_of_clip_is_found_in_every_form(form, tmp_path):
    if form.needs_pyarrow:
        pytest.importorskip("pyarrow")
    data = form.build(tmp_path / "data", False)
    if form.build is corpora_questions.folder_with_texts:
        (data / "clips" / "2.wav").unlink()  # a folder cannot name a clip that it does not have
        (data / "clips" / "2.txt").unlink()
    found = check(find_task(form.task), data)
    parts = len(form.sources)
    counts = {kind: len(rows) for kind, rows in found.problems.items()}
    assert counts.pop("missing", 0) + counts.pop("corrupt", 0) == parts * (
        1 if form.build is corpora_questions.folder_with_texts else 2
    )
    assert counts.pop("silent") == counts.pop("long") == parts
    assert not counts
    assert found.rates == {44_100: parts}
    assert not found.is_complete
    assert json.loads(json.dumps(found.as_dict()))["rows"] == dict(found.rows)


def test_a_report_names_rows_and_says_what_was_done(tmp_path):
    rows = corpora_official.librispeech_rows("librispeech_test_clean")
    data = corpora_official.official(tmp_path, False, "librispeech_eval", rows, "Write:")
    task = find_task("librispeech-test-clean")
    found = check(task, data)
    text = "\n".join(found.lines())
    assert f"sha256 {hashlib.sha256(data.read_bytes()).hexdigest()}" in text
    assert "librispeech_test_clean: 8 rows, " in text and "reference tokens; prompt 'Write:'" in text
    assert "differs: librispeech_test_clean has 8 rows; expected 2,620." in text
    assert "1 clips are missing\n    librispeech_eval.jsonl, line 3: " in text
    assert "1 clips cannot be decoded\n    librispeech_eval.jsonl, line 4: " in text
    assert "1 clips are at 44,100 Hz and are resampled to 16,000 Hz" in text
    assert text.endswith("not complete: figures are not comparable with published ones")


def test_a_whole_copy_is_complete(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "DENOMINATORS", {"librispeech_test_clean": 35})
    task = replace(find_task("librispeech-test-clean"), sources=(("librispeech_test_clean", 8),))
    found = check(task, corpora_speech.librispeech_tree(tmp_path, True))
    assert found.is_complete and found.lines()[-1] == "  complete"
    assert found.denominators == {"librispeech_test_clean": 35}
    monkeypatch.setattr(checks, "DENOMINATORS", {"librispeech_test_clean": 36})
    assert check(task, tmp_path).differences() == [
        "The references of librispeech_test_clean have 35 tokens; those of the official list 36."
    ]


def test_parts_that_the_list_names_otherwise_are_counted_together(tmp_path):
    rows = [(audio, gt, "voice_yue") for audio, gt, _ in corpora_official.voice_rows("yue", "")]
    data = corpora_official.official(tmp_path, True, "cv15_asr_yue_eval", rows, None)
    found = check(replace(find_task("cv15-yue"), sources=(("cv15_yue", 8),), scorer="bleu"), data)
    assert found.rows == {"voice_yue": 8} and found.is_complete
    found = check(replace(find_task("cv15-yue"), sources=(("cv15_yue", 9),), scorer="bleu"), data)
    assert found.differences() == ["all parts has 8 rows; expected 9."]


def test_unknown_columns_and_repairs_are_told(tmp_path):
    write_clip(tmp_path / "sounds" / "a.flac", 0)
    data = write_lines(tmp_path / "list.jsonl", [{"audio": "/test/a.wav", "text": "x", "colour": "red"}])
    found = check(find_task("asr"), data)
    assert found.unknown == ["colour"]
    assert found.repairs == {"with another ending": 1}
    assert "  columns that nothing here reads: colour" in found.lines()
    assert found.is_complete


def test_rows_without_a_reference(tmp_path):
    data = corpora_questions.mmau_tree(tmp_path / "mini", True)
    rows = json.loads((data / "mmau-test-mini.json").read_text())
    for row in rows[:3]:
        del row["answer"]
    (data / "mmau-test-mini.json").write_text(json.dumps(rows))
    assert len(check(find_task("mmau-mini"), data).problems["reference"]) == 3
    withheld = check(find_task("mmau-test"), corpora_questions.mmau_test_tree(tmp_path / "test", True))
    assert not withheld.problems


def test_mmaus_version_is_named(tmp_path, monkeypatch):
    from qwen2_audio.evaluate.layouts import questions

    data = corpora_questions.mmau_tree(tmp_path, True)
    sha = hashlib.sha256((data / "mmau-test-mini.json").read_bytes()).hexdigest()[:12]
    monkeypatch.setitem(questions.MMAU_VERSIONS, sha, "v1")
    assert check(find_task("mmau-mini-v1"), data).files[0].version == "v1"
    with pytest.raises(questions.DatasetError, match=r"is version v1 of MMAU's list, .* run mmau-mini-v1 instead\.$"):
        check(find_task("mmau-mini"), data)


def test_a_clip_too_short_to_be_heard(tmp_path):
    from kit.clip_files import wav_bytes

    (tmp_path / "a.wav").write_bytes(wav_bytes(0.01))
    data = write_lines(tmp_path / "list.jsonl", [{"audio": "a.wav", "text": "x"}])
    assert check(find_task("asr"), data).problems == {
        "short": ["list.jsonl, line 1: " + str(tmp_path / "a.wav") + ": 10 ms"]
    }


def test_the_command_prints_the_report_and_its_status_says_whether_it_is_complete(tmp_path, capsys):
    data = corpora_questions.nemo(tmp_path / "good", True)
    assert status("asr", "--data", str(data)) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("asr: 8 rows, 0.00 h, read as manifest")
    data = corpora_questions.nemo(tmp_path / "bad", False)
    assert status("asr", "--data", str(data), "--json") == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert Counter({k: len(v) for k, v in report["problems"].items()}) == Counter(
        missing=1, corrupt=1, silent=1, long=1
    )


def test_of_a_group_the_tasks_without_data_are_left_out(tmp_path, capsys):
    data = corpora_speech.librispeech_tree(tmp_path, True)
    assert status("librispeech-dev-clean,meld", "--data", str(data)) == 1
    said = capsys.readouterr()
    assert "librispeech-dev-clean: 8 rows" in said.out and "meld is left out: " in said.err
    assert status("meld,mmar", "--data", str(data)) == 2
    assert "holds no data of any of these 2 tasks" in capsys.readouterr().err
    assert status("meld", "--data", str(tmp_path / "gone")) == 2
    assert "There is no file or folder" in capsys.readouterr().err


def test_a_parquet_table_of_asr(tmp_path):
    pytest.importorskip("pyarrow")
    found = check(find_task("asr"), corpora_tables.asr_hub(tmp_path, True))
    assert found.rows == {"asr": 8} and found.is_complete
