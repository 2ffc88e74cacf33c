"""`python -m benchmarks jobs`: the rows, from a dozen clips; and what its figures mean."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.jobs import chaos, clips, run
from benchmarks.jobs.chaos import Damage
from qwen2_audio.audio.io import load
from qwen2_audio.datasets.corpus import open_corpus
from qwen2_audio.datasets.sounds import load_sound


def test_the_rows_come_from_a_job_as_users_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "QUICK_SIZES", (12, 8, 4, 1))
    monkeypatch.setattr(run, "rate_of_batch", lambda count, threads: 1e6)
    monkeypatch.setattr(chaos, "disturb", lambda folder, rows, kills, seed, seconds: Damage(kills, 0, 0, 0, 0))
    rows = {row.name: row for row in run.run(run.Options(quick=True, threads=1)).rows}
    assert list(rows) == ["jobs.local_efficiency", "jobs.memory_growth", "jobs.first_result_s", "jobs.chaos"]
    assert rows["jobs.local_efficiency"].missed and 0 < (rows["jobs.local_efficiency"].value or 0) < 0.85
    assert 0 < (rows["jobs.first_result_s"].value or 0) < 120
    assert rows["jobs.chaos"].value == 0 and not rows["jobs.chaos"].missed
    assert "MiB at most" in rows["jobs.memory_growth"].note


def test_memory_is_compared_with_the_first_minute() -> None:
    memory = [(second, 100 if second < 50 else 150 if second < 100 else 156) for second in range(200)]
    row = run.growth(run._Watched(1.0, 2.0, [(float(second), size) for second, size in memory]))
    assert row.value == pytest.approx(4.0) and row.limit == 10.0 and not row.missed


def test_the_clips_of_the_shards_are_those_in_memory(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "SHARD", 2)
    corpus = open_corpus(clips.write_shards(tmp_path, 3))
    assert len(corpus.files) == 2
    for number, row in enumerate(corpus.rows()):
        assert row.sound is not None and row.columns["number"] == number
        np.testing.assert_allclose(load_sound(row.sound).waveform, load(clips.samples_of(number)), atol=1e-4)
