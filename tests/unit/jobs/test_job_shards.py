"""What a job's folder says of its rows, where several runs share them."""

from __future__ import annotations

import json

from qwen2_audio.cli.main import run
from qwen2_audio.jobs.status import status_of


def test_half_of_the_shards_is_not_the_whole_job(stub_job, tmp_path):
    job, to = stub_job(32), str(tmp_path / "all.jsonl")
    job.run(shard="1/2")
    assert status_of(job.output).total is None
    assert run(["job", "export", str(job.output), to]) == 1
    job.run(shard="2/2")
    assert status_of(job.output).total == 32
    assert run(["job", "export", str(job.output), to]) == 0


def test_a_run_with_other_shards_before_does_not_count(stub_job):
    job = stub_job(32)
    job.output.mkdir()
    killed = {"total": 32, "done": 8, "started": 1.0, "updated": 2.0}
    (job.output / "progress-1-of-1.json").write_text(json.dumps(killed))
    job.run(shard="1/2")
    assert status_of(job.output).total is None
    job.run(shard="2/2")
    status = status_of(job.output)
    assert (status.total, status.done, status.running) == (32, 32, False)
    job.run()  # finds nothing left to do
    assert status_of(job.output).total == 32


def test_journals_of_other_shards_are_left_alone(stub_job):
    """Their run may be between a part and the end of its journal, which it then cannot find."""
    job = stub_job(32)
    job.run()
    for number in (0, 1):
        (job.output / "journal" / f"part-{number:05}.jsonl").write_bytes(b"")
    job.run(shard="1/2")
    assert [path.name for path in (job.output / "journal").iterdir()] == ["part-00001.jsonl"]
