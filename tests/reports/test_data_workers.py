"""Processes that read rows ahead: none outlives a killed trainer, and what kills one is one sentence."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from kit import warm
from qwen2_audio.train import checkpoint, sft
from qwen2_audio.train.config import TrainConfig
from qwen2_audio.train.metrics import read

pytestmark = pytest.mark.skipif(not Path("/proc/self/comm").is_file(), reason="processes are looked up in /proc")

# The command in a process group of its own; argv: CONFIG, SECONDS that each step waits before it begins, how processes
# are started. The workers are written to CONFIG.workers.
PROGRAM = """
import multiprocessing, os, sys, time
from pathlib import Path
os.setpgrp()
multiprocessing.set_start_method(sys.argv[3], force=True)
from qwen2_audio.train import loop
step = loop.train_step
def slow(*arguments):
    Path(sys.argv[1] + ".workers").write_text(" ".join(str(child.pid) for child in multiprocessing.active_children()))
    time.sleep(float(sys.argv[2]))
    return step(*arguments)
loop.train_step = slow
from qwen2_audio.cli.main import main
main(["train", "sft", sys.argv[1]])
"""


@pytest.fixture
def config(tmp_path, wav_file, tiny_checkpoint):
    """A TOML file of a run whose rows do not fit into a pipe: 16 clips of 3 s, read by two workers."""
    with (tmp_path / "rows.jsonl").open("w") as file:
        for number in range(16):
            clip = {"type": "audio", "audio": str(wav_file(f"{number}.wav", 3.0, hertz=100.0 + number))}
            said = {"role": "assistant", "content": "a tone"}
            file.write(json.dumps({"messages": [{"role": "user", "content": [clip]}, said]}) + "\n")
    toml = tmp_path / "run.toml"
    toml.write_text(
        f'model = "{tiny_checkpoint}"\noutput = "{tmp_path / "run"}"\nsteps = 24\ncheckpoint_every = 2\n'
        f'device = "cpu"\n[data]\ntrain = "{tmp_path / "rows.jsonl"}"\nbatch_size = 1\nworkers = 2\n'
    )
    return toml


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def start(config, seconds, method="fork"):
    """The program once its first step is done, and its workers."""
    program = warm.Program(["-c", PROGRAM, config, seconds, method])
    assert wait_until(lambda: read(config.parent / "run" / "metrics.jsonl")), program.read(2)
    workers = [int(pid) for pid in config.with_name("run.toml.workers").read_text().split()]
    assert len(workers) == 2 and all(map(runs, workers))
    return program, workers


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_kill_9_of_the_trainer_leaves_no_worker(config, method):
    program, workers = start(config, 3.0, method)
    time.sleep(1.0)  # the workers have read all that they may read ahead, and wait for a reader
    os.kill(program.pid, signal.SIGKILL)
    assert program.wait().returncode == -signal.SIGKILL
    try:
        assert wait_until(lambda: not any(map(runs, workers)), 15)
    finally:
        for pid in filter(runs, workers):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("number", "method"), [(signal.SIGKILL, "fork"), (signal.SIGSEGV, "fork"), (signal.SIGKILL, "forkserver")]
)
def test_a_worker_that_is_killed_is_one_sentence_and_the_run_goes_on_later(config, tmp_path, number, method):
    program, workers = start(config, 0.5, method)
    assert wait_until(lambda: checkpoint.newest(tmp_path / "run"))
    os.kill(workers[0], number)
    done = program.wait()
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1].lstrip("\0")  # which torch writes after a segmentation fault
    assert last.startswith(f"qwen2-audio: A process that reads rows ahead ({workers[0]}, one of data.workers = 2) ")
    assert "was killed (signal: " in last or "ended unexpectedly" in last  # whichever torch notices first
    assert "run the same command again to go on" in last
    assert wait_until(lambda: not any(map(runs, workers)), 15)
    sft.run(TrainConfig.from_file(config))
    assert len(read(tmp_path / "run" / "metrics.jsonl")) == 24


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_saves_first(config, tmp_path, number):
    """Ctrl-C, a service that is stopped: the workers get the signal as well."""
    program, workers = start(config, 0.3)
    os.killpg(program.pid, number)
    done = program.wait()
    assert done.returncode == (128 + signal.SIGTERM if number == signal.SIGTERM else 130), done.stderr
    assert "Traceback" not in done.stderr
    assert "saved in" in done.stderr.replace("\n", "")
    assert checkpoint.newest(tmp_path / "run")
    assert wait_until(lambda: not any(map(runs, workers)), 15)
