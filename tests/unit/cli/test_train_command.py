"""train and merge as commands, on the tiny checkpoint."""

import json

import pytest

import qwen2_audio as qa
from qwen2_audio.types import SamplingParams


@pytest.fixture
def run_file(tmp_path, wav_file, tiny_checkpoint):
    """run_file(method="lora") -> a TOML file of four steps on three rows."""

    def write(method="lora", more=""):
        lines = []
        for i, answer in enumerate(["a dog", "glass breaking", "rain"]):
            clip = wav_file(f"clip{i}.wav", seconds=0.4, hertz=300.0 * (i + 1))
            content = [{"type": "audio", "audio": str(clip)}, {"type": "text", "text": "What is it?"}]
            messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
            lines.append(json.dumps({"messages": messages, "rejected_response": "thunder"}))
        (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
        path = tmp_path / f"{method}.toml"
        path.write_text(
            f'model = "{tiny_checkpoint}"\noutput = "runs/{method}"\nsteps = 4\ndevice = "cpu"\nmethod = "{method}"\n'
            f'{more}[data]\ntrain = "rows.jsonl"\neval = "rows.jsonl"\n[optim]\nlearning_rate = 1e-2\n'
        )
        return path

    return write


def say(model, clip, **options):
    question = [qa.user("What is it?", audio=clip)]
    return qa.load(model, device="cpu", dtype="float32", **options).chat(question, SamplingParams(max_tokens=8)).text


def test_sft_then_merge_then_ask(cli, run_file, tmp_path, tiny_checkpoint, clip):
    status, out, err = cli("train", "sft", run_file())
    assert (status, out) == (0, "runs/lora/final\n")
    assert "step 4: evaluation loss" in err
    folder = tmp_path / "runs" / "lora"
    assert {path.name for path in folder.iterdir()} == {"best", "checkpoints", "final", "loss.png", "metrics.jsonl"}
    status, out, _ = cli("merge", tiny_checkpoint, "runs/lora/final", "--to", "merged")
    assert (status, out) == (0, "merged\n")
    assert say("merged", clip) == say(tiny_checkpoint, clip, adapter=folder / "final")


def test_a_whole_checkpoint_is_trained_and_answers(cli, run_file, tmp_path, clip):
    assert cli("train", "sft", run_file("full"))[:2] == (0, "runs/full/final\n")
    assert isinstance(say(tmp_path / "runs" / "full" / "final", clip), str)


def test_dpo_reports_margin_and_accuracy(cli, run_file, tmp_path):
    assert cli("train", "dpo", run_file())[0] == 0
    first = json.loads((tmp_path / "runs" / "lora" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert {"margin", "accuracy", "reward_chosen", "reward_rejected", "learning_rate", "grad_norm"} <= set(first)


def test_left_out_rows_are_told_at_the_end(cli, run_file, tmp_path):
    path = run_file()
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("{broken\n")
    status, _, err = cli("train", "sft", path)
    assert status == 0
    assert "row(s) left out, the first: rows.jsonl, line 4" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sfx"], "There is no training 'sfx'; expected sft, dpo, preview. Did you mean 'sft'?"),
        (["sft", "--more"], "stepz = 1\n"),
    ],
)
def test_a_mistake_is_one_sentence(cli, run_file, arguments, sentence):
    if arguments == ["sft", "--more"]:
        path = run_file(more=sentence)
        expected = f"qwen2-audio: {path}: there is no key 'stepz'. Did you mean 'steps'?\n"
        assert cli("train", "sft", path) == (2, "", expected)
    else:
        assert cli("train", *arguments, run_file()) == (2, "", f"qwen2-audio: {sentence}\n")


def test_a_data_file_that_is_not_there(cli, run_file, tmp_path):
    path = run_file()
    (tmp_path / "rows.jsonl").unlink()
    status, out, err = cli("train", "sft", path)
    assert (status, out) == (2, "")
    assert err == "qwen2-audio: data.train is 'rows.jsonl', and there is no such file here.\n"


def test_merge_overwrites_nothing_and_refuses_what_is_no_adapter(cli, tmp_path, tiny_checkpoint):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    status, _, err = cli("merge", tiny_checkpoint, "adapter", "--to", "full")
    assert (status, err) == (2, "qwen2-audio: full is not empty; name a new folder, so that nothing is overwritten.\n")
    status, _, err = cli("merge", tiny_checkpoint, "adapter", "--to", "new")
    assert status == 2
    assert "adapter has no adapter_config.json" in err
    assert not (tmp_path / "new").exists()
