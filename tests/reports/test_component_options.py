"""Options of `from_pretrained` that programs for the reference pass, and what `save_pretrained` returns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kit.small_processor import small_tokenizer, write_small_processor
from qwen2_audio.checkpoint import hub
from qwen2_audio.errors import ConfigError
from qwen2_audio.inputs.feature_extractor import WhisperFeatureExtractor
from qwen2_audio.inputs.processor import AutoProcessor, Qwen2AudioProcessor
from qwen2_audio.text.tokenizer import Tokenizer

HARMLESS = {"use_fast": False, "trust_remote_code": True, "token": "x", "cache_dir": "/nowhere", "proxies": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_small_processor(tmp_path_factory.mktemp("options"))


@pytest.mark.parametrize("part", [Qwen2AudioProcessor, AutoProcessor, Tokenizer, WhisperFeatureExtractor])
def test_the_name_by_position_or_keyword_and_options_of_the_hub(folder, part):
    first = part.from_pretrained(folder, **HARMLESS)
    second = part.from_pretrained(pretrained_model_name_or_path=str(folder), revision="main", local_files_only=True)
    assert type(first) is type(second)
    with pytest.raises(ConfigError, match=r"has no option 'paddin_side'\. Did you mean 'padding_side'\?$"):
        (AutoProcessor if part is WhisperFeatureExtractor else part).from_pretrained(folder, paddin_side="left")


def test_options_of_the_tokenizer(folder):
    options = {"padding_side": "right", "model_max_length": 77, "pad_token": "<|im_end|>", "cls_token": "(CLS)"}
    tokenizers = (
        Tokenizer.from_pretrained(folder, **options),
        Qwen2AudioProcessor.from_pretrained(folder, **options).tokenizer,
    )
    for tokenizer in tokenizers:
        assert {name: getattr(tokenizer, name) for name in options} == options
        assert tokenizer.decode(tokenizer.encode("a(CLS)"), skip_special_tokens=True) == "a"
    assert Tokenizer.from_pretrained(folder).padding_side == "left"


def test_options_of_calls(folder):
    processor = Qwen2AudioProcessor.from_pretrained(folder, padding="max_length", max_length=9)
    assert [len(row) for row in processor(text=["a", "bc"]).input_ids] == [9, 9]
    assert len(processor(text="abc", padding=False).input_ids[0]) == 3


def test_options_of_the_extractor_and_whole_parts(folder):
    assert Qwen2AudioProcessor.from_pretrained(folder, feature_size=80).feature_extractor.feature_size == 80
    assert WhisperFeatureExtractor.from_pretrained(folder, feature_size=80, hop_length=320).nb_max_frames == 1500
    tokenizer = small_tokenizer()
    processor = Qwen2AudioProcessor.from_pretrained(folder, tokenizer=tokenizer, chat_template="own")
    assert processor.tokenizer is tokenizer
    assert processor.chat_template == "own"
    with pytest.raises(ConfigError, match=r"sets hop_length to 320; the model is given clips with 160 only"):
        Qwen2AudioProcessor.from_pretrained(folder, hop_length=320)


def test_what_reaches_the_hub(monkeypatch):
    import huggingface_hub

    seen = {}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, name, **options: seen.update(api=self.token))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **options: seen.update(options) or "/x")
    hub.resolve("a/b", ["*"], token="t", cache_dir="/c", force_download=True)
    assert seen["api"] == "t"
    assert {name: seen[name] for name in ("token", "cache_dir", "force_download")} == {
        "token": "t", "cache_dir": "/c", "force_download": True
    }  # fmt: skip


def test_what_was_written(folder, tmp_path):
    processor = Qwen2AudioProcessor.from_pretrained(folder)
    parts = {"tokenizer": processor.tokenizer, "extractor": processor.feature_extractor, "processor": processor}
    for name, part in parts.items():
        written = [Path(path) for path in part.save_pretrained(tmp_path / name)]
        assert len(written) == len(set(written))
        assert set(written) == {path for path in (tmp_path / name).rglob("*") if path.is_file()}
    assert written[0].name == "preprocessor_config.json"


def test_dictionaries_and_json(folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours, theirs = Qwen2AudioProcessor.from_pretrained(folder), transformers.Qwen2AudioProcessor.from_pretrained(folder)
    assert ours.to_dict() == theirs.to_dict()
    assert json.loads(ours.to_json_string()) == json.loads(theirs.to_json_string())
    extractor = ours.feature_extractor
    assert extractor.to_dict() == theirs.feature_extractor.to_dict()
    assert json.loads(repr(extractor).partition(" ")[2]) == extractor.to_dict()
    for part in (ours, extractor):
        part.to_json_file(tmp_path / "x.json")
        assert json.loads((tmp_path / "x.json").read_text()) == part.to_dict()
    assert WhisperFeatureExtractor.from_json_file(tmp_path / "x.json").to_dict() == extractor.to_dict()
    assert WhisperFeatureExtractor.from_dict(extractor.to_dict(), feature_size=3).feature_size == 3


# -- options of a call, by part


def clips(n: int) -> list[np.ndarray]:
    return [(0.1 * np.random.default_rng(i).standard_normal(16_000)).astype(np.float32) for i in range(n)]


def test_parts_of_a_call(folder):
    processor = Qwen2AudioProcessor.from_pretrained(folder)
    text = ["<|AUDIO|>a", "b"]
    flat = processor(text=text, audio=clips(1), padding="max_length", max_length=40, return_tensors="pt")
    parts = processor(
        text=text,
        audio=clips(1),
        text_kwargs={"padding": "max_length", "max_length": 40},
        audio_kwargs={"sampling_rate": 16_000, "padding": "max_length", "truncation": True, "device": "cpu"},
        common_kwargs={"return_tensors": "pt"},
        images_kwargs={"do_resize": True},
        videos_kwargs={},
        images=None,
        videos=None,
    )
    assert flat.input_ids.shape == (2, 40)
    for name in flat:
        assert np.array_equal(flat[name], parts[name])


def test_options_that_ask_for_nothing(folder):
    processor = Qwen2AudioProcessor.from_pretrained(folder)
    plain = processor(text="ab").input_ids
    for call in (processor, processor.tokenizer):
        batch = call(["ab"], return_token_type_ids=False, verbose=True, is_split_into_words=False)
        assert batch["input_ids"] == plain
        assert list(call(["ab"], return_attention_mask=False)) == ["input_ids"]
        with pytest.raises(ValueError, match=r"^return_token_type_ids is True, which this tokenizer does not do"):
            call(["ab"], return_token_type_ids=True)
        with pytest.raises(ValueError, match=r"has no option 'paddin'\. Did you mean 'padding'\?$"):
            call(["ab"], paddin=True)
        with pytest.raises(ValueError, match=r"has no option 'pad_token'"):
            call(["ab"], pad_token="x")
    assert processor(text="ab", text_kwargs={"return_token_type_ids": False}).input_ids == plain


def test_options_of_the_clips(folder):
    transformers = pytest.importorskip("transformers")
    ours, theirs = Qwen2AudioProcessor.from_pretrained(folder), transformers.Qwen2AudioProcessor.from_pretrained(folder)
    for audio_kwargs in ({"max_length": 8_000}, {"do_normalize": True}):
        call = {"text": "<|audio_bos|><|AUDIO|><|audio_eos|>", "audio": clips(1), "return_tensors": "pt"}
        mine = ours(**call, audio_kwargs=audio_kwargs)
        if "max_length" in audio_kwargs:
            assert mine.feature_attention_mask.sum() == 50
            continue
        expected = theirs(**call, sampling_rate=16_000, audio_kwargs=audio_kwargs)
        assert np.array_equal(mine.input_ids, expected.input_ids)
        np.testing.assert_allclose(mine.input_features, expected.input_features, atol=1e-4)


def test_common_options_are_overruled(folder):
    processor = Qwen2AudioProcessor.from_pretrained(folder)
    common = {"padding": "max_length", "max_length": 9, "return_tensors": "np"}
    assert processor(text="a", common_kwargs=common).input_ids.shape == (1, 9)
    assert processor(text="a", common_kwargs=common, max_length=4).input_ids.shape == (1, 4)
    assert processor(text="a", common_kwargs=common, text_kwargs={"padding": False}).input_ids.shape == (1, 1)
