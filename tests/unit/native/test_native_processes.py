"""A forked child computes: with OpenMP's threads or the library's own, none of which it has."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qwen2_audio.native import library

LOADED = library.load()

# Several threads compute, the process forks, and the child computes the same with as many threads.
PROGRAM = """
import os, signal, sys
import torch
from qwen2_audio.native import library, ops

if sys.argv[1] == "own":
    library.runtime = lambda: None
torch.set_num_threads(3)
codes = torch.randint(1, 256, (16, 4, 512), dtype=torch.uint8)
linear = ops.Handle(codes, torch.rand(16, 4, 16).half(), None, in_features=256, out_features=256, bits=4, group=64)
x = torch.randn(20, 256)

def computed():
    return ops.linears([linear], x)[0].numpy().tobytes()

parent = computed()
print(len(os.listdir("/proc/self/task")) >= 3)
child = os.fork()
if child == 0:
    signal.alarm(10)  # a child that waits for its parent's threads waits for ever
    os._exit(0 if computed() == parent else 1)
print(os.waitpid(child, 0)[1])
print(computed() == parent)
"""


@pytest.mark.skipif(LOADED.library is None, reason=LOADED.reason)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts its threads in /proc")
@pytest.mark.parametrize("team", ["own", "OpenMP"])
def test_a_forked_child_computes_the_same(team: str) -> None:
    command = [sys.executable, "-c", PROGRAM, team]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    threads_run, child_status, parent_again = done.stdout.split()
    assert threads_run == "True", "no threads were started, so nothing was tested"
    assert child_status == "0", "the child was ended by its alarm (14) or computed something else (256)"
    assert parent_again == "True"
