import shutil
from pathlib import Path

import pytest
import torch

import qwen2_audio as qa
from qwen2_audio import lora
from qwen2_audio.api import placement
from qwen2_audio.checkpoint import locate
from qwen2_audio.errors import ConfigError, WeightsError
from qwen2_audio.native import library


@pytest.fixture
def bundled(tiny_checkpoint, tmp_path, monkeypatch) -> Path:
    """The tiny checkpoint in the place of nano."""
    package = tmp_path / "qwen2_audio"
    shutil.copytree(tiny_checkpoint, package / "nano")
    monkeypatch.setattr(locate, "__file__", str(package / "checkpoint" / "locate.py"))
    monkeypatch.delenv("QWEN2_AUDIO_MODEL", raising=False)
    return package / "nano"


def test_without_a_name_it_is_nano_which_says_what_it_is_good_for(bundled):
    chat = qa.load()
    assert chat.name == str(bundled)
    assert chat.about == (
        "nano: a 1-MB toy trained on synthetic sounds, to try things out with; "
        "for real recordings load Qwen/Qwen2-Audio-7B-Instruct."
    )
    assert qa.nano_path() == bundled


def test_the_variable_comes_before_nano(bundled, tiny_checkpoint, monkeypatch):
    monkeypatch.setenv("QWEN2_AUDIO_MODEL", str(tiny_checkpoint))
    chat = qa.load()
    assert chat.name == chat.about == str(tiny_checkpoint)
    assert qa.load("nano").name == str(bundled)


def test_what_was_chosen_is_noted(tiny_checkpoint):
    (note,) = qa.load(tiny_checkpoint, device="cpu").notes
    assert note.startswith("float32 on the CPU, exact: 133 k parameters and a full context of 2048 positions")
    chat = qa.load(tiny_checkpoint, device="cpu", dtype="bfloat16")
    assert chat.notes == ("bfloat16 on cpu, as asked.",)
    assert str(chat.dtype) == "torch.bfloat16"
    assert str(chat.device) == "cpu"


def test_a_missing_nano_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(locate, "__file__", str(tmp_path / "checkpoint" / "locate.py"))
    with pytest.raises(WeightsError, match=r"The bundled checkpoint nano is not in this installation .* name another"):
        qa.nano_path()


def test_quantised_while_loading(tiny_checkpoint, clip):
    chat = qa.load(tiny_checkpoint, device="cpu", quantize="int8")
    (note,) = chat.notes
    assert note.startswith("int8 on cpu, as asked: 332 kB of weights, and ")
    assert chat.model.config.quantization_config["scheme"] == "int8"
    assert str(chat.dtype) == "torch.float32"
    assert chat.chat([qa.user("What is it?", audio=clip)], qa.SamplingParams(max_tokens=4)).usage.completion_tokens
    with pytest.raises(ConfigError, match=r"quantize is 'x'; expected None, 'int4' or 'int8'\."):
        qa.load(tiny_checkpoint, quantize="x")


def test_without_kernels_a_line_says_that_it_is_slow(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(library, "load", lambda: library.Loaded(None, "torch", "No native kernels: slow."))
    assert qa.load(tiny_checkpoint, device="cpu", quantize="int8").notes[1:] == ("No native kernels: slow.",)
    assert len(qa.load(tiny_checkpoint, device="cpu").notes) == 1


def test_auto_quantises_where_float32_has_no_room(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(placement, "available_bytes", lambda: 700_000)
    chat = qa.load(tiny_checkpoint, device="cpu")
    assert chat.notes[0].startswith("int8 on the CPU, quantised while loading: 133 k parameters")
    assert chat.model.config.quantization_config["scheme"] == "int8"


def test_an_adapter_runs_beside_quantised_weights(tiny_checkpoint, tmp_path, clip):
    base = qa.load(tiny_checkpoint, device="cpu", quantize="int8")
    lora.inject(base.model, lora.LoraConfig(targets={"projector": "linear", "language_model": "q_proj|down_proj"}))
    for module in lora.adapted(base.model).values():
        torch.nn.init.normal_(module.lora_B.weight)
    lora.save_adapter(base.model, tmp_path, "tiny")
    chat = qa.load(tiny_checkpoint, device="cpu", quantize="int8", adapter=tmp_path)
    assert set(lora.adapted(chat.model)) == set(lora.adapted(base.model))
    assert chat.notes[1].startswith(f"The adapter {tmp_path} runs beside 5 quantised Linears, slower than without it;")
    question, short = [qa.user("What is it?", audio=clip)], qa.SamplingParams(max_tokens=8)
    plain = qa.load(tiny_checkpoint, device="cpu", quantize="int8")
    assert chat.chat(question, short).text == base.chat(question, short).text != plain.chat(question, short).text


def test_an_adapter_is_added_to_the_weights(tiny_checkpoint, tmp_path, clip):
    plain = qa.load(tiny_checkpoint, device="cpu")
    before = plain.model.multi_modal_projector.linear.weight.clone()
    lora.inject(plain.model, lora.LoraConfig(targets={"projector": "linear"}))
    torch.nn.init.ones_(plain.model.multi_modal_projector.linear.lora_B.weight)
    lora.save_adapter(plain.model, tmp_path, "tiny")
    chat = qa.load(tiny_checkpoint, device="cpu", adapter=tmp_path)
    assert not torch.equal(chat.model.multi_modal_projector.linear.weight, before)
    assert lora.adapted(chat.model) == {}
    assert chat.notes[1] == f"The adapter {tmp_path} was added to 1 Linears."
    question, short = [qa.user("What is it?", audio=clip)], qa.SamplingParams(max_tokens=4)
    assert chat.chat(question, short).text == plain.chat(question, short).text
    with pytest.raises(WeightsError, match=r"has no adapter_config.json"):
        qa.load(tiny_checkpoint, device="cpu", adapter=tmp_path / "nowhere")


def test_a_path_that_is_not_there_is_refused():
    with pytest.raises(WeightsError, match=r"No folder './nowhere' here"):
        qa.load("./nowhere")


def test_attention_can_be_chosen(tiny_checkpoint):
    chat = qa.load(tiny_checkpoint, device="cpu", attn_implementation="eager")
    assert chat.model.config._attn_implementation == "eager"
    with pytest.raises(ConfigError):
        qa.load(tiny_checkpoint, device="cpu", attn_implementation="fast")


def test_old_keywords_of_load_work_with_a_notice(tiny_checkpoint):
    with pytest.warns(FutureWarning, match="load\\(\\): reuse is now enable_prefix_caching"):
        chat = qa.load(tiny_checkpoint, device="cpu", reuse=False)
    assert not chat.settings.enable_prefix_caching
    with pytest.raises(TypeError, match="load\\(\\) got an unexpected keyword argument 'devise'"):
        qa.load(tiny_checkpoint, devise="cpu")
