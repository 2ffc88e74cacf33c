"""Random kills of driver and workers: no row is lost, none is there twice, and every byte is that of a calm run."""

from __future__ import annotations

import pytest

from benchmarks.jobs.chaos import Damage, compare, disturb


@pytest.mark.parametrize(
    ("rows", "kills"), [(120, 8), pytest.param(2000, 100, marks=[pytest.mark.exhaustive, pytest.mark.timeout(900)])]
)
def test_kills_at_random_moments_cost_nothing(tmp_path, rows, kills):
    damage = disturb(tmp_path, rows, kills, seed=3, life=(0.25, 0.6))
    assert damage == Damage(kills, 0, 0, 0, 0)


def test_damage_is_seen(tmp_path):
    for name, lines in (
        ("calm", ['{"id": "a"}', '{"id": "b"}', '{"id": "c"}']),
        ("wild", ['{"id": "a", "x": 1}', '{"id": "b"}', '{"id": "b"}']),
    ):
        parts = tmp_path / name / "parts"
        parts.mkdir(parents=True)
        (parts / "part-00000.jsonl").write_text("\n".join(lines) + "\n")
    assert compare(tmp_path / "calm", tmp_path / "wild", 1) == Damage(1, 1, 1, 1, 1)
