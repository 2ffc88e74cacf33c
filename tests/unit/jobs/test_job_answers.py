"""Jobs with nano: the answers are those of m.batch, long and hostile clips cost their rows only."""

from __future__ import annotations

import io
import json
import shutil
import tarfile

import numpy as np
import pytest

import qwen2_audio as qa
from kit.clip_files import wav_bytes
from qwen2_audio.evaluate.clips import wav_bytes as pcm
from qwen2_audio.jobs.run import run_job
from qwen2_audio.jobs.runner import InThisProcess

CLIPS = qa.nano_path() / "clips"
GREEDY = {"temperature": 0.0, "max_tokens": 24}


@pytest.fixture(scope="module")
def nano_runner():
    """Runs jobs in this process, by workers that share one loaded nano."""
    from qwen2_audio.jobs import model_worker

    chat = qa.load("nano", dtype="float32", device="cpu")

    class Shared(InThisProcess):
        def run(self, work, rows, ready):
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(model_worker, "load", lambda *_, **__: chat)
                patched.setattr(model_worker.ModelWorker, "close", lambda self: None)
                yield from super().run(work, rows, ready)

    return Shared(), chat


def hostile(folder):
    """Twenty clips and a bad one, each in its own way."""
    folder.mkdir()
    good = sorted(CLIPS.glob("*.wav"))
    for number in range(20):
        shutil.copy(good[number % len(good)], folder / f"good-{number:02}.wav")
    (folder / "bad-empty.wav").write_bytes(b"")
    (folder / "bad-text.flac").write_text("no sound at all")
    (folder / "bad-short.wav").write_bytes(wav_bytes(0.001))
    (folder / "bad-long.wav").write_bytes(wav_bytes(31.0))
    (folder / "bad-header.wav").write_bytes(good[0].read_bytes()[:44])
    return folder


def read(folder, place):
    return [json.loads(line) for path in sorted((folder / place).iterdir()) for line in path.read_text().splitlines()]


def test_every_good_clip_is_answered_as_by_batch_and_every_bad_one_named(tmp_path, nano_runner):
    runner, chat = nano_runner
    folder = hostile(tmp_path / "clips")
    job = {"input": str(folder), "output": str(tmp_path / "out"), "ask": "What is that sound?", "sampling": GREEDY}
    summary = run_job(job, runner=runner)
    assert (summary.progress.done, summary.progress.failed, summary.exit_status) == (20, 5, 1)
    answers, errors = read(tmp_path / "out", "parts"), read(tmp_path / "out", "errors")
    assert [row["id"] for row in answers] == [f"good-{number:02}.wav" for number in range(20)]
    assert {row["id"] for row in errors} == {f"bad-{why}" for why in (
        "empty.wav", "text.flac", "short.wav", "long.wav", "header.wav"
    )}  # fmt: skip
    assert {row["kind"] for row in errors} == {"AudioError", "LongClipError"}
    assert all(row["id"] in row["error"] for row in errors)
    params = qa.SamplingParams(**GREEDY)
    asked = [[qa.user("What is that sound?", audio=str(folder / row["id"]))] for row in answers]
    for row, completion in zip(answers, chat.batch(asked, params), strict=True):
        assert (row["text"], row["finish_reason"]) == (completion.text, completion.finish_reason)
        assert row["heard"] == pytest.approx(completion.heard[0].seconds)
        assert row["usage"]["prompt_tokens"] == completion.usage.prompt_tokens
    assert {len(row["model"]) for row in answers} == {12}


