"""A checkpoint of a run that trains all weights is a model, as one of LoRA is an adapter."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

import qwen2_audio as qa
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.train import checkpoint, sft
from qwen2_audio.train.optim import prepare, trained


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("parts", [["encoder", "projector", "language_model"], ["projector"]])
def test_the_last_checkpoint_is_the_result(make, tmp_path, parts):
    final = weights(sft.run(make(steps=3, parts=parts)))
    found = weights(checkpoint.newest(tmp_path / "run"))
    assert found.keys() == final.keys()
    assert all(torch.equal(found[name], final[name]) for name in final)


def test_it_can_be_loaded_and_asked(make, tmp_path, clip):
    sft.run(make(steps=2))
    loaded = qa.load(checkpoint.newest(tmp_path / "run"), device="cpu", dtype="float32")
    final = qa.load(tmp_path / "run" / "final", device="cpu", dtype="float32")
    question = [qa.user("What is it?", audio=clip)]
    params = qa.SamplingParams(max_tokens=8, temperature=0)
    assert loaded.chat(question, params).text == final.chat(question, params).text


def test_parameters_are_kept_once(make, tmp_path):
    sft.run(make(steps=1))
    state = torch.load(checkpoint.newest(tmp_path / "run") / "state.pt", weights_only=True)
    assert state["parameters"] is None


def test_a_checkpoint_of_an_earlier_version_goes_on(make, tmp_path, tiny_checkpoint):
    """Until version 0.2 the parameters were in state.pt."""
    whole = weights(sft.run(make(steps=4, output=str(tmp_path / "whole"))))
    config = make(steps=4, checkpoint_every=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qwen2_audio.train.checkpoint.shutil.rmtree", lambda *_, **__: None)  # keeps the older one
        sft.run(config)
    older = tmp_path / "run" / "checkpoints" / "step-00000002"
    model = Qwen2AudioForConditionalGeneration.from_pretrained(older)
    prepare(model, config)
    state = torch.load(older / "state.pt", weights_only=True)
    state["parameters"] = {name: parameter.detach() for name, parameter in trained(model).items()}
    torch.save(state, older / "state.pt")
    for file in ("model.safetensors", "config.json"):
        (older / file).unlink()
    for folder in (tmp_path / "run" / "checkpoints" / "step-00000004", tmp_path / "run" / "final"):
        shutil.rmtree(folder)
    resumed = weights(sft.run(config))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_checkpoint_without_its_weights_is_said(make, tmp_path):
    sft.run(make(steps=1))
    (checkpoint.newest(tmp_path / "run") / "model.safetensors").write_bytes(b"half")
    with pytest.raises(qa.errors.WeightsError, match="is not a whole checkpoint"):
        sft.run(make(steps=1))
