"""Checkpoints both ways between here and transformers: nothing missing, nothing left over, the same answers."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from kit.reference import reference_shape
from kit.tiny import AUDIO_ID
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.pretrained import Qwen2AudioEncoder, Qwen2AudioForConditionalGeneration, Qwen2AudioModel

transformers = pytest.importorskip("transformers")

VARIANTS = {
    "plain": {},
    "gqa": {"num_key_value_heads": 2},
    "tied": {"tie_word_embeddings": True},
    "rope": {"rope_theta": 500.0},
}


@pytest.fixture(params=VARIANTS)
def theirs(request):
    """A tiny random model of the reference."""
    torch.manual_seed(0)
    config = transformers.Qwen2AudioConfig(**reference_shape(text=VARIANTS[request.param]))
    model = transformers.Qwen2AudioForConditionalGeneration(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.15)
    model.generation_config.eos_token_id = None
    return model


def inputs() -> dict[str, torch.Tensor]:
    """Two rows, two clips: one of the whole window, one of 37 of its 60 mel frames behind left padding."""
    t, j = torch.arange(60.0), torch.arange(1.0, 9.0)[:, None]
    rows = [[5, 6, *[AUDIO_ID] * 15, 7, 8], [0] * 7 + [9, *[AUDIO_ID] * 9, 10, 11]]
    ids = torch.tensor(rows)
    mask, frames = torch.ones_like(ids), torch.ones(2, 60, dtype=torch.int32)
    mask[1, :7], frames[1, 37:] = 0, 0
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "input_features": torch.stack([torch.sin(0.05 * t * j), torch.cos(0.03 * t * j)]),
        "feature_attention_mask": frames,
    }


def load_theirs(folder):
    model, report = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[key], (key, report[key])
    return model.eval()


def assert_same_weights(ours, theirs) -> None:
    reference = {name.replace("model.", "", 1): p for name, p in theirs.named_parameters() if name.startswith("model.")}
    for name, p in ours.named_parameters(remove_duplicate=False):
        if name == "language_model.lm_head.weight":
            assert torch.equal(p, theirs.lm_head.weight)
        else:
            assert torch.equal(p, reference.pop(name.replace("language_model.model.", "language_model."))), name
    assert not reference


@torch.no_grad()
def assert_same_answers(ours, theirs) -> None:
    given = inputs()
    positions = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
    seen = given["attention_mask"].bool()
    found = ours(**given, position_ids=positions).logits[seen]
    assert_close(found, theirs(**given, position_ids=positions).logits[seen], atol=1e-4, rtol=0)
    tokens = ours.generate(**given, max_new_tokens=6, do_sample=False)
    expected = theirs.generate(**given, max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert tokens[:, -6:].tolist() == expected[:, -6:].tolist()


def test_theirs_loads_here(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    ours = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)
    assert_same_weights(ours, theirs)
    assert_same_answers(ours, load_theirs(tmp_path))
    assert not ours.config.tied  # the reference ties none of them, whatever its config says


def test_equal_head_and_embedding_are_tied_here_when_the_config_says_so(theirs, tmp_path):
    theirs.lm_head.weight.data.copy_(theirs.model.language_model.embed_tokens.weight)
    theirs.save_pretrained(tmp_path)
    ours = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)
    shared = ours.language_model.lm_head.weight is ours.language_model.model.embed_tokens.weight
    assert shared == ours.config.tied == theirs.config.text_config.tie_word_embeddings
    assert_same_weights(ours, theirs)
    assert_same_answers(ours, load_theirs(tmp_path))


def test_theirs_in_shards_loads_here(theirs, tmp_path):
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_same_weights(Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path), theirs)


def test_theirs_under_its_names_in_memory_loads_here(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    named = {name: p.detach().clone() for name, p in theirs.named_parameters()}  # as some fine-tunes are saved
    assert "model.language_model.norm.weight" in named
    save_file(named, tmp_path / "model.safetensors")
    assert_same_weights(Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path), theirs)


def test_theirs_headless_and_encoder_load_here(theirs, tmp_path):
    theirs.model.save_pretrained(tmp_path / "headless")
    ours = Qwen2AudioModel.from_pretrained(tmp_path / "headless")
    norm = ours.language_model.model.norm.weight
    assert torch.equal(norm, theirs.model.language_model.norm.weight)
    theirs.model.audio_tower.save_pretrained(tmp_path / "encoder")
    encoder = Qwen2AudioEncoder.from_pretrained(tmp_path / "encoder")
    reference = dict(theirs.model.audio_tower.named_parameters())
    for name, p in encoder.named_parameters():
        assert torch.equal(p, reference.pop(name))
    assert not reference


@pytest.mark.parametrize("limit", ["5GB", "20KB"])
def test_ours_loads_there(theirs, tmp_path, limit):
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours", max_shard_size=limit)
    assert (len(list((tmp_path / "ours").glob("*.safetensors"))) > 2) == (limit == "20KB")
    again = load_theirs(tmp_path / "ours")
    assert_same_weights(ours, again)
    assert_same_answers(ours, again)


@pytest.mark.parametrize("text", VARIANTS.values(), ids=VARIANTS)
def test_ours_made_from_a_config_loads_there(tmp_path, text):
    torch.manual_seed(1)
    ours = Qwen2AudioForConditionalGeneration(Qwen2AudioConfig(**reference_shape(text=text))).eval()
    ours.save_pretrained(tmp_path)
    again = load_theirs(tmp_path)
    assert_same_weights(ours, again)
    assert_same_answers(ours, again)


def test_the_files_of_both_name_and_hold_the_same(theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "theirs")
    Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    mine, reference = (load_file(tmp_path / side / "model.safetensors") for side in ("ours", "theirs"))
    assert mine.keys() == reference.keys()
    assert all(torch.equal(mine[name], reference[name]) for name in mine)


def test_dtype_as_stored(theirs, tmp_path):
    theirs.bfloat16().save_pretrained(tmp_path)
    ours = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)
    assert {p.dtype for p in ours.parameters()} == {torch.bfloat16}
    assert_same_weights(ours, theirs)
    ours.save_pretrained(tmp_path)
    assert transformers.Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path).dtype == torch.bfloat16


def test_settings_of_generation_travel(theirs, tmp_path):
    theirs.generation_config.update(do_sample=True, top_k=20, top_p=0.5, temperature=0.7, repetition_penalty=1.1)
    theirs.save_pretrained(tmp_path)
    ours = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)
    ours.save_pretrained(tmp_path / "again")
    again = transformers.GenerationConfig.from_pretrained(tmp_path / "again")
    settings = ("do_sample", "top_k", "top_p", "temperature", "repetition_penalty")
    assert [getattr(again, key) for key in settings] == [True, 20, 0.5, 0.7, 1.1]
    assert "transformers_version" in json.loads((tmp_path / "again" / "generation_config.json").read_text())