def test_a_row_s_columns_are_in_its_question_and_its_text_file_is_kept(tmp_path, nano_runner):
    runner, chat = nano_runner
    rows = [
        {"audio": str(CLIPS / "dog.wav"), "what": "a dog"},
        {"audio": str(CLIPS / "rain.wav"), "what": "a dog"},
        {"audio": str(CLIPS / "cat.wav")},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    job = {
        "input": str(tmp_path / "rows.jsonl"),
        "output": str(tmp_path / "out"),
        "ask": "Is this {what}?",
        "sampling": GREEDY,
    }
    run_job(job, runner=runner)
    answers = read(tmp_path / "out", "parts")
    expected = chat.batch(
        [[qa.user("Is this a dog?", audio=row["audio"])] for row in rows[:2]], qa.SamplingParams(**GREEDY)
    )
    assert [row["text"] for row in answers] == [completion.text for completion in expected]
    (error,) = read(tmp_path / "out", "errors")
    assert error["error"] == "The question names {what}, and the row has no such value."
    with pytest.raises(
        qa.ConfigError, match=r"The question names {who}; expected one of the corpus's columns: id, audio, what"
    ):
        run_job({**job, "output": str(tmp_path / "other"), "ask": "Is this {who}?"}, runner=runner)


def test_speech_of_tar_shards_is_transcribed(tmp_path, nano_runner):
    runner, chat = nano_runner
    with tarfile.open(tmp_path / "shard.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("capital.wav", "sum.wav"):
            archive.add(CLIPS / name, name)
        text = tarfile.TarInfo("sum.txt")
        text.size = 5
        archive.addfile(text, io.BytesIO(b"human"))
    job = {"input": str(tmp_path / "*.tar"), "output": str(tmp_path / "out"), "transcribe": True}
    assert run_job(job, runner=runner).exit_status == 0
    answers = read(tmp_path / "out", "parts")
    assert [row["text"] for row in answers] == [
        chat.transcribe(str(CLIPS / name)).text for name in ("capital.wav", "sum.wav")
    ]
    assert (answers[1]["input_text"], answers[1]["id"], answers[1]["key"]) == ("human", "sum", "sum")
    assert answers[0]["segments"][0]["end"] > 0 and answers[0]["finish_reason"] == "stop"


def test_a_long_clip_is_heard_in_parts_where_the_job_says_so(tmp_path, nano_runner):
    runner, chat = nano_runner
    samples = np.concatenate([qa.audio.load(CLIPS / "dog.wav"), np.zeros(31 * 16_000, np.float32)])
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "long.wav").write_bytes(pcm(samples))
    job = {"input": str(tmp_path / "clips"), "ask": "What is that sound?", "sampling": GREEDY}
    summary = run_job({**job, "output": str(tmp_path / "out"), "long": "native"}, runner=runner)
    assert summary.exit_status == 0
    (row,) = read(tmp_path / "out", "parts")
    asked = [qa.user("What is that sound?", audio=str(tmp_path / "clips" / "long.wav"))]
    expected = chat.chat(asked, qa.SamplingParams(**GREEDY), long="native")
    assert row["text"] == expected.text and row["heard"] > 0
    with pytest.raises(qa.ConfigError, match="long is 'part'; expected refuse, parts"):
        run_job({**job, "output": str(tmp_path / "other"), "long": "part"}, runner=runner)


def test_a_worker_process_answers_as_this_one(tmp_path, nano_runner):
    runner, _ = nano_runner
    job = {"input": str(CLIPS), "ask": "What is that sound?", "dtype": "float32", "device": "cpu", "sampling": GREEDY}
    for name, chosen in (("here", runner), ("there", None)):
        run_job({**job, "output": str(tmp_path / name)}, runner=chosen)
    assert read(tmp_path / "here", "parts") == read(tmp_path / "there", "parts")


def test_clips_are_read_ahead_and_no_further(tmp_path):
    """However many rows there are, a bounded number is read before the engine has room."""
    from qwen2_audio.datasets.row import Row
    from qwen2_audio.jobs.reading import AHEAD, answered
    from qwen2_audio.jobs.runner import JobRow

    taken, open_now = [], set()

    class Slow:
        def read(self, item):
            return np.zeros(1, np.float32)

        def submit(self, item, read):
            open_now.add(item.number)
            assert len(open_now) <= 4
            return self

        def done(self):
            return True

        def result(self):
            open_now.pop()
            return {"text": ""}

    def rows():
        for number in range(500):
            taken.append(number)
            yield JobRow(number, Row(str(number), None, ""))

    outcomes = answered(Slow(), rows(), 4)
    next(outcomes)
    assert len(taken) <= AHEAD + 4 + 1
    assert len({outcome.number for outcome in outcomes}) == 499


@pytest.mark.parametrize(
    ("cause", "asked"),
    [(ConnectionResetError("reset"), 3), (FileNotFoundError("gone"), 1), (None, 1)],
    ids=["reset", "gone", "bad"],
)
def test_a_store_that_does_not_answer_is_asked_three_times(monkeypatch, cause, asked):
    from qwen2_audio.datasets.row import Row
    from qwen2_audio.jobs import reading
    from qwen2_audio.jobs.runner import JobRow

    monkeypatch.setattr(reading, "PATIENCE", 0.001)
    calls = []

    class Broken:
        submit = None

        def read(self, item):
            calls.append(item)
            raise qa.AudioError("It cannot be read.") from cause

    (outcome,) = reading.answered(Broken(), iter([JobRow(0, Row("0", None, ""))]), 4)
    assert (outcome.error, outcome.kind, len(calls)) == ("It cannot be read.", "AudioError", asked)


def test_the_gpus_of_a_machine_are_taken_by_turns(monkeypatch):
    import torch

    from qwen2_audio.jobs.model_worker import _device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [_device("auto", number) for number in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert _device("cpu", 1) == "cpu"
