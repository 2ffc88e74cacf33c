"""Files to parameters and back: every layout, every way a folder can be wrong, and how much memory it takes."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from kit.tiny import tiny_config
from qwen2_audio.checkpoint import weights
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.errors import WeightsError
from qwen2_audio.model.qwen2_audio import Qwen2AudioForConditionalGeneration, Qwen2AudioModel

CONV = "audio_tower.conv1.weight"


def on_meta(kind=Qwen2AudioForConditionalGeneration, **text):
    with torch.device("meta"):
        return kind(tiny_config(text=text))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Qwen2AudioForConditionalGeneration(tiny_config())


@pytest.fixture(scope="module")
def tensors(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.fixture
def folder(tmp_path, tensors):
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def shard(folder: Path, tensors: dict, files: int = 3) -> dict:
    weight_map = {name: f"model-{i % files}.safetensors" for i, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        save_file({n: tensors[n] for n, f in weight_map.items() if f == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def load(folder: Path, kind=Qwen2AudioForConditionalGeneration, dtype=None, ignore=(), **text):
    model = on_meta(kind, **text)
    weights.load_checkpoint(model, folder, dtype, ignore=ignore)
    return model


def assert_holds(model: nn.Module, tensors: dict) -> None:
    found = dict(model.named_parameters())
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor), name


def newer(name: str) -> str:
    """The name that transformers 5 has in memory."""
    name = re.sub(r"^language_model\.model\.", "model.language_model.", name)
    name = re.sub(r"^(audio_tower|multi_modal_projector)\.", r"model.\1.", name)
    return name.replace("language_model.lm_head.", "lm_head.")


def refusal(action, *args, **options) -> str:
    with pytest.raises(WeightsError) as caught:
        action(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Reading


def test_the_official_checkpoint_has_876_tensors_of_8_397_094_912_numbers():
    official = {"vocab_size": 156032, "intermediate_size": 11008, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5}
    with torch.device("meta"):
        model = Qwen2AudioForConditionalGeneration(Qwen2AudioConfig(text_config=official))
    shapes = {name: p.shape for name, p in model.named_parameters()}
    assert len(shapes) == 876
    assert sum(shape.numel() for shape in shapes.values()) == 8_397_094_912
    assert list(model.state_dict()) == list(shapes)  # nothing else would be stored
    parts = {
        "audio_tower.": 487,
        "multi_modal_projector.": 2,
        "language_model.model.": 386,
        "language_model.lm_head": 1,
    }
    for prefix, count in parts.items():
        assert sum(name.startswith(prefix) for name in shapes) == count
    assert all(weights.canonical(name) == name == weights.canonical(newer(name)) for name in shapes)
    assert len({newer(name) for name in shapes}) == 876


def test_one_file(folder, tensors):
    model = load(folder)
    assert_holds(model, tensors)
    assert not any(t.is_meta for t in [*model.parameters(), *model.buffers()])


def test_shards(tmp_path, tensors):
    shard(tmp_path, tensors)
    assert_holds(load(tmp_path), tensors)


def test_a_whole_file_is_what_counts_beside_an_index(folder, tensors):
    """transformers takes it first, and leaves the index of an earlier save beside it, without its shards."""
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"stray": "model-00001-of-00002.safetensors"}}'
    )
    assert_holds(load(folder), tensors)


def test_names_of_transformers_5(tmp_path, tensors):
    save_file({newer(name): t for name, t in tensors.items()}, tmp_path / "model.safetensors")
    assert_holds(load(tmp_path), tensors)


@pytest.mark.parametrize(
    ("stored", "ours"),
    [
        ("model.language_model.embed_tokens.weight", "language_model.model.embed_tokens.weight"),
        ("language_model.layers.0.mlp.up_proj.weight", "language_model.model.layers.0.mlp.up_proj.weight"),
        ("language_model.model.norm.weight", "language_model.model.norm.weight"),
        ("lm_head.weight", "language_model.lm_head.weight"),
        ("model.audio_tower.layers.1.fc1.bias", "audio_tower.layers.1.fc1.bias"),
        ("layers.1.fc1.bias", "audio_tower.layers.1.fc1.bias"),
        ("model.multi_modal_projector.linear.bias", "multi_modal_projector.linear.bias"),
        ("something.else", "something.else"),
    ],
)
def test_canonical_names(stored, ours):
    assert weights.canonical(stored) == ours


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cast_to_the_dtype_asked_for(folder, tensors, dtype):
    assert_holds(load(folder, dtype=dtype), {name: t.to(dtype) for name, t in tensors.items()})


def test_as_stored_without_a_dtype(tmp_path, tensors):
    halves = {name: t.bfloat16() for name, t in tensors.items()}
    save_file(halves, tmp_path / "model.safetensors")
    assert_holds(load(tmp_path), halves)


def test_the_loaded_model_computes_what_the_saved_one_does(model, folder):
    ids = torch.arange(6)[None]
    assert torch.equal(load(folder)(ids).logits, model(ids).logits)


def test_writing_to_a_parameter_never_reaches_the_file(folder, tensors):
    loaded = load(folder)
    with torch.no_grad():
        for p in loaded.parameters():
            p.add_(1.0)
    assert_holds(load(folder), tensors)


def test_only_the_positions_of_the_encoder_are_frozen(folder):
    frozen = [name for name, p in load(folder).named_parameters() if not p.requires_grad]
    assert frozen == ["audio_tower.embed_positions.weight"]


def test_frequencies_of_very_old_files_are_passed_over(tmp_path, tensors):
    extra = {"language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(tensors | extra, tmp_path / "model.safetensors")
    assert_holds(load(tmp_path), tensors)


def test_headless_knows_that_a_head_is_there(folder, tensors):
    headless = {name: t for name, t in tensors.items() if name != weights.HEAD}
    assert_holds(load(folder, Qwen2AudioModel, ignore=(weights.HEAD,)), headless)
    assert "1 unexpected: language_model.lm_head.weight" in refusal(load, folder, Qwen2AudioModel)


def test_a_prefix_takes_its_part_only(folder, tensors):
    with torch.device("meta"):
        tower = Qwen2AudioModel(tiny_config()).audio_tower
    weights.load_checkpoint(tower, folder, prefix=weights.ENCODER)
    part = {n.removeprefix("audio_tower."): t for n, t in tensors.items() if n.startswith("audio_tower.")}
    assert_holds(tower, part)


# Tied


def test_tied_needs_no_head_and_is_one_parameter(tmp_path, tensors):
    save_file({n: t for n, t in tensors.items() if n != weights.HEAD}, tmp_path / "model.safetensors")
    model = load(tmp_path, tie_word_embeddings=True)
    assert model.language_model.lm_head.weight is model.language_model.model.embed_tokens.weight
    assert "1 missing: language_model.lm_head.weight" in refusal(load, tmp_path)


def test_never_tied_by_default(folder, tensors):
    model = load(folder)
    assert model.language_model.lm_head.weight is not model.language_model.model.embed_tokens.weight
    assert not torch.equal(model.language_model.lm_head.weight, model.language_model.model.embed_tokens.weight)


def test_separate_head(tmp_path, tensors):
    def says(tensors):
        save_file(tensors, tmp_path / "model.safetensors")
        return weights.separate_head(weights.Checkpoint.open(tmp_path))

    embedding = tensors[weights.EMBEDDING]
    assert says(tensors)
    assert not says(tensors | {weights.HEAD: embedding.clone()})
    assert not says({n: t for n, t in tensors.items() if n != weights.HEAD})


# What can be wrong with a folder


def test_all_that_does_not_fit_comes_in_one_report(tmp_path, tensors):
    broken = dict(tensors)
    for name in list(broken)[:5]:
        del broken[name]
    broken["extra.weight"] = torch.zeros(1)
    broken[weights.HEAD] = torch.zeros(60, 32)
    broken["multi_modal_projector.linear.bias"] = torch.zeros(32, dtype=torch.int8)
    save_file(broken, tmp_path / "model.safetensors")
    text = refusal(load, tmp_path)
    first = ", ".join(list(tensors)[:3])
    assert f"do not fit its config.json ({len(tensors)} expected). 5 missing: {first}, ...; " in text
    assert "1 unexpected: extra.weight; " in text
    assert "1 of another shape: language_model.lm_head.weight [60, 32], expected [64, 32]; " in text
    assert "1 not stored as fp32, fp16 or bf16: multi_modal_projector.linear.bias. Check that" in text


def test_a_refused_load_leaves_the_model_alone(tmp_path, tensors):
    save_file({n: t for n, t in tensors.items() if n != CONV}, tmp_path / "model.safetensors")
    model = on_meta()
    refusal(weights.load_checkpoint, model, tmp_path)
    assert all(p.is_meta for p in model.parameters())


def test_a_missing_shard_is_named(tmp_path, tensors):
    shard(tmp_path, tensors)
    (tmp_path / "model-1.safetensors").unlink()
    text = refusal(load, tmp_path)
    assert text == (
        f"{tmp_path} lacks model-1.safetensors, which model.safetensors.index.json names; fetch the missing shard."
    )


def test_a_shard_without_what_the_index_promises(tmp_path, tensors):
    weight_map = shard(tmp_path, tensors)
    file = tmp_path / weight_map[CONV]
    rest = load_file(file)
    del rest[CONV]
    save_file(dict(rest), file)
    assert f"{file} lacks '{CONV}', which model.safetensors.index.json promises in it." in refusal(load, tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"weight_map": []}', '{"weight_map": {"a": "../b.safetensors"}}'])
def test_a_broken_index(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json is not an index: no 'weight_map'" in refusal(load, tmp_path)


def test_no_weights_at_all(tmp_path):
    text = refusal(load, tmp_path)
    assert text.startswith(f"{tmp_path} has no weights; expected model.safetensors.index.json with its shards, or ")


def test_pickled_weights_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    text = refusal(load, tmp_path)
    assert "holds pytorch_model.bin but no safetensors" in text
    assert "convert them to safetensors" in text


@pytest.mark.parametrize("keep", [0, 7, 500, -1])
def test_a_torn_file(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    text = refusal(load, folder)
    assert text.startswith(f"{path} is not a whole safetensors file (")
    assert text.endswith("fetch it again.")


def test_a_git_lfs_pointer(tmp_path):
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert f"is a Git LFS pointer, not the weights; run 'git lfs pull' in {tmp_path}." in refusal(load, tmp_path)


def test_the_same_tensor_under_two_names(tmp_path, tensors):
    save_file(tensors | {"lm_head.weight": tensors[weights.HEAD].clone()}, tmp_path / "model.safetensors")
    text = refusal(load, tmp_path)
    assert "holds language_model.lm_head.weight twice" in text
    assert "'lm_head.weight'" in text


# Writing


def test_saved_and_loaded_again(tmp_path, model, tensors):
    weights.save_checkpoint(model, tmp_path / "new")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["model.safetensors"]
    assert_holds(load(tmp_path / "new"), tensors)
    with safe_open(tmp_path / "new" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_shards_are_small_and_counted(tmp_path, model, tensors):
    weights.save_checkpoint(model, tmp_path, 20_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == tensors.keys()
    assert index["metadata"] == {"total_size": sum(t.nbytes for t in tensors.values())}
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2
    assert files == [f"model-{i:05}-of-{len(files):05}.safetensors" for i in range(1, len(files) + 1)]
    for file in files:
        held = load_file(tmp_path / file)
        assert sum(t.nbytes for t in held.values()) <= 20_000 or len(held) == 1
    assert_holds(load(tmp_path), tensors)


@pytest.mark.parametrize("limits", [(20_000, 10**9), (10**9, 20_000), (20_000, 40_000)])
def test_saving_again_leaves_nothing_of_the_old(tmp_path, model, tensors, limits):
    (tmp_path / "mine.safetensors").write_bytes(b"not ours to remove")
    weights.save_checkpoint(model, tmp_path, limits[0])
    changed = load(tmp_path)
    with torch.no_grad():
        changed.language_model.lm_head.weight.zero_()
    weights.save_checkpoint(changed, tmp_path, limits[1])  # over the files that its own parameters are mapped from
    assert_holds(load(tmp_path), tensors | {weights.HEAD: torch.zeros(64, 32)})
    named = weights.Checkpoint.open(tmp_path).stored.values()
    files = {path.name for path in tmp_path.glob("*.safetensors")}
    assert files == {file for file, _ in named} | {"mine.safetensors"}


def test_a_crash_leaves_the_old_file(folder, tensors, monkeypatch, model):
    import safetensors.torch

    def crash(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.torch, "save_file", crash)
    with pytest.raises(OSError, match="disk full"):
        weights.save_checkpoint(model, folder)
    assert [p.name for p in folder.iterdir()] == ["model.safetensors"]
    assert_holds(load(folder), tensors)


def test_a_tied_head_is_written_too(tmp_path):
    model = Qwen2AudioForConditionalGeneration(tiny_config(text={"tie_word_embeddings": True}))
    weights.save_checkpoint(model, tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    assert torch.equal(held[weights.HEAD], held[weights.EMBEDDING])
    assert not weights.separate_head(weights.Checkpoint.open(tmp_path))
