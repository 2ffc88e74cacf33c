"""from_pretrained and save_pretrained of the public classes, option by option."""

import inspect
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from kit.tiny import AUDIO, TEXT, tiny_config
from qwen2_audio.checkpoint import weights
from qwen2_audio.checkpoint.config import Qwen2AudioConfig, Qwen2AudioEncoderConfig
from qwen2_audio.errors import CapacityError, ConfigError, WeightsError
from qwen2_audio.generate.config import GenerationConfig
from qwen2_audio.pretrained import Qwen2AudioEncoder, Qwen2AudioForConditionalGeneration, Qwen2AudioModel, loading
from qwen2_audio.pretrained.options import parse_device, parse_dtype, parse_size

ENCODER = AUDIO | {"initializer_range": 0.5}


def config(**changes) -> Qwen2AudioConfig:
    return tiny_config(ENCODER, {"eos_token_id": 3}, **changes)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration(config()).eval()
    model.generation_config = GenerationConfig(top_k=7, eos_token_id=5)
    return model


@pytest.fixture
def folder(tmp_path, model):
    model.save_pretrained(tmp_path)
    return tmp_path


def refusal(kind, action, *args, **options) -> str:
    with pytest.raises(kind) as caught:
        action(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_same(one, other) -> None:
    mine, theirs = dict(one.named_parameters()), dict(other.named_parameters())
    assert mine.keys() == theirs.keys()
    for name, p in mine.items():
        assert torch.equal(p, theirs[name]), name


def change_config(folder, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# There and back


def test_saved_and_loaded_it_is_the_same(folder, model):
    again = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    assert_same(again, model)
    assert again.config == model.config
    assert again.generation_config.to_dict() == model.generation_config.to_dict()
    assert not again.training
    ids = torch.arange(6)[None]
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_the_files_written(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "generation_config.json", "model.safetensors"]
    data = json.loads((folder / "config.json").read_text())
    assert data["architectures"] == ["Qwen2AudioForConditionalGeneration"]
    assert (data["model_type"], data["torch_dtype"]) == ("qwen2_audio", "float32")
    assert data["text_config"]["model_type"] == "qwen2"
    assert json.loads((folder / "generation_config.json").read_text()) == {"top_k": 7, "eos_token_id": 5}


def test_every_class_saves_what_it_is(tmp_path, model):
    for kind, part in (
        (Qwen2AudioModel, Qwen2AudioModel(config())),
        (Qwen2AudioEncoder, Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**ENCODER))),
    ):
        part.save_pretrained(tmp_path / kind.__name__)
        data = json.loads((tmp_path / kind.__name__ / "config.json").read_text())
        assert data["architectures"] == [kind.__name__]
        assert_same(kind.from_pretrained(tmp_path / kind.__name__), part)


def test_shards_by_size(tmp_path, model):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert_same(Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path), model)


def test_the_dtype_written_is_the_dtype_held(folder):
    change_config(folder, dtype="float32", torch_dtype="float32")
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype="bfloat16")
    model.save_pretrained(folder)
    data = json.loads((folder / "config.json").read_text())
    assert (data["dtype"], data["torch_dtype"]) == ("bfloat16", "bfloat16")
    assert Qwen2AudioForConditionalGeneration.from_pretrained(folder).dtype == torch.bfloat16


def test_a_changed_model_is_not_saved(tmp_path, model):
    changed = Qwen2AudioForConditionalGeneration(config())
    changed.language_model.adapter = torch.nn.Linear(2, 2)
    text = refusal(WeightsError, changed.save_pretrained, tmp_path)
    assert "not as its config builds it (look at language_model.adapter.bias)" in text
    assert "merge adapters" in text
    assert list(tmp_path.iterdir()) == []


# Parts of a whole checkpoint


def test_headless_and_encoder_from_a_whole_checkpoint(folder, model):
    headless = Qwen2AudioModel.from_pretrained(folder)
    assert headless.language_model.lm_head is None
    ids = torch.arange(6)[None]
    assert torch.equal(model.language_model.lm_head(headless(ids).last_hidden_state), model(ids).logits)
    encoder = Qwen2AudioEncoder.from_pretrained(folder, dtype="float32")
    assert_same(encoder, model.audio_tower)
    assert (encoder.dtype, encoder.device) == (torch.float32, torch.device("cpu"))
    mel = torch.randn(1, 8, 60)
    assert torch.equal(encoder(mel).last_hidden_state, model.audio_tower(mel).last_hidden_state)


def test_only_the_positions_of_the_encoder_are_frozen(folder):
    for kind in (Qwen2AudioEncoder, Qwen2AudioModel, Qwen2AudioForConditionalGeneration):
        frozen = [name for name, p in kind.from_pretrained(folder).named_parameters() if not p.requires_grad]
        assert frozen == [n for n in frozen if n.endswith("embed_positions.weight")]
        assert len(frozen) == 1


