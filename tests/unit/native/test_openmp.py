"""Threads that torch's OpenMP runtime gives each thread."""

import threading

import pytest
import torch

from qwen2_audio.native import openmp


@pytest.mark.skipif(openmp.runtime() is None, reason="torch brings no GNU OpenMP here")
def test_one_thread_holds_for_the_calling_thread_and_ends():
    seen = {}

    def elsewhere():
        seen["other"] = torch.get_num_threads()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with openmp.one_thread():
            seen["inside"] = torch.get_num_threads()
            other = threading.Thread(target=elsewhere)
            other.start()
            other.join()
        with pytest.raises(ValueError, match=r"^x$"), openmp.one_thread():
            raise ValueError("x")
        assert seen == {"inside": 1, "other": 2}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_without_that_runtime_nothing_changes(monkeypatch):
    monkeypatch.setattr(openmp, "runtime", lambda: None)
    before = torch.get_num_threads()
    with openmp.one_thread():
        assert torch.get_num_threads() == before
