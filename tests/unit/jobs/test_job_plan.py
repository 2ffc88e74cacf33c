"""How many replicas a corpus needs: the formula, and a measurement that is too short to plan by."""

from __future__ import annotations

import pytest

from qwen2_audio.errors import ConfigError, JobError
from qwen2_audio.jobs import plan as planning
from qwen2_audio.jobs.config import JobConfig
from qwen2_audio.jobs.plan import EFFICIENCY, Measurement, measure, plan


def test_replicas_follow_from_speed_hours_and_deadline():
    measured = Measurement(load_seconds=36.0, seconds=60.0, rows=120, failed=0, heard=1200.0)
    assert (measured.rows_per_second, measured.times_real) == (2.0, 20.0)
    made = plan(measured, hours=10_000.0, deadline_hours=24.0, price=2.0)
    work = 10_000 / (20 * EFFICIENCY)  # hours of one replica
    assert work / 24.0 < made.replicas < work / 23.9 + 1 and made.replicas == 25
    assert made.replica_hours == pytest.approx(work + 25 * 0.01)
    assert made.cost == pytest.approx(2 * made.replica_hours)
    assert plan(measured, 0.001, 24.0).replicas == 1 and plan(measured, 0.001, 24.0).cost is None


@pytest.mark.parametrize(
    ("hours", "deadline", "sentence"),
    [(0.0, 1.0, "expected hours, above 0"), (10.0, 0.005, "The deadline is 18 s away, and loading takes 36 s")],
)
def test_what_cannot_be_planned_is_refused(hours, deadline, sentence):
    with pytest.raises(ConfigError, match=sentence):
        plan(Measurement(36.0, 60.0, 120, 0, 1200.0), hours, deadline)


def test_one_worker_is_measured_on_the_first_rows(stub_job, monkeypatch):
    from benchmarks.jobs.stub_worker import FACTORY

    make = planning.make_worker
    monkeypatch.setattr(
        planning, "make_worker", lambda work, number: make(type(work)(work.config, FACTORY, {"seconds": 0.001}), number)
    )
    job = stub_job(200, do={5: "fail"})
    measured = measure(JobConfig.of(job.keys), seconds=60.0)
    assert (measured.rows, measured.failed, measured.heard) == (199, 1, 198.0)
    assert 0.15 < measured.seconds < 60 and not job.output.exists()
    with pytest.raises(JobError, match="too few to plan by"):
        measure(JobConfig.of(stub_job(3, do=dict.fromkeys(range(3), "fail")).keys), seconds=60.0)
