"""`python -m recipes.nano`: which stages are shared by processes, and what those are told."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from recipes.nano import __main__ as command


@pytest.fixture
def ran(monkeypatch):
    """What a run did: the names of stages run here, and the commands of the others."""
    done, failing = [], []
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(command, "timed", lambda name, run, plan: done.append(name))

    def run(args, env):
        done.append(args)
        return SimpleNamespace(returncode=int(args[args.index("recipes.nano") + 1] in failing))

    monkeypatch.setattr(subprocess, "run", run)

    def ask(*args, fail=()):
        done.clear()
        failing[:] = fail
        monkeypatch.setattr(sys, "argv", ["nano", *args])
        return command.main(), list(done)

    return ask


def test_two_processes_share_the_stages_that_can_be_shared(ran):
    code, done = ran("--processes", "2", "--steps", "0.5", "--clips", "70", "--work", "w")
    assert code == 0
    names = [one if isinstance(one, str) else one[one.index("recipes.nano") + 1] for one in done]
    assert names == list(command.STAGES)
    shared = [one for one in done if not isinstance(one, str)]
    assert {one[one.index("recipes.nano") + 1] for one in shared} == set(command.SHARED)
    for one in shared:
        assert one[one.index("--nproc-per-node") + 1] == "2"
        options = one[one.index("recipes.nano") + 2 :]
        said = dict(zip(options[::2], options[1::2], strict=True))
        assert said == {
            "--work": "w", "--clips": "70", "--steps": "0.5", "--threads": "1", "--workers": "2", "--seed": "0",
            "--people": "16400",
        }  # fmt: skip


def test_one_process_and_those_of_torchrun_start_no_others(ran, monkeypatch):
    assert ran("encoder", "join", "--processes", "1") == (0, ["encoder", "join"])
    monkeypatch.setenv("RANK", "1")
    assert ran("encoder", "--processes", "2") == (0, ["encoder"])


def test_continue_stands_for_the_stages_from_kokoro_on(ran):
    code, done = ran("continue", "--processes", "1", "--lines", "30")
    assert code == 0 and done == list(command.CONTINUING)
    assert done[0] == "kokoro" and done[-1] == "settle"
    _, (shared,) = ran("hear", "--processes", "2", "--lines", "30")
    assert shared[-2:] == ["--lines", "30"]
    _, (shared,) = ran("hear", "--processes", "2", "--from", "before")
    assert shared[-2:] == ["--from", "before"]


def test_shared_stages_allocate_by_jemalloc_where_it_is_and_no_other_was_chosen(monkeypatch):
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setattr(command, "find_library", lambda name: f"lib{name}.so.2")
    assert command._environment()["LD_PRELOAD"] == "libjemalloc.so.2"
    monkeypatch.setenv("LD_PRELOAD", "another.so")
    assert command._environment()["LD_PRELOAD"] == "another.so"
    monkeypatch.delenv("LD_PRELOAD")
    monkeypatch.setattr(command, "find_library", lambda name: None)
    assert "LD_PRELOAD" not in command._environment()


def test_a_shared_stage_that_fails_ends_the_run(ran):
    code, done = ran("joint", "sft", "mistakes", "--processes", "2", fail=["joint"])
    assert code == 1 and len(done) == 1


@pytest.mark.parametrize("option", ["--steps", "--clips", "--threads", "--processes", "--workers"])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_a_number_that_is_none_is_refused(ran, capsys, option, value):
    with pytest.raises(SystemExit) as stopped:
        ran("join", option, value)
    assert stopped.value.code == 2
    assert f"argument {option}: found {value}, expected a number above 0" in capsys.readouterr().err


def test_a_stage_before_its_time_is_one_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["nano", "join", "--steps", "0.5", "--work", str(tmp_path)])
    assert command.main() == 2
    wanted = f"{tmp_path / 'encoder.pt'} is at step 0 of 2500; finish it first: python -m recipes.nano encoder\n"
    assert capsys.readouterr().err == wanted
