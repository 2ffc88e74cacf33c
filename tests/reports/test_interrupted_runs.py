"""An interrupted run saves first, says how to go on, and has an adapter to use."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from qwen2_audio import lora
from qwen2_audio.cli.merge import merge
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.train import loop, sft


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_saves_a_checkpoint_with_an_adapter_and_the_run_goes_on(
    make, tmp_path, tiny_checkpoint, monkeypatch, capsys, number, status
):
    config = make(steps=4, method="lora", parts=["language_model"])
    whole = loop.train_step

    def step(task, optimiser, data, step, steps):
        if step == 1:
            os.kill(os.getpid(), number)
        return whole(task, optimiser, data, step, steps)

    monkeypatch.setattr(loop, "train_step", step)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(status):
        sft.run(config)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    folder = tmp_path / "run" / "checkpoints" / "step-00000002"
    said = capsys.readouterr().err.replace("\n", "")
    assert f"interrupted after step 2 of 4, saved in {folder}; its adapter can be used as it is" in said
    assert "Run the same command again to go on" in said
    model = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint)
    assert lora.attach(model, folder)
    assert any(bool(module.lora_B.weight.any()) for module in lora.adapted(model).values())
    differences = merge(str(tiny_checkpoint), folder, tmp_path / "merged", check=True)
    assert all(difference.passed for difference in differences.values())

    monkeypatch.undo()
    resumed = load_file(sft.run(config) / "adapter_model.safetensors")
    again = load_file(sft.run(make(steps=4, method="lora", parts=["language_model"], output=str(tmp_path / "b")))
                      / "adapter_model.safetensors")  # fmt: skip
    assert all(torch.equal(resumed[name], again[name]) for name in again)
