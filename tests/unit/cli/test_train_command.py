"""train and merge as commands, on the tiny checkpoint."""

import json
import re

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
    assert {path.name for path in folder.iterdir()} == {
        "best", "checkpoints", "final", "lengths.npy", "loss.png", "metrics.jsonl"
    }  # fmt: skip
    status, out, err = cli("merge", tiny_checkpoint, "runs/lora/final", "--to", "merged", "--check")
    assert (status, out) == (0, "merged\n")
    lines = re.findall(r"^(.+): largest difference (\S+) .* same best token at (\d+) of (\d+) positions$", err, re.M)
    assert [what for what, *_ in lines] == ["attached and merged", "merged and loaded again"]
    assert 0 < float(lines[0][1]) < 1e-3
    assert float(lines[1][1]) == 0
    assert all(same == positions and int(same) > 300 for _, _, same, positions in lines)
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
        (["sfx"], "There is no training 'sfx'; expected sft, dpo, preview, overfit, aligner. Did you mean 'sft'?"),
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


def test_a_merge_that_says_something_else_is_told(cli, run_file, tiny_checkpoint, monkeypatch):
    from qwen2_audio import lora

    cli("train", "sft", run_file())
    merge = lora.merge

    def wrong(model):
        next(iter(lora.adapted(model).values())).scaling *= -1
        merge(model)

    monkeypatch.setattr(lora, "merge", wrong)
    assert cli("merge", tiny_checkpoint, "runs/lora/final", "--to", "plain")[0] == 0  # nobody asked
    status, out, err = cli("merge", tiny_checkpoint, "runs/lora/final", "--to", "merged", "--check")
    assert (status, out) == (1, "merged\n")
    assert "attached and merged: largest difference" in err


def test_a_full_disk_leaves_no_half_merged_folder(cli, run_file, tmp_path, tiny_checkpoint, monkeypatch):
    from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

    cli("train", "sft", run_file())

    def full(self, folder):
        (folder / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Qwen2AudioForConditionalGeneration, "save_pretrained", full)
    status, out, err = cli("merge", tiny_checkpoint, "runs/lora/final", "--to", "merged")
    assert (status, out) == (2, "")
    assert re.fullmatch(r"qwen2-audio: Cannot write \S+merged: .*No space left on device. Make room, .*\n", err)
    assert not [path for path in tmp_path.iterdir() if "merged" in path.name]


def test_training_without_a_config_is_one_sentence(cli):
    sentence = "qwen2-audio: train sft needs a config, a TOML file: qwen2-audio train sft run.toml.\n"
    assert cli("train", "sft") == (2, "", sentence)


@pytest.mark.slow
def test_the_bundled_checkpoint_learns_eight_clips_by_heart(cli):
    status, out, err = cli("train", "overfit")
    assert status == 0, err
    assert re.search(r"^loss 0.0\d+ after \d+ steps in \d+ s, 8 of 8 answers to the letter", out)


def test_a_model_that_does_not_learn_them_is_told(cli, tiny_checkpoint, monkeypatch):
    from qwen2_audio.train import overfit

    monkeypatch.setattr(overfit, "MAX_STEPS", 2)
    status, out, err = cli("train", "overfit", tiny_checkpoint)
    assert status == 1
    assert re.search(r"^loss \d\.\d+ after 2 steps in \d+ s, 0 of 8 answers to the letter; asked for: below 0.05", out)
    assert "dog: said " in err and "expected 'I hear rain and a cat.'" in err
