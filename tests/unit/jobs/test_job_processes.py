"""Workers in processes of their own: their deaths cost nothing, and a row that kills them is found and given up."""

from __future__ import annotations

import signal

import pytest

from qwen2_audio.datasets.row import Row
from qwen2_audio.errors import ConfigError, JobError
from qwen2_audio.jobs.process_runner import how
from qwen2_audio.jobs.runner import JobRow
from qwen2_audio.jobs.suspects import STRIKES_CRASHED, STRIKES_KILLED, Suspects


def rows(*numbers):
    return [JobRow(number, Row(f"row-{number}", None, "")) for number in numbers]


def numbers(items):
    return [item.row.number if hasattr(item, "strikes") else item.number for item in items]


@pytest.mark.parametrize(("crashed", "strikes"), [(True, STRIKES_CRASHED), (False, STRIKES_KILLED)])
def test_of_many_suspects_the_one_that_kills_is_found_and_no_other_is_given_up(crashed, strikes):
    suspects, poison, deaths = Suspects(), 37, 1
    given_up = suspects.died(rows(*range(96)), crashed=crashed, how="signal 11")
    answered = []
    while suspects:
        group = suspects.take()
        if poison in numbers(group):
            deaths += 1
            given_up += suspects.died(group, crashed=crashed, how="signal 11")
        else:
            for row in group:
                suspects.answered(row.number)
            answered += numbers(group)
    assert numbers(given_up) == [poison] and sorted(answered) == [n for n in range(96) if n != poison]
    assert given_up[0].error == f"It killed its worker {strikes} times while it was alone with it, by signal 11."
    assert deaths == 2 + strikes  # with 96, with 12, then alone


def test_rows_that_were_answered_are_free_of_suspicion():
    suspects = Suspects()
    suspects.died(rows(1), crashed=True, how="")
    assert numbers(suspects.take()) == [1]
    suspects.answered(1)
    assert suspects.died(rows(1), crashed=True, how="") == []


def test_ends_of_processes_have_words():
    assert how(-signal.SIGSEGV) == "signal 11 (SIGSEGV)" and how(3) == "exit status 3" and how(-200) == "signal 200"


def test_rows_that_kill_their_worker_are_quarantined_and_all_others_answered(stub_job):
    poison = {3: "crash", 11: "kill", 20: "exit"}
    calm = stub_job(40, output="calm")
    calm.run()
    job = stub_job(40, do=poison, workers=2)
    summary = job.run(options={"window": 4})
    assert job.ids() == [f"row-{number}" for number in range(40)]
    errors = {row["row"]: row for rows in job.lines("errors").values() for row in rows}
    assert errors.keys() == poison.keys() and {row["kind"] for row in errors.values()} == {"killed its worker"}
    assert errors[3]["error"] == "It killed its worker 2 times while it was alone with it, by signal 11 (SIGSEGV)."
    assert errors[11]["error"].startswith("It killed its worker 3 times") and "SIGKILL" in errors[11]["error"]
    assert errors[20]["error"].endswith("by exit status 3.")
    assert summary.exit_status == 1
    answers = {row["id"]: row for rows in job.lines("parts").values() for row in rows}
    expected = {row["id"]: row for rows in calm.lines("parts").values() for row in rows}
    assert answers == {name: row for name, row in expected.items() if int(name[4:]) not in poison}


def test_processes_write_the_bytes_that_one_process_writes(stub_job):
    calm = stub_job(60, do={7: "fail"}, output="calm")
    calm.run()
    job = stub_job(60, do={7: "fail"}, workers=2)
    job.run(options={"window": 5, "faults": 0.02})
    assert job.bytes() == calm.bytes()


def test_what_a_worker_cannot_load_is_said_as_here(stub_job):
    from qwen2_audio.jobs.config import JobConfig
    from qwen2_audio.jobs.run import Job

    job = stub_job(4, workers=1)
    config = JobConfig.of(job.keys)
    with pytest.raises(ConfigError, match="the stub's reason"):
        Job(config, factory="kit.refusing_worker:RefusingWorker", options={"reason": "the stub's reason"}).run()
    with pytest.raises(JobError, match="died 5 times before it answered anything, by exit status 7"):
        Job(config, factory="kit.refusing_worker:RefusingWorker", options={"status": 7}).run()