def test_fresh_weights_of_the_encoder_alone():
    torch.manual_seed(0)
    encoder = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**ENCODER))
    assert abs(float(encoder.conv2.weight.detach().std()) - 0.5) < 0.05  # initializer_range
    assert not encoder.conv2.bias.any()
    assert (encoder.layer_norm.weight == 1).all()


# Tied


def test_tied(tmp_path):
    tied = Qwen2AudioForConditionalGeneration(config(tie_word_embeddings=True))
    tied.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for held in (tensors, {name: t for name, t in tensors.items() if name != weights.HEAD}):
        save_file(held, tmp_path / "model.safetensors")
        again = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)
        assert again.language_model.lm_head.weight is again.language_model.model.embed_tokens.weight
        assert_same(again, tied)


def test_never_tied_by_default(folder):
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    assert not torch.equal(model.language_model.lm_head.weight, model.language_model.model.embed_tokens.weight)
    tensors = load_file(folder / "model.safetensors")
    del tensors[weights.HEAD]
    save_file(dict(tensors), folder / "model.safetensors")
    text = refusal(WeightsError, Qwen2AudioForConditionalGeneration.from_pretrained, folder)
    assert "1 missing: language_model.lm_head.weight" in text


@pytest.mark.parametrize(
    "where", [{"tie_word_embeddings": True}, {"text_config": TEXT | {"tie_word_embeddings": True}}]
)
def test_a_false_claim_to_be_tied_is_not_believed(folder, model, where, caplog):
    change_config(folder, **where)
    again = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    assert_same(again, model)
    assert not again.config.tied
    assert "says that head and embedding are tied, but holds both: left untied" in caplog.text


# Options


def test_dtype_is_what_the_config_says_else_what_is_stored(folder, model):
    load = Qwen2AudioForConditionalGeneration.from_pretrained
    assert load(folder, dtype="auto").dtype == torch.float32
    change_config(folder, torch_dtype="float16")
    assert load(folder).dtype == torch.float16
    change_config(folder, torch_dtype=None)
    assert load(folder).dtype == torch.float32
    for option in (
        {"dtype": "bfloat16"},
        {"torch_dtype": torch.bfloat16},
        {"dtype": "bf16", "torch_dtype": "bfloat16"},
    ):
        loaded = load(folder, **option)
        assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}


def test_parse_dtype():
    assert parse_dtype(None) is parse_dtype("auto") is None
    assert parse_dtype("fp16") == parse_dtype("torch.float16") == parse_dtype(torch.float16) == torch.float16
    for bad in ("int8", torch.int8, "half precision"):
        assert "expected 'auto', 'float32', 'float16' or 'bfloat16'" in refusal(ConfigError, parse_dtype, bad)
    assert "give one" in refusal(ConfigError, parse_dtype, "float16", "float32")
    assert "give one" in refusal(ConfigError, parse_dtype, "auto", "float32")


def test_parse_device_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for wanted in (None, "auto", "cpu", torch.device("cpu"), {"": "cpu"}):
        assert parse_device(wanted) == torch.device("cpu")
    for wanted in ("cuda", "cuda:1", 0, torch.device("cuda"), {"": 0}):
        assert "0 CUDA devices are visible; use 'cpu' or 'auto'" in refusal(ConfigError, parse_device, wanted)


def test_parse_device_with_two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert parse_device(None) == torch.device("cpu")
    assert parse_device("auto") == parse_device("cuda") == torch.device("cuda")
    assert parse_device("cuda:1") == parse_device(1) == parse_device({"": 1}) == torch.device("cuda:1")
    assert "asks for cuda:2, but 2 CUDA devices are visible" in refusal(ConfigError, parse_device, 2)


@pytest.mark.parametrize(
    "wanted",
    ["balanced", "sequential", "disk", "", True, -1, 1.5, {"audio_tower": 0}, {"": 0, "x": 1}, {"": None, "a": 0}],
)
def test_other_device_maps_are_refused(wanted):
    text = refusal(ConfigError, parse_device, wanted)
    assert text.startswith(f"device_map is {wanted!r}; expected None, 'auto', 'cpu', 'cuda', 'cuda:1', an index")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(folder, model):
    loaded = Qwen2AudioForConditionalGeneration.from_pretrained(folder, device_map="auto")
    assert {p.device.type for p in loaded.parameters()} == {"cuda"}
    assert_same(loaded.cpu(), model)


def test_attention_implementation(folder):
    load = Qwen2AudioForConditionalGeneration.from_pretrained
    assert load(folder).config._attn_implementation == "sdpa"
    eager = load(folder, attn_implementation="eager").config
    assert {c._attn_implementation for c in (eager, eager.audio_config, eager.text_config)} == {"eager"}
    assert "expected one of eager, sdpa" in refusal(ConfigError, load, folder, attn_implementation="flex_attention")
    assert "expected one of eager" in refusal(
        ConfigError, Qwen2AudioEncoder.from_pretrained, folder, attn_implementation="x"
    )


