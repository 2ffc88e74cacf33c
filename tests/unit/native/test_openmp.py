"""Threads that leave their OpenMP team compute as before, and the engine's callers do leave theirs."""

import os
import threading

import pytest
import torch

from qwen2_audio.engine import thread as engine_thread
from qwen2_audio.native import openmp


def product():
    x = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    return x @ x


def threads_of_process():
    return len(os.listdir("/proc/self/task"))


def test_a_thread_that_has_left_its_team_computes_the_same_again():
    first = product()
    leave_team = openmp.team_leaver()
    leave_team()
    leave_team()  # without one
    assert torch.equal(product(), first)


@pytest.mark.skipif(
    getattr(openmp.runtime(), "omp_pause_resource_all", None) is None or not os.path.isdir("/proc/self/task"),
    reason="needs GNU's OpenMP of torch, and Linux to count",
)
def test_the_teams_threads_are_gone():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        torch.ones(4_000_000).add_(1)  # large enough to be shared out
        together = threads_of_process()
        openmp.team_leaver()()
        assert threads_of_process() <= together - 2
    finally:
        torch.set_num_threads(before)


def test_another_runtime_is_left_alone(monkeypatch):
    monkeypatch.setattr(openmp, "runtime", lambda: None)
    openmp.team_leaver.__wrapped__()()


def test_who_starts_an_engine_or_asks_it_leaves_the_team(monkeypatch):
    left = []
    monkeypatch.setattr(engine_thread, "team_leaver", lambda: lambda: left.append(threading.current_thread()))

    class Idle:
        idle = True
        settings = type("Settings", (), {"max_waiting": 4, "max_num_seqs": 4})

        def check(self, *_):
            raise ValueError("not this one")

    def refuse():
        raise ValueError("not this one")

    engine = engine_thread.EngineThread(Idle())
    assert left == [threading.current_thread()]
    handle = engine.submit(refuse, engine_thread.SamplingParams())
    assert left == [threading.current_thread()] * 2
    with pytest.raises(ValueError, match="not this one"):
        handle.completions()
    engine.close()
