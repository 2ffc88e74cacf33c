"""A job's folder: one row out for each row in, whatever stops it, and nobody else's."""

from __future__ import annotations

import errno
import json
import os

import pytest

from qwen2_audio.datasets.row import Row
from qwen2_audio.errors import ConfigError, DatasetError, JobError
from qwen2_audio.jobs.export import export
from qwen2_audio.jobs.reading import sound_of
from qwen2_audio.jobs.status import status_of


def test_every_row_is_there_once_with_its_columns_and_the_answer(stub_job):
    job = stub_job(20, do={5: "fail", 19: "fail"})
    summary = job.run()
    assert job.ids() == [f"row-{number}" for number in range(20)]
    assert list(job.lines("parts")) == [f"part-0000{n}.jsonl" for n in range(3)]
    first = job.lines("parts")["part-00000.jsonl"][0]
    assert first == {
        "id": "row-0", "audio": "https://nowhere/0.wav", "n": 0, "text": "This is row-0.", "heard": 1.0,
        "finish_reason": "stop", "usage": {"prompt_tokens": 0, "audio_tokens": 25, "completion_tokens": 3}, "notes": [],
        "model": "stub",
    }  # fmt: skip
    assert job.lines("errors")["part-00000.jsonl"] == [
        {
            "id": "row-5", "audio": "https://nowhere/5.wav", "n": 5, "do": "fail", "row": 5,
            "error": "row-5 is no sound.", "kind": "AudioError",
        }
    ]  # fmt: skip
    assert not job.lines("journal")
    assert (summary.exit_status, summary.progress.done, summary.progress.failed) == (1, 18, 2)
    assert summary.errors == (("row-5", "row-5 is no sound."), ("row-19", "row-19 is no sound."))


def test_equal_clips_are_rows_of_their_own_and_a_column_called_as_ours_is_kept(tmp_path, stub_job):
    job = stub_job(0)
    rows = [{"id": "same", "audio": "https://nowhere/1.wav", "text": "spoken", "model": "mic", "input_text": "x"}] * 3
    job.input.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert job.run().exit_status == 0
    found = job.lines("parts")["part-00000.jsonl"]
    assert len(found) == 3 and {row["id"] for row in found} == {"same"}
    assert (found[0]["input_text"], found[0]["input_input_text"]) == ("spoken", "x")
    assert (found[0]["text"], found[0]["input_model"], found[0]["model"]) == ("This is same.", "mic", "stub")


def test_nothing_is_done_twice(stub_job, monkeypatch):
    job = stub_job(20)
    job.run()
    before = job.bytes()
    monkeypatch.setattr("qwen2_audio.jobs.run.InThisProcess", None)  # no worker is made
    summary = job.run()
    assert job.bytes() == before and summary.exit_status == 0
    assert (summary.progress.before, summary.progress.asked) == (20, 0)


def test_what_failed_before_is_named_again(stub_job):
    job = stub_job(20, do={3: "fail"})
    assert job.run().errors == job.run().errors == (("row-3", "row-3 is no sound."),)


def test_another_shard_s_model_is_seen_though_it_loaded_later(stub_job):
    from qwen2_audio.jobs.identity import JobFile
    from qwen2_audio.jobs.runner import About

    job = stub_job(20)
    job.output.mkdir()
    first, second = JobFile(job.output), JobFile(job.output)
    first.enter({"clips": "x"})
    second.enter({"clips": "x"})
    first.check_model(About("one", "m"))
    with pytest.raises(JobError, match="holds answers of m"):
        second.check_model(About("two", "m"))


class StoppedError(Exception):
    pass


def test_a_run_that_stops_anywhere_goes_on_to_the_same_bytes(stub_job):
    calm = stub_job(20, do={3: "fail"}, output="calm")
    calm.run()
    for after in (1, 7, 8, 9, 15):
        job = stub_job(20, do={3: "fail"}, output=f"stopped-{after}")
        stop_after(job, after)
        journal = sum(len(rows) for rows in job.lines("journal").values())
        done = sum(len(rows) for place in ("parts", "errors") for rows in job.lines(place).values())
        assert journal + done == after
        summary = job.run()
        assert summary.progress.before == after
        assert job.bytes() == calm.bytes()