def test_encoder_mask(folder):
    load = Qwen2AudioForConditionalGeneration.from_pretrained
    assert load(folder).encoder_mask is True
    assert load(folder, encoder_mask=False).encoder_mask is False
    text = refusal(ConfigError, Qwen2AudioEncoder.from_pretrained, folder, encoder_mask=False)
    assert "encoder_mask belongs to the whole model" in text


def test_a_config_of_the_callers(folder, model):
    mine = config()
    mine.text_config.rms_norm_eps = 0.5
    load = Qwen2AudioForConditionalGeneration.from_pretrained
    loaded = load(folder, config=mine, attn_implementation="eager")
    assert loaded.config.text_config.rms_norm_eps == 0.5
    assert mine._attn_implementation == "sdpa"  # copied, not changed
    assert "config is a Qwen2AudioEncoderConfig; expected a Qwen2AudioConfig" in refusal(
        ConfigError, load, folder, config=Qwen2AudioEncoderConfig(**ENCODER)
    )


def test_what_the_documented_examples_pass_is_accepted(folder):
    Qwen2AudioForConditionalGeneration.from_pretrained(
        str(folder), trust_remote_code=True, device_map="auto", low_cpu_mem_usage=True, local_files_only=True
    )


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"atn_implementation": "eager"}, "has no option 'atn_implementation'. Did you mean 'attn_implementation'?"),
        ({"max_memory": {}}, "from_pretrained() has no option 'max_memory'."),
        ({"quantize": "int5"}, "quantize is 'int5'; expected None, 'int4' or 'int8'. Did you mean 'int"),
        ({"quantize": "int8", "dtype": "float16"}, "dtype is float16 for a model quantised to int8, which computes in"),
        ({"device_map": "balanced"}, "device_map is 'balanced'"),
        ({"dtype": "int4"}, "dtype is 'int4'"),
        ({"dtype": "float16", "torch_dtype": "float32"}, "and torch_dtype, its older name, is float32; give one."),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_read(option, sentence):
    text = refusal(ConfigError, Qwen2AudioForConditionalGeneration.from_pretrained, "/nowhere", **option)
    assert sentence in text


def test_the_options_suggested_are_those_that_exist():
    parameters = inspect.signature(loading.Pretrained.from_pretrained).parameters.values()
    assert [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] == list(loading.OPTIONS)


# What can be wrong


def test_another_model_is_refused(folder):
    load = Qwen2AudioForConditionalGeneration.from_pretrained
    change_config(folder, model_type="whisper")
    assert "model_type is 'whisper'; expected 'qwen2_audio'" in refusal(ConfigError, load, folder)


def test_a_quantised_checkpoint_is_refused(folder):
    change_config(folder, quantization_config={"quant_method": "gptq"})
    text = refusal(WeightsError, Qwen2AudioForConditionalGeneration.from_pretrained, folder)
    assert "is quantised (gptq); this package loads fp32, fp16 and bf16 checkpoints" in text


def test_weights_of_another_size_are_refused(folder):
    change_config(folder, text_config=TEXT | {"eos_token_id": 3} | {"num_hidden_layers": 1, "intermediate_size": 40})
    text = refusal(WeightsError, Qwen2AudioForConditionalGeneration.from_pretrained, folder)
    assert "12 unexpected: language_model.model.layers.1." in text
    assert "3 of another shape: " in text
    assert "[48, 32], expected [40, 32]" in text


def test_no_room(folder, monkeypatch):
    def full(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")

    monkeypatch.setattr(weights, "load_checkpoint", full)
    text = refusal(CapacityError, Qwen2AudioForConditionalGeneration.from_pretrained, folder)
    assert text.startswith("cpu has no room for a model of 0.0 GB in torch.float32; use a smaller dtype")


def test_a_folder_that_is_not_there():
    assert "No folder './nowhere' here" in refusal(WeightsError, Qwen2AudioModel.from_pretrained, "./nowhere")


def test_parse_size():
    assert parse_size(1000) == 1000
    assert parse_size("5GB") == 5 * 10**9
    assert parse_size("500 MiB") == 500 * 2**20
    assert parse_size("7kb") == 7000
    for bad in ("big", 0, -1, "1.5GB", "GB", "5 apples"):
        assert "expected a number of bytes, or text such as '5GB'" in refusal(ConfigError, parse_size, bad)


# Generation settings


def test_without_a_file_the_config_gives_the_ids(folder):
    (folder / "generation_config.json").unlink()
    loaded = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    assert loaded.generation_config == GenerationConfig(eos_token_id=3)
    assert Qwen2AudioForConditionalGeneration(config()).generation_config.eos_token_id == 3
