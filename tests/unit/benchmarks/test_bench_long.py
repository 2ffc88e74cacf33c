"""`python -m benchmarks long`: the rows, from a minute of speech."""

import shutil

import numpy as np
import pytest

from benchmarks.long import recording, run
from qwen2_audio.bench.report import table

pytestmark = pytest.mark.skipif(
    shutil.which("espeak-ng") is None or shutil.which("flite") is None, reason="needs espeak-ng and flite"
)


def test_a_recording_knows_where_its_utterances_lie():
    made = recording.record(8.0)
    ends = [0, *(end for _, end in made.spans)]
    for (start, end), before in zip(made.spans, ends, strict=False):
        assert 0.6 * 16_000 - 1 <= start - before <= 2 * 16_000 + 1
        assert not made.samples[before:start].any()
        assert np.sqrt((made.samples[start:end] ** 2).mean()) == pytest.approx(recording.LEVEL, rel=1e-3)
    noise = made.in_noise(20.0).samples - made.samples
    assert 20 * np.log10(recording.LEVEL / np.sqrt((noise**2).mean())) == pytest.approx(20, abs=0.1)


@pytest.mark.slow
def test_rows(monkeypatch):
    monkeypatch.setattr(run, "_QUICK_SECONDS", 12.0)
    report = run.run(run.Options(quick=True, threads=1))
    assert "nano on a recording of" in table(report).title
    rows = {row.name: row for row in report.rows}
    assert set(rows) == {
        "long.vad_x_real_time", "long.wer_excess", "long.wer_excess_20db", "long.segment_start_ms", "long.speedup",
    }  # fmt: skip
    assert rows["long.segment_start_ms"].value < 100 and rows["long.vad_x_real_time"].value > 50
    assert rows["long.wer_excess"].limit == 1.5 and abs(rows["long.wer_excess"].value) < 40