def stop_after(job, count):
    """Run until `count` outcomes are kept."""
    from benchmarks.jobs.stub_worker import FACTORY
    from qwen2_audio.jobs.config import JobConfig
    from qwen2_audio.jobs.run import Job

    def advance(progress):
        if progress.asked == count:
            raise StoppedError

    with pytest.raises(StoppedError):
        Job(JobConfig.of(job.keys), factory=FACTORY, advance=advance).run()


def test_a_line_that_a_kill_has_torn_is_asked_again(stub_job):
    job = stub_job(8)
    stop_after(job, 5)
    (journal,) = (job.output / "journal").iterdir()
    journal.write_bytes(journal.read_bytes()[:-7])
    assert job.run().progress.before == 4
    assert job.ids() == [f"row-{number}" for number in range(8)]


def test_a_leftover_journal_of_a_part_that_is_whole_changes_nothing(stub_job):
    job = stub_job(8)
    job.run()
    before = job.bytes()
    (job.output / "journal" / "part-00000.jsonl").write_text('{"number": 0, "error": "x"}\n')
    assert job.run().exit_status == 0
    assert job.bytes() == before


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"ask": "Who is it?"}, "with ask 'What is it?', not 'Who is it?'"),
        ({"rows_per_part": 4}, "parts of another size (8, not 4)"),
        ({"limit": 4}, "another limit (None, not 4)"),
        ({"format": "parquet"}, "another format ('jsonl', not 'parquet')"),
    ],
)
def test_another_job_is_refused_in_one_sentence(stub_job, keys, sentence):
    job = stub_job(9)
    job.run()
    with pytest.raises(JobError) as found:
        job.run(**keys)
    assert str(found.value) == f"{job.output} holds another job, {sentence}; name another 'output'."


def test_other_clips_and_another_model_are_refused(stub_job):
    job = stub_job(9)
    stop_after(job, 3)
    with pytest.raises(
        JobError, match=r"holds answers of stub .stub, none., and this run's are of stub .other, none.;"
    ):
        job.run(options={"fingerprint": "other"})
    job.input.write_text(job.input.read_text() + '{"id": "row-9", "audio": "https://nowhere/9.wav"}\n')
    with pytest.raises(JobError, match="holds another job, other clips"):
        job.run()


def test_two_runs_at_once_are_refused_and_two_shards_are_not(stub_job):
    from qwen2_audio.jobs.folder import JobFolder

    job = stub_job(30)
    folder = JobFolder(job.output, "jsonl", {})
    folder.make()
    with folder.locked((1, 2)):
        with pytest.raises(JobError, match="Another run writes into"):
            job.run(shard="1/2")
        job.run(shard="2/2")
    assert list(job.lines("parts")) == ["part-00001.jsonl", "part-00003.jsonl"]
    assert status_of(job.output).done == 14
    job.run(shard="1/2")
    assert job.ids() == [f"row-{number}" for number in range(30)]
    assert (status_of(job.output).total, status_of(job.output).done) == (30, 30)


def test_there_is_no_limit_of_errors_unless_asked_for(stub_job):
    job = stub_job(20, do=dict.fromkeys(range(12), "fail"))
    stopped = job.run(max_errors=3)
    assert stopped.stopped == "It stopped because 4 rows failed, more than max_errors = 3." and stopped.exit_status == 1
    whole = job.run()
    assert (whole.stopped, whole.progress.all_failed, whole.progress.all_done) == ("", 12, 20)


