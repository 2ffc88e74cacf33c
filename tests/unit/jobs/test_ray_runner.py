"""A job on Ray: the rows of the local run, also where a worker is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

import qwen2_audio as qa
from qwen2_audio.datasets.row import Row
from qwen2_audio.errors import ConfigError, JobError
from qwen2_audio.jobs import ray_runner
from qwen2_audio.jobs.config import JobConfig
from qwen2_audio.jobs.ray_runner import OnRay
from qwen2_audio.jobs.run import run_job
from qwen2_audio.jobs.runner import About, InThisProcess, JobRow, Outcome, Work

CLIPS = sorted((qa.nano_path() / "clips").glob("*.wav"))


def job(folder, output: str, **more) -> dict:
    return {"model": "nano", "input": str(folder / "rows.jsonl"), "output": str(folder / output),
            "ask": "What is that sound?", "sampling": {"temperature": 0.0, "max_tokens": 12}, **more}  # fmt: skip


def manifest(folder, count: int) -> None:
    lines = [f'{{"id": "row-{number}", "audio": "{CLIPS[number % len(CLIPS)]}"}}\n' for number in range(count)]
    (folder / "rows.jsonl").write_text("".join(lines))


def written(folder) -> list[str]:
    return [line for part in sorted((folder / "parts").glob("*.jsonl")) for line in part.read_text().splitlines()]


def without_ray(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)


def test_without_ray_a_job_says_what_to_install(tmp_path, monkeypatch):
    without_ray(monkeypatch)
    manifest(tmp_path, 1)
    with pytest.raises(ConfigError) as error:
        run_job(job(tmp_path, "out"), runner=OnRay("auto"))
    assert str(error.value) == "Running on Ray needs Ray: pip install 'qwen2-audio[ray]'."


def test_where_nothing_is_left_to_do_no_cluster_is_joined(tmp_path):
    pytest.importorskip("ray")
    outcomes = OnRay("nowhere:1").run(Work(JobConfig.of(job(tmp_path, "out"))), iter(()), lambda about: None)
    assert list(outcomes) == []


@pytest.mark.parametrize("share", [{"cpus": 0.0}, {"cpus": -1.0, "gpus": 1.0}, {"gpus": -1.0}])
def test_a_worker_needs_something_to_run_on(share):
    with pytest.raises(ConfigError, match=r"expected more than nothing"):
        OnRay("auto", **share)


class Exceptions:
    """Ray's, as far as the runner knows them."""

    RayError = type("RayError", (Exception,), {})
    RayTaskError = type("RayTaskError", (RayError,), {})
    ObjectLostError = type("ObjectLostError", (RayError,), {})


class DyingRay:
    """Stands for Ray: its first `deaths` workers are lost while they load, and the others answer every row."""

    exceptions = Exceptions

    def __init__(self, deaths: int) -> None:
        self.deaths = deaths

    def remote(self):  # of the actor's class
        def load(work):
            self.deaths -= 1
            return Exceptions.ObjectLostError("its node is gone") if self.deaths >= 0 else About("", "fake", {}, (), 8)

        answer = SimpleNamespace(
            options=lambda **_: SimpleNamespace(
                remote=lambda rows: iter([Outcome(row.number, result={}) for row in rows])
            )
        )
        return SimpleNamespace(load=SimpleNamespace(remote=lambda work: iter([load(work)])), answer=answer)

    def get(self, item):
        item = item if isinstance(item, Outcome) else next(item)
        if isinstance(item, Exception):
            raise item
        return item

    def wait(self, items, **_):
        return items, []

    def kill(self, actor):
        pass


@pytest.mark.parametrize(("workers", "deaths", "ends"), [(8, 8, False), (2, 9, True), (1, 5, True)])
def test_a_machine_that_goes_with_all_its_workers_does_not_end_the_job(tmp_path, workers, deaths, ends):
    rows = [JobRow(number, Row(str(number), None, "here")) for number in range(20)]
    ray = DyingRay(deaths)
    work = Work(JobConfig.of(job(tmp_path, "out", workers=workers)))
    running = ray_runner._Running(ray, ray, work, iter(rows), lambda about: None)
    if ends:
        with pytest.raises(JobError, match="5 workers died one after another"):
            list(running.outcomes())
    else:
        assert sorted(outcome.number for outcome in running.outcomes()) == list(range(20))


def children(name: str) -> list[int]:
    """Processes below this one that Ray has given that name."""
    psutil = pytest.importorskip("psutil")
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if " ".join(child.cmdline()).startswith(name):
                found.append(child.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.timeout(180)
def test_two_workers_of_which_one_is_killed_give_the_rows_of_the_local_run(tmp_path, capfd):
    """Two actors with nano on a Ray of their own; 25 s, most of which is Ray's start and loading."""
    pytest.importorskip("ray")
    manifest(tmp_path, 60)
    summary = run_job(job(tmp_path, "local", workers=0), runner=InThisProcess())
    assert summary.exit_status == 0
    killed = []

    def kill_one(progress) -> None:
        if not killed and progress.done >= 5:
            killed.extend(children("ray::WorkerActor")[:1])
            os.kill(killed[0], signal.SIGKILL)

    capfd.readouterr()
    summary = run_job(job(tmp_path, "ray", workers=2), runner=OnRay("local", cpus=0.5), advance=kill_one)
    assert killed and summary.exit_status == 0
    assert capfd.readouterr().out == "", "Ray's notices are nobody's results"
    assert len(written(tmp_path / "ray")) == 60
    assert sorted(written(tmp_path / "ray")) == sorted(written(tmp_path / "local"))
    assert not (tmp_path / "ray" / "errors").exists() or not any((tmp_path / "ray" / "errors").iterdir())


@pytest.mark.exhaustive
@pytest.mark.timeout(300)
def test_a_killed_driver_leaves_a_job_that_goes_on(tmp_path):
    """SIGKILL of the command itself, then the same command: no row is missing, none is there twice."""
    pytest.importorskip("ray")
    manifest(tmp_path, 120)
    (tmp_path / "job.toml").write_text(
        f'model = "nano"\ninput = "{tmp_path}/rows.jsonl"\noutput = "{tmp_path}/out"\nask = "What is that sound?"\n'
        "workers = 2\nrows_per_part = 16\n[sampling]\ntemperature = 0.0\nmax_tokens = 12\n"
    )
    command = [sys.executable, "-m", "qwen2_audio", "job", "run", "job.toml", "--ray", "local"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while not list(tmp_path.glob("out/parts/*.jsonl")):
        assert first.poll() is None
    first.kill()
    first.wait()
    assert len(written(tmp_path / "out")) < 120
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert again.returncode == 0, again.stderr[-3000:]
    rows = written(tmp_path / "out")
    assert len(rows) == len(set(rows)) == 120
