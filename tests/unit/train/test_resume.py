"""A run that was cut off, at any moment, ends as one that was not: bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kit import warm
from qwen2_audio.errors import ConfigError, PromptError, WeightsError
from qwen2_audio.train import checkpoint, dpo, sft, start
from qwen2_audio.train.metrics import Metrics, read


class Cut(Exception):  # noqa: N818
    """The power goes."""


@pytest.fixture
def cut_after(monkeypatch):
    """cut_after(n): the run dies in the middle of step n + 1."""
    from qwen2_audio.train import loop

    whole = loop.train_step

    def arrange(steps):
        def step(task, optimiser, data, number, total):
            if number == steps:
                raise Cut
            return whole(task, optimiser, data, number, total)

        monkeypatch.setattr(loop, "train_step", step)

    return arrange


def weights(folder):
    return load_file(next(Path(folder).glob("*.safetensors")))


def assert_same(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def without_times(output):
    lines = read(Path(output) / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in ("rate", "seconds")} for line in lines]


KINDS = {
    "full": (sft, {"method": "full"}),
    "lora with dropout": (sft, {"method": "lora", "lora": {"dropout": 0.2}}),
    "augmented": (sft, {"method": "full", "data": {"augment": {"gain_db": [-6.0, 6.0]}}}),
    "packed moments": (sft, {"method": "full", "optim": {"kind": "adamw8bit"}}),
    "muon": (sft, {"method": "full", "optim": {"kind": "muon"}}),
    "dpo": (dpo, {"method": "lora"}),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_resumed_run_is_the_uninterrupted_one(make, tmp_path, rows, cut_after, monkeypatch, kind):
    training, options = KINDS[kind]

    def config(name):
        table = {key: value for key, value in options.items() if key != "optim"}
        table["data"] = {"eval": str(rows), **options.get("data", {})}
        return make(
            steps=7, accumulate=2, checkpoint_every=2, eval_every=3, output=str(tmp_path / name),
            **table, optim={"schedule": "cosine", "warmup_steps": 2, **options.get("optim", {})},
        )  # fmt: skip

    whole = training.run(config("whole"))
    cut_after(5)
    with pytest.raises(Cut):
        training.run(config("cut"))
    monkeypatch.undo()
    assert checkpoint.newest(tmp_path / "cut").name == "step-00000004"
    torch.manual_seed(12345)  # whatever the new process happens to start with
    assert_same(whole, training.run(config("cut")))
    assert_same(tmp_path / "whole" / "best", tmp_path / "cut" / "best")
    assert without_times(tmp_path / "cut") == without_times(tmp_path / "whole")


def test_a_finished_run_is_not_trained_again(make, capsys):
    config = make(steps=3)
    first = {name: t.clone() for name, t in weights(sft.run(config)).items()}
    again = weights(sft.run(config))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert "going on after step 3 of 3" in capsys.readouterr().err
    assert len(read(Path(config.output) / "metrics.jsonl")) == 3


def test_another_run_in_the_same_folder_is_refused(make):
    sft.run(make(steps=2))
    with pytest.raises(ConfigError, match=r"holds a run with optim.learning_rate = 0.001, and the config now says 0.5"):
        sft.run(make(steps=2, optim={"learning_rate": 0.5}))
    with pytest.raises(ConfigError, match=r"holds a run of train sft, and this is train dpo"):
        dpo.run(make(steps=2))
    sft.run(make(steps=2, checkpoint_every=7))  # what changes no number may change


def test_a_broken_checkpoint_is_said(make):
    config = make(steps=2)
    sft.run(config)
    (checkpoint.newest(Path(config.output)) / "state.pt").write_bytes(b"half")
    with pytest.raises(WeightsError, match=r"is not a whole checkpoint .* remove it to begin again"):
        sft.run(config)


def test_what_a_kill_left_half_written_is_not_taken_for_a_checkpoint(make):
    config = make(steps=2)
    sft.run(config)
    folder = Path(config.output) / "checkpoints"
    (folder / ".step-00000009.partial").mkdir()
    assert checkpoint.newest(Path(config.output)).name == "step-00000002"
    assert [path.name for path in folder.glob("step-*")] == ["step-00000002"]


def test_a_full_disk_leaves_the_checkpoint_before_untouched(make, monkeypatch):
    config = make(steps=4, checkpoint_every=2)
    save = torch.save

    def full(state, path):
        if "00000004" in str(path):
            raise OSError(28, "No space left on device")
        save(state, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WeightsError, match=r"Cannot write the checkpoint .*No space left .* untouched"):
        sft.run(config)
    folder = Path(config.output) / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step-00000002"]


def test_metrics_go_on_where_the_checkpoint_is(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "lo')
    Metrics(tmp_path, 1).add(step=2, loss=5.0)
    assert read(path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 5.0}]


@pytest.mark.parametrize("seen", [3, 8])
def test_kill_9_loses_at_most_one_interval(make, tmp_path, rows, tiny_checkpoint, seen):
    whole = sft.run(make(steps=12, checkpoint_every=2, output=str(tmp_path / "whole"), method="lora"))
    toml = tmp_path / "run.toml"
    toml.write_text(
        f'model = "{tiny_checkpoint}"\noutput = "{tmp_path / "killed"}"\nsteps = 12\ncheckpoint_every = 2\n'
        'device = "cpu"\nmethod = "lora"\nparts = ["encoder", "projector", "language_model"]\n'
        f'[data]\ntrain = "{rows}"\nbatch_size = 2\n[optim]\nlearning_rate = 1e-3\nschedule = "constant"\n'
    )
    code = (
        "import time, sys; from qwen2_audio.train import loop; step = loop.train_step\n"
        "def slow(*a):\n    time.sleep(0.1); return step(*a)\n"
        "loop.train_step = slow; from qwen2_audio.cli.main import main; main(['train', 'sft', sys.argv[1]])"
    )
    program = warm.Program(["-c", code, toml])
    metrics = tmp_path / "killed" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while len(read(metrics)) < seen and time.monotonic() < deadline and program.process.is_alive():
        time.sleep(0.005)
    os.kill(program.pid, signal.SIGKILL)
    assert program.wait().returncode == -signal.SIGKILL
    done = len(read(metrics))
    newest = checkpoint.newest(tmp_path / "killed")
    kept = json.loads((newest / "progress.json").read_text())["progress"]["step"]
    assert done - 2 <= kept <= done
    from qwen2_audio.train.config import TrainConfig

    assert_same(whole, sft.run(TrainConfig.from_file(toml)))


def test_a_result_that_cannot_be_written_is_one_sentence_and_the_run_goes_on_later(make, monkeypatch):
    from qwen2_audio.train.start import RunSetup

    config = make(steps=2)
    with monkeypatch.context() as patch:
        save = RunSetup.save

        def full(self, folder):
            if "final" in folder.name:
                raise OSError(28, "No space left on device")
            save(self, folder)

        patch.setattr(RunSetup, "save", full)
        with pytest.raises(WeightsError, match=r"Cannot write .*final: .*No space left on device. Make room"):
            sft.run(config)
    assert (sft.run(config) / "config.json").is_file()


def test_a_model_of_another_shape_in_the_same_folder_is_refused(make, tmp_path, tiny_checkpoint):
    """The name of the model is the one the run began with, but somebody saved another one under it."""
    import shutil

    from qwen2_audio import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

    model = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, model)
    sft.run(make(steps=1, model=str(model)))
    table = Qwen2AudioConfig.from_pretrained(model).to_dict()
    table["text_config"]["intermediate_size"] = 48
    Qwen2AudioForConditionalGeneration(Qwen2AudioConfig.from_dict(table)).save_pretrained(model)
    with pytest.raises(ConfigError, match=r"holds language_model\S+ as \[\d+, \d+\], and .* has \[.*of another shape"):
        sft.run(make(steps=1, model=str(model)))


def test_a_run_that_began_before_a_key_was_there_goes_on(make):
    config = make(steps=2)
    sft.run(config)
    file = checkpoint.newest(Path(config.output)) / "progress.json"
    saved = json.loads(file.read_text())
    del saved["run"]["optim"]["kind"]
    file.write_text(json.dumps(saved))
    sft.run(config)
    with pytest.raises(
        ConfigError, match=r"holds a run with optim.kind = 'adamw', and the config now says 'adamw8bit'"
    ):
        sft.run(make(steps=2, optim={"kind": "adamw8bit"}))


def test_a_run_that_began_when_a_key_had_another_name_goes_on(make):
    config = make(steps=2, data={"augment": {"vtlp": [0.9, 1.1]}})
    sft.run(config)
    file = checkpoint.newest(Path(config.output)) / "progress.json"
    saved = json.loads(file.read_text())
    augment = saved["run"]["data"]["augment"]
    augment["throat"] = augment.pop("vtlp")
    file.write_text(json.dumps(saved))
    sft.run(config)
    with pytest.raises(ConfigError, match=r"with data\.augment\.vtlp = \[0\.9, 1\.1\], and the config now says"):
        sft.run(make(steps=2))


def test_a_checkpoint_whose_position_had_another_name_goes_on_from_there(make, tmp_path, cut_after, monkeypatch):
    whole = sft.run(make(steps=5, output=str(tmp_path / "whole")))
    config = make(steps=5, checkpoint_every=2, output=str(tmp_path / "cut"))
    cut_after(2)
    with pytest.raises(Cut):
        sft.run(config)
    monkeypatch.undo()
    file = checkpoint.newest(Path(config.output)) / "progress.json"
    saved = json.loads(file.read_text())
    saved["progress"]["place"] = saved["progress"].pop("batch")
    assert saved["progress"]["place"] == 2
    file.write_text(json.dumps(saved))
    assert_same(whole, sft.run(config))


def command(tmp_path, rows, tiny_checkpoint, limit):
    """A training whose process may write files of `limit` bytes: what a full disk does, on any disk."""
    toml = tmp_path / "full.toml"
    toml.write_text(
        f'model = "{tiny_checkpoint}"\noutput = "{tmp_path / "full"}"\nsteps = 4\ncheckpoint_every = 2\n'
        f'device = "cpu"\n[data]\ntrain = "{rows}"\n'
    )
    code = (
        "import resource, sys; limit = int(sys.argv[2]); resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit));"
        "from qwen2_audio.cli.main import main; main(['train', 'sft', sys.argv[1]])"
    )
    arguments = ["-c", code, str(toml), str(limit)]
    if limit > 10**6:
        return warm.run(arguments)
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)  # through pipes: no files


@pytest.mark.parametrize(("limit", "what"), [(20_000, "the checkpoint "), (100, "")])
def test_a_disk_without_room_is_one_sentence_and_nothing_half_written(tmp_path, rows, tiny_checkpoint, limit, what):
    done = command(tmp_path, rows, tiny_checkpoint, limit)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"qwen2-audio: Cannot write {what}{tmp_path / 'full'}"), last
    assert "Traceback" not in done.stderr
    left = {path.name for path in (tmp_path / "full").rglob("*")}
    assert left <= {"checkpoints", "metrics.jsonl", "lengths.npy"}, left
    assert command(tmp_path, rows, tiny_checkpoint, 10**9).returncode == 0
    assert len(read(tmp_path / "full" / "metrics.jsonl")) == 4


def test_a_clip_that_is_mended_meanwhile_moves_no_row(make, rows, cut_after, tmp_path, wav_file):
    """A run goes on with the lengths it began with, or rows would come twice, and others never."""
    clip = tmp_path / "3.wav"
    sound = clip.read_bytes()
    clip.unlink()
    config = make(steps=6, checkpoint_every=3, data={"batch_size": 0, "batch_tokens": 60})
    cut_after(3)
    with pytest.raises(Cut):
        sft.run(config)
    planned = start.dataset_of(start.set_up(config)).lengths()
    clip.write_bytes(sound)
    assert (start.dataset_of(start.set_up(config)).lengths() == planned).all() and not planned[3]


def test_a_report_of_a_run_that_came_to_nothing_is_not_gone_on_with(make, tmp_path):
    gone = tmp_path / "gone.jsonl"
    gone.write_text('{"messages": [{"role": "user", "content": "<audio>"}, {"role": "assistant", "content": "a"}]}\n')
    config = make(steps=1, data={"train": str(gone)})
    with pytest.raises(PromptError):
        sft.run(config)
    report = Path(config.output) / start.REPORT
    assert report.is_file()
    gone.write_text('{"messages": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "a"}]}\n')
    sft.run(config)
    assert not report.is_file()