def test_failed_rows_are_asked_again_and_only_those(stub_job):
    job = stub_job(20, do={2: "fail", 12: "fail"})
    job.run()
    whole = job.lines("parts")["part-00002.jsonl"]
    rows = [json.loads(line) for line in job.input.read_text().splitlines()]
    again = job.run(retry=True)
    assert (again.progress.asked, again.progress.before, again.exit_status) == (2, 18, 1)
    assert [rows["n"] for rows in job.lines("errors")["part-00001.jsonl"]] == [12]
    assert job.lines("parts")["part-00002.jsonl"] == whole and len(rows) == 20
    assert job.ids() == [f"row-{number}" for number in range(20)]


def test_rows_of_a_part_that_is_not_whole_are_asked_again_too(stub_job):
    job = stub_job(6, do={2: "fail"})
    assert job.run(max_errors=0).stopped == "It stopped because 1 row failed, more than max_errors = 0."
    journal = job.output / "journal" / "part-00000.jsonl"
    lines = journal.read_bytes()
    journal.write_bytes(lines.replace(b"row-2 is no sound.", b"It was no sound then."))
    assert [error for _, error in job.run(retry=True).errors] == ["row-2 is no sound."]
    journal.write_bytes(b'{"number": 0}\n{"number":\n')
    (job.output / "parts" / "part-00000.jsonl").unlink()
    with pytest.raises(JobError, match=r"part-00000.jsonl, line 2, is no outcome"):
        job.run(retry=True)


def test_a_kill_in_the_middle_of_a_retry_loses_nothing(stub_job, monkeypatch):
    job = stub_job(16, do={2: "fail", 12: "fail"})
    job.run()
    before = job.bytes()
    unlink = type(job.output).unlink

    def killed(path, *args, **options):
        unlink(path, *args, **options)
        if path.parent.name == "parts":
            raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(type(job.output), "unlink", killed)
        with pytest.raises(StoppedError):
            job.run(retry=True)
    job.run()
    assert job.bytes() == before


def test_a_full_disk_stops_with_a_sentence_and_the_same_command_goes_on(stub_job, monkeypatch):
    calm = stub_job(20, output="calm")
    calm.run()
    job = stub_job(20)
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(
            JobError, match=r"cannot be written: No space left on device; .* kept. Make room, and run the same"
        ):
            job.run()
    job.run()
    assert job.bytes() == calm.bytes()


def test_parquet_parts_have_the_same_rows_and_types(stub_job):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    job = stub_job(20, do={3: "fail"}, format="parquet")
    job.run()
    tables = [pyarrow.read_table(path) for path in sorted((job.output / "parts").iterdir())]
    assert [table.num_rows for table in tables] == [7, 8, 4]
    assert len({str(table.schema.field("usage")) + str(table.schema.field("notes")) for table in tables}) == 1
    assert tables[0].to_pylist()[0]["usage"] == {"prompt_tokens": 0, "audio_tokens": 25, "completion_tokens": 3}
    before = {path.name: pyarrow.read_table(path).to_pylist() for path in (job.output / "parts").iterdir()}
    job.run(retry=True)
    assert {path.name: pyarrow.read_table(path).to_pylist() for path in (job.output / "parts").iterdir()} == before


def test_a_job_is_exported_in_the_corpus_s_order(stub_job, tmp_path):
    job = stub_job(20, do={3: "fail"})
    job.run()
    assert export(job.output, tmp_path / "all.jsonl") == 19
    numbers = [json.loads(line)["n"] for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert numbers == [number for number in range(20) if number != 3]
    assert export(job.output, tmp_path / "all.csv") == 19
    header, first, *_ = (tmp_path / "all.csv").read_text().splitlines()
    assert header.startswith("id,audio,n,text,heard") and "This is row-0." in first
    assert export(job.output, tmp_path / "errors.jsonl", errors=True) == 1
    with pytest.raises(ConfigError, match=r"ends in '.xlsx'; expected .jsonl, .parquet, .csv"):
        export(job.output, tmp_path / "all.xlsx")
    pyarrow = pytest.importorskip("pyarrow.parquet")
    assert export(job.output, tmp_path / "all.parquet") == 19
    assert pyarrow.read_table(tmp_path / "all.parquet").column("n").to_pylist() == numbers


def test_status_is_told_from_the_folder_alone(stub_job, tmp_path):
    job = stub_job(20, do={3: "fail"})
    stop_after(job, 10)
    status = status_of(job.output)
    assert (status.done, status.failed, status.asked["operation"], status.model) == (9, 1, "ask", "stub")
    assert not status.running, "the run has ended, though not at the end of the job"
    job.run()
    status = status_of(job.output)
    assert (status.done, status.failed, status.total, status.running) == (19, 1, 20, False)
    assert status.rate and status.times_real
    assert status.cost(2.0) == pytest.approx(2.0 / status.times_real)
    with pytest.raises(JobError, match="holds no job"):
        status_of(tmp_path / "nothing")


def test_a_corpus_without_rows_or_with_a_broken_list_says_so(stub_job):
    job = stub_job(20)
    lines = job.input.read_text().splitlines()
    job.input.write_text("\n".join([*lines[:12], "{broken", *lines[13:]]))
    with pytest.raises(DatasetError, match=r"rows.jsonl, line 13 is not JSON"):
        job.run()
    assert job.lines("parts")["part-00000.jsonl"]
    empty = stub_job(0)
    with pytest.raises(DatasetError, match="is empty; expected rows"):
        empty.run()


def test_status_counts_a_part_that_becomes_whole_meanwhile_and_passes_over_a_damaged_line(stub_job, monkeypatch):
    job = stub_job(8, do={3: "fail"})
    stop_after(job, 6)
    (journal,) = (job.output / "journal").iterdir()
    with journal.open("ab") as file:
        file.write(b"\0\0\n")
    assert (status_of(job.output).done, status_of(job.output).failed) == (5, 1)
    journal.write_bytes(journal.read_bytes()[:-3])
    read = type(journal).read_bytes

    def finished(path):
        monkeypatch.undo()
        job.run()
        return read(path)

    monkeypatch.setattr(type(journal), "read_bytes", finished)
    status = status_of(job.output)
    assert (status.done, status.failed) == (7, 1)


def test_a_damaged_part_is_named(stub_job):
    pytest.importorskip("pyarrow")
    job = stub_job(8, format="parquet")
    job.run()
    (part,) = (job.output / "parts").iterdir()
    part.write_bytes(part.read_bytes()[:-9])
    for read in (job.run, lambda: status_of(job.output)):
        with pytest.raises(JobError, match=r"part-00000.parquet cannot be read .*; take it out, and its rows are"):
            read()


@pytest.mark.parametrize(("output", "format"), [(".", "jsonl"), ("out", "parquet")])
def test_an_output_that_would_be_taken_for_the_input_is_refused(stub_job, output, format):
    job = stub_job(3)
    with pytest.raises(ConfigError, match=r"lies in input .*; name a folder outside"):
        job.run(input=str(job.folder), output=str(job.folder / output), format=format)
    assert job.run(input=str(job.folder)).exit_status == job.run(input=str(job.folder)).exit_status == 0


def test_a_number_that_is_none_is_a_value_that_is_missing(tmp_path, stub_job):
    job = stub_job(2)
    job.input.write_text('{"id": "a", "audio": "a.wav", "n": NaN}\n{"id": "b", "audio": "b.wav", "n": Infinity}\n')
    job.run()
    lines = (job.output / "parts" / "part-00000.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)["n"] for line in lines] == [None, "inf"]


@pytest.mark.parametrize("columns", [{"audio": ""}, {"audio": None}, {"Path": []}])
def test_a_row_whose_sound_is_empty_says_so(columns):
    with pytest.raises(DatasetError, match=r"^line 3: the column '(audio|Path)' is empty; expected a path"):
        sound_of(Row("a", None, "line 3", {"id": "a", **columns}))
